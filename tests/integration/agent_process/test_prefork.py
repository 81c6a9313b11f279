"""Warm workers of the operator's agent process: one import of torch serves it and them, and a stop
is heard meanwhile.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from llutil.failure import FailureClass
from llutil.system.job_mark import MARK_VARIABLE
from llutil.task_link import messages
from tests.integration.agent.start_methods.started_worker import START_FUNCTIONS
from tests.support.fake_task import ROOT, FakeTask, spec, worker_function
from tests.support.launches import is_alive, wait_until

pytestmark = pytest.mark.launch

IMPORT = 50.0  # seconds that torch takes where a test stops the agent before that is over


def test_the_fork_server_is_forked_from_the_agent_with_one_thread_and_nothing_of_the_agents(
    folder: str,
) -> None:
    job = spec(
        worker_function("warm_facts", module=START_FUNCTIONS),
        folder,
        nproc=2,
        start_method="forkserver",
    )
    with FakeTask(job) as task:
        assert task.verdict() == messages.JobSucceeded((0, 1)), task.story()
        for found in task.results().values():
            assert "--socket" in found["server's command"], "it was started afresh"
            assert found["server"] != task.process.pid
            assert found["server's threads"] == 1
            assert found["imported"] == ["numpy", "torch"]
            assert found["torch threads"] == 1
            assert found["cuda"] is False
            kinds = Counter(found["server's descriptors"])
            assert set(kinds) <= {"/dev/null", "pipe", "socket", "anon_inode"}, kinds
            assert (kinds["/dev/null"], kinds["socket"]) == (1, 1), "the agent has a socket too"
            # Its streams, and one for the agent's end; and of each worker, a descriptor for its end
            # and a pipe to tell of it.
            assert kinds["anon_inode"] <= 3
            assert kinds["pipe"] <= 4
        assert task.printed == {"stdout": b"", "stderr": b""}


def test_without_a_mark_from_the_start_the_fork_server_is_started_afresh(folder: str) -> None:
    """Else what workers fork, and leave in other sessions, would not be found by it."""
    job = spec(
        worker_function("warm_facts", module=START_FUNCTIONS), folder, start_method="forkserver"
    )
    with FakeTask(job, env={MARK_VARIABLE: ""}) as task:
        task.verdict()
        assert "llutil.agent.start_methods.forkserver_main" in task.results()[0]["server's command"]


@pytest.mark.fault
def test_a_forked_server_that_is_killed_is_followed_by_one_that_is_started_afresh(
    folder: str,
) -> None:
    entrypoint = worker_function("end_server_once", folder, module=START_FUNCTIONS)
    with FakeTask(spec(entrypoint, folder, start_method="forkserver", max_restarts=1)) as task:
        assert task.verdict() == messages.JobSucceeded((0,)), task.story()
        assert "llutil.agent.start_methods.forkserver_main" in task.results()[0]
    assert not is_alive(int(Path(folder, "first").read_text()))


def slow(folder: Path) -> dict[str, str]:
    """An environment in which torch takes very long to import, and says that it has begun."""
    (folder / "torch.py").write_text(
        "import pathlib, time\n"
        f"pathlib.Path({str(folder / 'importing')!r}).touch()\n"
        f"until = time.monotonic() + {IMPORT}\n"
        "while time.monotonic() < until: time.sleep(0.01)\n"
    )
    return {"PYTHONPATH": os.pathsep.join([str(folder), ROOT])}


def stop(task: FakeTask) -> None:
    task.tell(messages.Stop("enough"))


def terminate(task: FakeTask) -> None:
    task.process.send_signal(signal.SIGTERM)


@pytest.mark.fault
@pytest.mark.parametrize("end", [stop, terminate])
def test_a_stop_is_heard_while_torch_is_imported(
    end: Callable[[FakeTask], None], folder: str, tmp_path: Path
) -> None:
    job = spec(worker_function("rank_and", 1), folder, start_method="forkserver")
    with FakeTask(job, env=slow(tmp_path)) as task:
        task.until(messages.Hello)
        assert wait_until((tmp_path / "importing").exists, 60)
        began = time.monotonic()
        end(task)
        stopped = task.verdict()
        took = time.monotonic() - began
        print(f"ended {took:.2f} s after the stop")
        assert took < IMPORT / 2
        assert (stopped.error, stopped.job_failure.failure_class) == (
            "StoppedError",
            FailureClass.PREEMPTION,
        )
        assert stopped.report.startswith("stopped before its workers started: ")


@pytest.mark.fault
def test_an_agent_whose_task_has_gone_while_torch_is_imported_ends(
    folder: str, tmp_path: Path
) -> None:
    job = spec(worker_function("rank_and", 1), folder, start_method="forkserver")
    with FakeTask(job, env=slow(tmp_path)) as task:
        assert wait_until((tmp_path / "importing").exists, 60)
        began = time.monotonic()
        task.hang_up()
        assert task.process.wait(60) == 0
        assert time.monotonic() - began < IMPORT / 2
    assert "its Airflow task is gone" in Path(folder, "after.log").read_text()


@pytest.mark.fault
def test_words_that_come_while_torch_is_imported_are_not_lost(folder: str, tmp_path: Path) -> None:
    """The task may read late, and the spec may come in pieces; neither is a stop."""
    job = messages.encode(spec(worker_function("rank_and", 1), folder, start_method="forkserver"))
    with FakeTask(env=slow(tmp_path)) as task:
        for piece in (job[:100], job[100:]):
            task.socket.sendall(piece)
            time.sleep(0.3)
        assert wait_until((tmp_path / "importing").exists, 60)
        task.until(
            messages.Hello
        )  # its reading is a signal to the agent too, which must not take it for a word
        threads = Path(f"/proc/{task.process.pid}/task")
        time.sleep(0.2)
        assert len(list(threads.iterdir())) == 1
        task.tell(messages.Stop("that will do"))
        assert "that will do" in task.verdict().report
