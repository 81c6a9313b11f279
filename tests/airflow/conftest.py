"""One real Airflow for all tests in this folder, and the runs of DAGs that tests look at.

Runs take their time, and most tests only look at one that has ended. So a test that is parametrized
with ``run`` gets the finished run of that DAG; the runs of the next such tests have been started by
then.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llutil.ledgers.etcd.etcd3_import import etcdrpc
from tests.airflow.client import Client, Run, wait
from tests.airflow.deployments import local
from tests.airflow.server import Airflow, airflow, migrate
from tests.airflow.serverless import prepare
from tests.airflow.services import Services, services
from tests.airflow.settings import environment
from tests.airflow.warm_agents import have_agents_forked
from tests.support.etcd_servers import CALM, EtcdServer, etcd, with_passwords
from tests.support.leftovers import files
from tests.support.zookeeper_servers import ZooKeeperServer, zookeeper, zookeeper_of
from tests.support.zookeeper_servers import client as client_of
from tests.unit.docs.blocks import write_files

_ROOT = Path(__file__).parents[2]
_BUNDLES = {"examples": _ROOT / "dags", "tests": Path(__file__).parent / "dags"}
# Runs that are started before their turn, which share the machine with the one that is waited for.
_AHEAD = 5
_RUN = 600.0  # seconds for a run, which shares the machine with all others; far more than it takes


@pytest.fixture(scope="session")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """A PostgreSQL and a Redis. The database ``new`` is that of a new Airflow, to be copied."""
    home = tmp_path_factory.mktemp("new")
    with services() as found:
        migrate(home, environment(home, {}) | local(1, found.database("new")).settings)
        yield found


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, beside: Services) -> Iterator[Airflow]:
    """A running Airflow with the repository's DAGs and those beside these tests.

    With PostgreSQL: one SQLite for so many tasks at a time has stalled Airflow 3.3.2 for its
    timeout of 30 s.
    """
    home = Path(tempfile.mkdtemp(prefix="airflow-"))
    known = files(home)
    deployment = local(22, beside.database("main", like="new"))
    how = {"remove": True, "deployment": deployment, "migrated": True, "warm_agents": True}
    with airflow(home, _BUNDLES, **how) as server:
        yield server
        if (
            not request.session.shouldfail
        ):  # else runs that nobody has waited for are still going on
            await_nothing_left(server, known=known, seconds=40)


@pytest.fixture(scope="session")
def client(server: Airflow) -> Client:
    """Its REST API."""
    return server.client


@dataclass(frozen=True, slots=True)
class Meeting:
    """An etcd that lets in nobody without a password, and the connection by which gangs get in."""

    store: EtcdServer
    conn_id: str
    password: str

    def introduce(self, client: Client, namespace: str) -> None:
        """Make the connection in an Airflow, with a namespace of its own, and pools that are too
        small for some gangs.
        """
        extra = {"namespace": namespace, "last_call_timeout": 3, "lease_ttl": 5}
        fields = {
            "connection_id": self.conn_id,
            "conn_type": "etcd",
            "host": str(self.store.endpoint),
            "login": "gangs",
            "password": self.password,
            "extra": json.dumps(extra),
        }
        client.ask("POST", "connections", json=fields)
        for pool, slots in (("two_slots", 2), ("narrow", 1)):
            client.ask("POST", "pools", json={"name": pool, "slots": slots})

    def stored(self) -> list[str]:
        """All keys that are there."""
        return [one.key.decode() for one in self._everything()]

    def unleased(self) -> list[str]:
        """The keys that no lease will ever end."""
        return [one.key.decode() for one in self._everything() if not one.lease]

    def _everything(self) -> list[Any]:
        with self.store.channel() as channel:
            asked = etcdrpc.AuthenticateRequest(name="root", password="root")
            token = etcdrpc.AuthStub(channel).Authenticate(asked, timeout=5).token
            everything = etcdrpc.RangeRequest(key=b"\0", range_end=b"\0", keys_only=True)
            found = etcdrpc.KVStub(channel).Range(
                everything, timeout=5, metadata=[("token", token)]
            )
        return list(found.kvs)


@pytest.fixture(scope="session")
def meeting(client: Client) -> Iterator[Meeting]:
    """Where gangs meet."""
    password = secrets.token_hex(8)
    with etcd(*CALM, "--auth-token", "simple") as store:
        with_passwords(store, {"gangs": (password, "/tests")})
        meeting = Meeting(store, "etcd_tests", password)
        meeting.introduce(client, "tests")
        yield meeting


@dataclass(frozen=True, slots=True)
class ZooKeeperMeeting:
    """A ZooKeeper with a chroot that is one user's, and the connection by which gangs get in."""

    store: ZooKeeperServer
    conn_id: str
    password: str
    chroot: str

    def stored(self) -> list[str]:
        """The paths of all records that are there."""

        def below(path: str) -> Iterator[str]:
            for name in other.get_children(path):
                yield f"{path}/{name}"
                yield from below(f"{path}/{name}")

        with client_of(self.store) as other:
            other.add_auth("digest", f"gangs:{self.password}")
            found = below(self.chroot)
            return [path for path in found if path.rpartition("/")[2][0] in "=@"]


@pytest.fixture(scope="session")
def zookeeper_meeting(client: Client) -> Iterator[ZooKeeperMeeting]:
    """Where the gang of ``chorus`` meets."""
    password = secrets.token_hex(8)
    with zookeeper() as store:
        zookeeper_of(store, {"gangs": password})
        meeting = ZooKeeperMeeting(store, "zookeeper_tests", password, "/gangs")
        fields = {
            "connection_id": meeting.conn_id,
            "conn_type": "zookeeper",
            "host": str(store.endpoint),
            "login": "gangs",
            "password": password,
            "extra": json.dumps({"chroot": meeting.chroot, "last_call_timeout": 3, "lease_ttl": 5}),
        }
        client.ask("POST", "connections", json=fields)
        yield meeting


class Wanted:
    """The runs that tests want, in this order, each started some time before it is looked at: a few
    at a time.
    """

    def __init__(self, client: Client, dag_ids: list[str]) -> None:
        self._client = client
        self._dag_ids = dag_ids
        self._runs: dict[str, Run] = {}

    def finished(self, dag_id: str) -> Run:
        """The run of that DAG, once it has ended, in whatever state."""
        last = self._dag_ids.index(dag_id) + _AHEAD
        for other in self._dag_ids[: last + 1]:
            if other not in self._runs:
                self._runs[other] = self._client.trigger(other)
        run = self._runs[dag_id]
        run.finish(None, seconds=_RUN)
        return run


@pytest.fixture(scope="session")
def _wanted(request: pytest.FixtureRequest, client: Client, meeting: Meeting) -> Wanted:
    assert meeting  # where the gangs among them meet
    wanted = dict.fromkeys(
        str(item.callspec.params["run"])
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.path.is_relative_to(Path(__file__).parent)
        and hasattr(item, "callspec")
        and "run" in item.callspec.params
    )
    if "chorus" in wanted:
        request.getfixturevalue("zookeeper_meeting")
    client.await_dags(*wanted)
    return Wanted(client, list(wanted))


@pytest.fixture
def run(request: pytest.FixtureRequest, _wanted: Wanted) -> Run:
    """The run of the DAG that the test is parametrized with, once it has ended, in whatever
    state.
    """
    return _wanted.finished(request.param)


@dataclass(frozen=True, slots=True)
class Trial:
    """A process that runs DAGs by ``dag.test()``, in its own ``home``; its output goes to
    ``log``. Its standard input is a terminal, and ``person`` is the other side of that.
    """

    dag_ids: tuple[str, ...]
    home: Path
    process: subprocess.Popen[bytes]
    result: Path
    log: Path
    person: int


@pytest.fixture(scope="session")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """The example DAGs, those of the tutorial and some of the tests' own, being tried out."""
    examples = (
        "train_digits",
        "train_script",
        "train_closure",
        "train_gang",
        "train_resume",
        "train_lightning",
        "train_transformers",
    )
    tutorial = ("script", "resume", "gang")
    dag_ids = (*examples, *tutorial, "values", "archive", "debugged")
    home = tmp_path_factory.mktemp("trial")
    prepare(home)
    write_files("docs/tutorial.md", home)
    result, log = home / "result.json", home / "log"
    folders = _BUNDLES | {"tutorial": home / "dags"}
    bundles = json.dumps({name: str(folder) for name, folder in folders.items()})
    python = subprocess.Popen(have_agents_forked(home), stdin=subprocess.DEVNULL)
    person, terminal = os.openpty()
    os.write(person, b"p made\nmade = 100\nc\n")  # it waits there for who reads it
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.airflow.serverless", home, result, bundles, *dag_ids],
            cwd=_ROOT,
            env=os.environ | {"TMPDIR": str(home / "tmp")},
            stdin=terminal,
            stdout=out,
            stderr=out,
        )
    os.close(terminal)
    try:
        yield Trial(dag_ids, home, process, result, log, person)
    finally:
        os.close(person)
        for one in (process, python):
            one.kill()  # does nothing to a process that has been waited for
            one.wait()


def let_go(run: Run, server: Airflow) -> None:
    """Make the file that workers of the run wait for; see ``duties`` of the DAG files."""
    _go_file(run, server).touch()


def hold(run: Run, server: Airflow) -> None:
    """Remove that file again."""
    _go_file(run, server).unlink(missing_ok=True)


def _go_file(run: Run, server: Airflow) -> Path:
    return server.temporary / f"go-{run.run_id.replace(':', '-')}"


def await_nothing_left(
    server: Airflow, run: Run | None = None, *, seconds: float, known: Collection[Path] = ()
) -> None:
    """Wait until no process of a run's jobs is left; without a run, no process and no file of any
    job.

    ``known`` are files that were there before.

    An agent gets the variables that Airflow sets for a running task, and all below it inherit them;
    Airflow's own processes have none.
    """
    mark = {"AIRFLOW_CTX_DAG_ID": run.dag_id, "AIRFLOW_CTX_DAG_RUN_ID": run.run_id} if run else {}

    def left() -> list[str]:
        processes = server.processes("AIRFLOW_CTX_DAG_ID", **mark)
        return [repr(process) for process in processes] + [
            str(path) for path in (() if run else files(server.temporary).difference(known))
        ]

    wait(
        "everything that jobs started to be gone",
        seconds,
        lambda: None if left() else True,
        lambda: "\n".join(left()),
    )
