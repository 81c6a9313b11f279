"""Jobs of tasks whose agents a server has forked are those of agents that were started afresh,
whoever is killed.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from airflow_provider.agent_client.environment import agent_environment
from airflow_provider.hooks.agent import AgentHook
from llutil.agent_server.client import AgentServerPlace
from llutil.agent_server.place import PlaceLock, servers
from llutil.agent_server.same_start import different_variables
from llutil.entrypoint import FunctionName
from llutil.errors import AgentLostError, StoppedError, WorkersFailedError
from llutil.launcher.config import LaunchConfig
from llutil.serialization import functions
from llutil.system.job_mark import MARK_VARIABLE
from llutil.task_link.messages import Spec
from tests.support.forks import fork
from tests.support.launches import is_alive, wait_until
from tests.support.leftovers import nothing_left

pytestmark = [pytest.mark.launch, pytest.mark.fault]

_SECONDS = 60.0
_OF_A_JOB = {"TORCHELASTIC_ERROR_FILE", "LLUTIL_EVENTS", "LLUTIL_ROUND", "MASTER_PORT"}
"""Variables that differ from one job to the next, beside the mark."""


@pytest.fixture(scope="module", autouse=True)
def temporary() -> Iterator[Path]:
    """One folder for temporary files for all these tests: a server serves tasks of one alone."""
    folder = Path(tempfile.mkdtemp(prefix="test-"))
    with pytest.MonkeyPatch.context() as patches:
        patches.setenv("TMPDIR", str(folder))
        patches.setattr(tempfile, "tempdir", str(folder))
        try:
            with nothing_left(folder):
                yield folder
                end_servers()
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def server_pid() -> int:
    """The process of the server that serves; 0 if none does."""
    return next(iter(servers().values()), 0)


def end_servers() -> None:
    """End the server, if there is one, and wait until it has ended; remove what one has left that
    was killed.
    """
    if pid := server_pid():
        with os.fdopen(os.pidfd_open(pid)) as pidfd:
            os.kill(pid, signal.SIGTERM)
            assert select.select([pidfd], [], [], _SECONDS)[0]
    if lock := PlaceLock.take(_place().path):
        lock.remove()


def _place() -> AgentServerPlace:
    return AgentServerPlace(sys.executable, agent_environment(os.environ, [], {}))


@pytest.fixture
def ready() -> int:
    """The number of a server's process that serves, also after tests that have killed one."""
    if not server_pid():
        _place().start_server(600)
        assert wait_until(lambda: server_pid() > 0, _SECONDS)
    return server_pid()


def spec(folder: Path, name: str, *args: Any, **config: Any) -> Spec:
    """A job of these ranks."""
    fields = {"nproc_per_node": 1, "shutdown_timeout": 5.0, "max_restarts": 0} | config
    return Spec(
        config=LaunchConfig(
            1, 1, run_id="job", start_method="forkserver", log_dir=str(folder / "logs"), **fields
        ),
        entrypoint=FunctionName(
            f"tests.support.forked_agent_functions:{name}", functions.pickle_arguments(args)
        ),
        result_limit=1_000_000,
        orphan_log=str(folder / "after.log"),
        agent_record=str(folder / "record"),
    )


@pytest.fixture
def logged() -> Iterator[Callable[[], list[str]]]:
    """What the hook logged."""
    with structlog.testing.capture_logs() as records:
        yield lambda: [str(one["event"]) % tuple(one.get("positional_args", ())) for one in records]


def test_the_first_task_leaves_a_server_that_forks_the_agent_of_the_next(
    tmp_path: Path, logged: Callable[[], list[str]]
) -> None:
    end_servers()
    first = AgentHook(keep_ready=600.0).run(spec(tmp_path, "facts", nproc_per_node=2))
    assert not [line for line in logged() if "is a fork of" in line]
    assert wait_until(lambda: server_pid() > 0, _SECONDS)
    second = AgentHook(keep_ready=600.0).run(spec(tmp_path, "facts", nproc_per_node=2))
    (line,) = [line for line in logged() if "is a fork of" in line]
    assert line.endswith(f"is a fork of the agent server, process {server_pid()}")
    for rank in (0, 1):
        drawn = [facts[rank].pop("drawn") for facts in (first, second)]
        assert not set(drawn[0]) & set(drawn[1])
        marks = [facts[rank]["environment"].pop(MARK_VARIABLE) for facts in (first, second)]
        assert marks[0] != marks[1]
        environments = [facts[rank].pop("environment") for facts in (first, second)]
        assert environments[0].keys() == environments[1].keys()
        names = {name for name, value in environments[0].items() if environments[1][name] != value}
        assert names <= _OF_A_JOB
        assert first[rank] == second[rank]


@pytest.mark.parametrize(
    "env", [{"TORCH_LOGS": "+dynamo"}, {"OMP_PROC_BIND": "true"}, {"PYTHONHASHSEED": "5"}]
)
def test_an_agent_with_other_variables_that_are_read_once_starts_afresh(
    env: dict[str, str], ready: int, tmp_path: Path, logged: Callable[[], list[str]]
) -> None:
    hook = AgentHook(keep_ready=600.0, env=env)
    (name,) = env
    assert hook.run(spec(tmp_path, "variable", name)) == {0: env[name]}
    lines = [line for line in logged() if "starts afresh" in line]
    assert lines == [
        f"the agent starts afresh; the agent server: process {ready}: the task has other values "
        f"of {name}"
    ]
    assert server_pid() == ready


def test_gpus_that_are_visible_are_those_of_the_task(ready: int, tmp_path: Path) -> None:
    hook = AgentHook(keep_ready=600.0, env={"CUDA_VISIBLE_DEVICES": "7", "OMP_NUM_THREADS": "2"})
    found = hook.run(spec(tmp_path, "facts"))[0]
    assert found["environment"]["CUDA_VISIBLE_DEVICES"] == "7"
    assert found["threads"] == 2


def test_two_tasks_at_once_have_an_agent_each(ready: int, tmp_path: Path) -> None:
    outcomes: dict[int, Any] = {}

    def run(number: int) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        hook = AgentHook(keep_ready=600.0, label=f"task {number}")
        outcomes[number] = hook.run(spec(folder, "meet", str(tmp_path), number))

    threads = [threading.Thread(target=run, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (first,), (second,) = outcomes[0].values(), outcomes[1].values()
    assert first != second
    assert server_pid() == ready


def test_a_job_goes_on_without_the_server_and_the_next_task_starts_its_agent_itself(
    ready: int, tmp_path: Path, logged: Callable[[], list[str]]
) -> None:
    with during(tmp_path, lambda _: os.kill(ready, signal.SIGKILL)):
        found = AgentHook(keep_ready=600.0).run(spec(tmp_path, "waits", str(tmp_path)))
    assert found == {0: "let go"}
    assert AgentHook(keep_ready=600.0).run(spec(tmp_path, "variable", "RANK")) == {0: "0"}
    forks = [line for line in logged() if "is a fork of" in line]
    assert len(forks) == 1
    assert wait_until(lambda: server_pid() not in {0, ready}, _SECONDS)


@pytest.mark.parametrize("server_too", [False, True])
def test_an_agent_that_is_killed_is_told_and_nothing_of_its_job_is_left(
    server_too: bool, ready: int, tmp_path: Path
) -> None:
    def kill(agent: int) -> None:
        if server_too:
            os.kill(ready, signal.SIGKILL)
        os.kill(agent, signal.SIGKILL)

    status = "an exit status that nobody can tell" if server_too else "SIGKILL"
    with during(tmp_path, kill), pytest.raises(AgentLostError, match=status):
        AgentHook(keep_ready=600.0).run(spec(tmp_path, "waits", str(tmp_path)))
    assert wait_until(lambda: not alive(tmp_path), _SECONDS)


def test_a_stop_reaches_the_agent_and_so_does_a_failure_the_task(
    ready: int, tmp_path: Path
) -> None:
    hook = AgentHook(keep_ready=600.0)

    def stop(agent: int) -> None:
        with os.fdopen(os.pidfd_open(agent)) as pidfd:
            hook.stop("enough")
            assert select.select([pidfd], [], [], _SECONDS)[0]  # before its rank is let go

    with during(tmp_path, stop), pytest.raises(StoppedError):
        hook.run(spec(tmp_path, "waits", str(tmp_path)))
    with pytest.raises(WorkersFailedError, match="ValueError: no such"):
        AgentHook(keep_ready=600.0).run(spec(tmp_path, "fails"))
    assert server_pid() == ready


@pytest.mark.parametrize("server_too", [False, True])
def test_the_job_of_a_task_that_is_killed_ends_and_its_agent_leaves_no_zombie(
    server_too: bool, ready: int, tmp_path: Path
) -> None:
    def run() -> None:
        AgentHook(keep_ready=600.0).run(spec(tmp_path, "waits", str(tmp_path)))

    task = fork()
    if task == 0:
        try:
            run()
        finally:
            os._exit(1)
    agent = agent_of(tmp_path)
    with os.fdopen(os.pidfd_open(agent)) as pidfd:
        os.kill(task, signal.SIGKILL)
        if server_too:
            os.kill(ready, signal.SIGKILL)
        assert select.select([pidfd], [], [], _SECONDS)[0]
    os.waitpid(task, 0)
    assert wait_until(lambda: not alive(tmp_path), _SECONDS)
    if not server_too:
        assert wait_until(lambda: not Path("/proc", str(agent)).exists(), _SECONDS)
        assert server_pid() == ready


def test_what_is_imported_reads_no_variable_that_is_not_compared() -> None:
    """In Python: what native code reads is known from its documentation alone."""
    code = (
        "import json, os, sys\n"
        "read = set()\n"
        "class Environ(type(os.environ)):\n"
        "    def __getitem__(self, key):\n"
        "        read.add(key)\n"
        "        return super().__getitem__(key)\n"
        "os.environ.__class__ = Environ\n"
        "from llutil.agent_server.main import import_agent\n"
        "whole = list(os.environ)\n"
        "import_agent()\n"
        "print(json.dumps(sorted(read - set(whole))))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    read = json.loads(found.stdout)
    assert "TORCH_LOGS" in read
    others = {name for name in read if not different_variables({}, {name: "x"})}
    # numpy's threads are set after a fork, and the rest is Python's own way to build extensions.
    assert others <= {"OPENBLAS_NUM_THREADS", "_PYTHON_PROJECT_BASE", "_PYTHON_SYSCONFIGDATA_NAME"}


def alive(folder: Path) -> list[int]:
    """The ranks that have left their numbers there, and live."""
    return [pid for path in folder.glob("rank-*") if is_alive(pid := int(path.read_text()))]


def agent_of(folder: Path) -> int:
    """The agent's number, once its rank runs."""
    assert wait_until(lambda: bool(alive(folder)), _SECONDS)
    return int(json.loads((folder / "record").read_text())["pid"])


@contextmanager
def during(folder: Path, act: Callable[[int], object]) -> Iterator[None]:
    """Meanwhile ``act`` is called with the agent's number once its rank runs, and lets it go."""

    def run() -> None:
        try:
            act(agent_of(folder))
        finally:
            (folder / "go").touch()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join(2 * _SECONDS)
