"""A real Airflow on the loopback interface: api-server, scheduler, dag-processor, and what its
deployment has beside.

Each has its own home folder, port and password, so several can run on one machine. A supervisor
(see ``tests.support.server_supervisor``) is the parent of all its processes and ends them, also
when the test run is killed.

This module may import nothing but the standard library, psutil, ``tests.support`` and its
neighbours here: not Airflow, whose settings would be read from the wrong home.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # psutil ships no types

from tests.airflow.client import Client
from tests.airflow.deployments import Deployment
from tests.airflow.settings import environment
from tests.airflow.warm_agents import have_agents_forked
from tests.support.ports import free_ports
from tests.support.server_supervisor import SupervisedServers

__all__ = ["AIRFLOW", "Airflow", "airflow", "migrate"]

_ROOT = Path(__file__).parents[2]
AIRFLOW = str(Path(sys.executable).with_name("airflow"))
"""Airflow's command, which is started as a deployment does it."""
_COMMANDS = {
    "api-server": ["api-server"],
    "scheduler": ["scheduler", "--skip-serve-logs"],  # the api-server reads the log files itself
    "dag-processor": ["dag-processor"],
}
_USERS = {"admin": "admin", "viewer": "viewer", "nobody": ""}
"""The role of each user: a viewer may change nothing, and who has no role may see nothing. All have
one password.
"""
_STOP = 15.0  # seconds between SIGTERM and SIGKILL; an idle Airflow needs two or three


@dataclass(frozen=True, slots=True)
class Airflow:
    """A running Airflow. ``client`` is logged in; ``supervisor`` is the process above all of
    Airflow's.
    """

    home: Path
    url: str
    user: str
    password: str
    client: Client
    supervisor: subprocess.Popen[bytes]

    def check(self) -> None:
        """Nothing, as long as all its components run.

        :raises RuntimeError: one has ended by itself; with the end of its log.
        """
        if self.supervisor.poll() is not None:
            raise RuntimeError(f"a component of Airflow ended by itself:\n{_logs(self.home)}")

    @property
    def temporary(self) -> Path:
        """The folder for temporary files of all its processes."""
        return self.home / "tmp"

    def processes(self, *names: str, **values: str) -> list[psutil.Process]:
        """Its living processes, in whatever session, in whose environment these variables are.

        ``names`` have any value, ``values`` these. What has changed its title (Airflow's own
        processes do so) has overwritten its environment, and is not found.
        """
        found = []
        for process in psutil.Process(self.supervisor.pid).children(recursive=True):
            variables = _environ(process)
            if set(names) <= variables.keys() and values.items() <= variables.items():
                found.append(process)
        return found


def _environ(process: psutil.Process) -> dict[str, str]:
    try:
        found: dict[str, str] = process.environ()
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # ended, or is about to: a zombie
        return {}
    return found


def migrate(home: Path, env: Mapping[str, str]) -> None:
    """Make the database; SQLite, if it is that, in WAL mode, as Airflow sets it up.

    :raises RuntimeError: it cannot be made; with what Airflow said.
    """
    done = subprocess.run(
        [AIRFLOW, "db", "migrate"],
        env=env,
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(
            f"airflow db migrate failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        )


def _settings(
    home: Path, bundles: Mapping[str, Path], host: str, port: int, password: str
) -> dict[str, str]:
    passwords = home / "passwords.json"
    passwords.write_text(json.dumps(dict.fromkeys(_USERS, password)))
    passwords.chmod(0o600)
    return environment(home, bundles) | {
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://{host}:{port}/execution/",
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(
            f"{name}:{role}" for name, role in _USERS.items()
        ),
        "AIRFLOW__API__HOST": host,
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://{host}:{port}",
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        # Each step of a DAG waits for it.
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
        # The default, 5 s, is short for a busy machine.
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "30",
        "TMPDIR": str(home / "tmp"),
    }


def _logs(home: Path) -> str:
    """The last lines of each component's own log."""
    return "\n".join(
        f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}"
        for log in sorted(home.glob("*.log"))
    )


@contextmanager
def airflow(
    home: Path,
    bundles: Mapping[str, Path],
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    remove: bool,
    deployment: Deployment | None = None,
    migrated: bool = False,
    warm_agents: bool = False,
    revived: bool = False,
    deadline: float = 300.0,
) -> Iterator[Airflow]:
    """Run an Airflow in the folder ``home`` for as long as the context lasts.

    Start it from a process that does not fork without exec meanwhile. ``port`` is a free one if
    left out; ``deployment`` is LocalExecutor with six processes, and SQLite, and ``migrated`` says
    whether its database is ready; ``deadline`` is for the start, in seconds; ``remove`` also
    removes ``home``. ``warm_agents`` says whether agents have torch imported when they begin, see
    ``warm_agents``. ``host`` is an address of this machine, at which the api-server listens. With
    ``revived``, the components are started again when they end.

    :raises RuntimeError: a component ended by itself, or was not healthy in time; with its log.
    """
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    port = port or free_ports(1)[0]
    password = secrets.token_urlsafe(9)
    deployment = deployment or Deployment({"AIRFLOW__CORE__PARALLELISM": "6"})
    env = _settings(home, bundles, host, port, password) | deployment.settings
    if not migrated:
        migrate(home, env)
    components = {**_COMMANDS, **deployment.components}
    commands = {name: [AIRFLOW, *words] for name, words in components.items()}
    commands |= deployment.commands
    if warm_agents:
        commands["python"] = have_agents_forked(home)
    orders = SupervisedServers(
        commands=commands,
        folder=str(home),
        grace=_STOP,
        remove=remove,
        revived=tuple(commands) if revived else (),
    )
    url = f"http://{host}:{port}"
    supervisor = subprocess.Popen(
        orders.argv(), env=env, cwd=_ROOT, stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        with Client(url, home / "logs") as client:
            server = Airflow(home, url, "admin", password, client, supervisor)
            until = time.monotonic() + deadline
            while not client.healthy():
                server.check()
                if time.monotonic() > until:
                    raise RuntimeError(f"no healthy Airflow in {deadline} s:\n{_logs(home)}")
                time.sleep(0.1)
            client.login("admin", password)
            yield server
            server.check()
    finally:
        supervisor.communicate(timeout=_STOP + 60)  # closes its standard input, and waits
