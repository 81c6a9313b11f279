"""The operator's agent process, by its protocol: what it says, when it ends, and that nothing
outlives it.
"""

from __future__ import annotations

import json
import os
import platform
import random
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from llutil.agent_socket.round_end import RoundEndKind
from llutil.entrypoint import Script
from llutil.failure import FailureClass
from llutil.serialization.class_values import node
from llutil.std import Std
from llutil.system.job_mark import MARK_VARIABLE
from llutil.task_link import messages
from tests.support.fake_task import ROOT, FakeTask, spec, worker_function
from tests.support.forks import fork
from tests.support.launches import is_alive, wait_until
from tests.support.ports import free_ports

pytestmark = [pytest.mark.launch, pytest.mark.usefixtures("warm_agents")]


def pids(folder: str, kind: str = "running") -> list[int]:
    texts = [path.read_text() for path in Path(folder).glob(f"{kind}-*[0-9]")]
    return [int(text) for text in texts if text]


def alive(folder: str) -> list[int]:
    return [pid for pid in (*pids(folder), *pids(folder, "child")) if is_alive(pid)]


def wait_for_ranks(task: FakeTask, folder: str, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(pids(folder)) < count:
        assert time.monotonic() < deadline, task.story()
        task.step()


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_a_job_that_succeeds(method: str, folder: str) -> None:
    job = spec(worker_function("rank_and", {"a": [1, 2.5]}), folder, nproc=2, start_method=method)
    with FakeTask(job) as task:
        assert task.verdict() == messages.JobSucceeded((0, 1))
        both = {"a": [1, 2.5]}
        assert task.results() == {rank: node("builtins.tuple", 1, [rank, both]) for rank in (0, 1)}
        first, *others = task.heard
        assert first == messages.Hello(
            task.process.pid,
            sys.executable,
            torch=metadata.version("torch"),
            python_version=platform.python_version(),
            launcher=metadata.version("airflow-provider-elastic-launch"),
        )
        rounds = [message for message in others if isinstance(message, messages.RoundBegan)]
        assert rounds == [messages.RoundBegan(0, 2, (0, 1)), messages.RoundBegan(0, 0, ())]
        (ended,) = (one.end for one in others if isinstance(one, messages.RoundEnded))
        assert (ended.kind, ended.failure) == (RoundEndKind.SUCCESS, None)
        began = next(one.status for one in others if isinstance(one, messages.NodeStatus))
        assert (began.round, began.node, began.nodes) == (1, 0, 1)
        assert [(rank.rank, rank.pid > 0) for rank in began.ranks] == [(0, True), (1, True)]
        assert len(began.members) == 1
        (spent,) = (one for one in others if isinstance(one, messages.TimeSpent))
        assert (spent.restarts, spent.training_share) == (0, None)
        assert others.index(spent) < others.index(messages.JobSucceeded((0, 1)))
        assert task.printed == {"stdout": b"", "stderr": b""}
    assert not Path(folder, "after.log").exists()


def test_a_job_that_fails_says_why_and_of_what_class(folder: str) -> None:
    with FakeTask(spec(worker_function("end", "raise"), folder)) as task:
        failed = task.verdict()
        assert (failed.error, failed.job_failure.failure_class, failed.retryable) == (
            "WorkersFailedError",
            FailureClass.USER_CODE,
            False,
        )
        assert failed.report.startswith(
            "tests.support.worker_functions:end failed: rank 0: ValueError: no such"
        )
        said = [(line.rank, line.stream, line.text) for line in task.lines()]
        assert (0, "stdout", "last words on stdout") in said
        assert (0, "stderr", "last words on stderr") in said


def test_a_value_that_xcom_cannot_hold_fails_no_job_and_the_others_are_told(folder: str) -> None:
    entrypoint = worker_function("returns_bytes_on_rank_0", "fine")
    with FakeTask(spec(entrypoint, folder, nproc=2)) as task:
        failed = task.verdict()
        assert (failed.error, failed.job_failure.failure_class, failed.retryable) == (
            "ResultError",
            FailureClass.RESULT,
            False,
        )
        assert "the job has succeeded" in failed.report
        assert "rank 0: value is bytes, which XCom cannot hold" in failed.report
        assert [m for m in task.heard if isinstance(m, messages.Result)] == [
            messages.Result(1, "fine")
        ]


def test_each_restart_is_told(folder: str) -> None:
    with FakeTask(spec(worker_function("fail_until", 2, folder), folder, max_restarts=3)) as task:
        assert task.verdict() == messages.JobSucceeded((0,))
        rounds = [m for m in task.heard if isinstance(m, messages.RoundBegan)]
        assert [m.restart for m in rounds if m.ranks] == [0, 1, 2]
        assert [bool(m.ranks) for m in rounds] == [True, False] * 3
        warnings = [
            m for m in task.heard if isinstance(m, messages.LogRecord) and m.level == "WARNING"
        ]
        assert "restart 1 of 3" in warnings[0].text
        ends = [m.end for m in task.heard if isinstance(m, messages.RoundEnded)]
        assert [end.kind for end in ends] == ["failure", "failure", "success"]
        assert [[rank.culprit for rank in end.ranks] for end in ends] == [[True], [True], []]
        assert ends[0].failure is not None
        assert ends[0].why == ends[0].failure.why


def test_progress_is_told(folder: str) -> None:
    with FakeTask(spec(worker_function("progress_until_told", folder), folder, nproc=2)) as task:
        task.until(messages.Progress, 2)
        Path(folder, "told").touch()
        assert task.verdict() == messages.JobSucceeded((0, 1))
        shown = [m.ranks for m in task.heard if isinstance(m, messages.Progress)]
        assert shown[-1] == {0: (100, 100), 1: (101, 100)}


def changed_spec(**fields: Any) -> bytes:
    """The line of a sound spec, but for these fields."""
    sound = messages.to_json(spec(Script("x.py"), "/"))
    return json.dumps(sound | fields).encode() + b"\n"


BAD_SPECS: dict[str, tuple[bytes, str]] = {
    "another version": (
        b'{"type":"spec","version":1}\n',
        f"version 1, and this agent reads version {messages.VERSION}: install the same "
        "airflow-provider-elastic-launch",
    ),
    "no spec": (b"hello\n", "not a message on the agent's socket: b'hello'"),
    "another message": (messages.encode(messages.Progress()), "a Progress came from the task"),
    "an unknown entrypoint": (
        changed_spec(entrypoint={"kind": "notebook"}),
        "Invalid value 'notebook' - at `$.entrypoint.kind`",
    ),
    "a configuration without nodes": (
        changed_spec(config={"max_nodes": 1, "nproc_per_node": 1}),
        "missing required field `min_nodes` - at `$.config`",
    ),
    "a stream of no rank": (
        changed_spec(
            config={"min_nodes": 1, "max_nodes": 1, "nproc_per_node": 1, "redirects": {"zero": 1}}
        ),
        "Expected `int`, got `str` - at `key` in `$.config.redirects`",
    ),
}


@pytest.mark.parametrize("case", BAD_SPECS)
def test_a_bad_spec_is_a_bad_configuration(case: str) -> None:
    data, text = BAD_SPECS[case]
    with FakeTask() as task:
        task.socket.sendall(data)
        failed = task.verdict()
        assert text in failed.report
        assert (failed.error, failed.job_failure.failure_class, failed.retryable) in {
            ("ConfigError", FailureClass.BAD_CONFIGURATION, False),
            ("EntrypointError", FailureClass.BAD_CONFIGURATION, False),
        }


@pytest.mark.parametrize(
    ("config", "texts"),
    [
        (
            {"nproc_per_node": 0, "start_method": "thread", "max_restarts": -1},
            ["3 things are wrong", "nproc_per_node is 0", "start_method is 'thread'"],
        ),
        ({"tee": {0: 9}}, ["tee has"]),
    ],
    ids=["values", "tee"],
)
def test_a_bad_configuration_is_told_in_full(
    config: dict[str, Any], texts: list[str], folder: str
) -> None:
    with FakeTask(spec(worker_function("rank_and", 1), folder, **config)) as task:
        failed = task.verdict()
        assert (failed.error, failed.job_failure.failure_class) == (
            "ConfigError",
            FailureClass.BAD_CONFIGURATION,
        )
        for text in texts:
            assert text in failed.report


def test_a_script_that_is_missing_is_a_bad_configuration(folder: str) -> None:
    with FakeTask(spec(Script("no/such.py"), folder)) as task:
        failed = task.verdict()
        assert (failed.error, failed.job_failure.failure_class) == (
            "EntrypointError",
            FailureClass.BAD_CONFIGURATION,
        )


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_torch_that_cannot_be_imported_is_told(method: str, folder: str, tmp_path: Path) -> None:
    """As where a library is missing that it was built for."""
    text = "raise OSError('libcudart.so.13: cannot open shared object file')"
    (tmp_path / "torch.py").write_text(text)
    env = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    job = spec(worker_function("rank_and"), folder, start_method=method)
    with FakeTask(job, env=env, popen=subprocess.Popen) as task:
        failed = task.verdict()
    assert failed.error == "OSError"
    assert "libcudart.so.13: cannot open shared object file" in failed.job_failure.why
    assert failed.job_failure.failure_class is FailureClass.INFRASTRUCTURE


def test_streams_of_ranks_may_be_chosen(folder: str, tmp_path: Path) -> None:
    config: dict[str, Any] = {"redirects": {0: Std.ALL}, "log_dir": str(tmp_path / "logs")}
    with FakeTask(spec(worker_function("speak"), folder, nproc=2, **config)) as task:
        task.verdict()
        assert {line.rank for line in task.lines()} == {1}
    (log,) = (tmp_path / "logs").glob("*/attempt_0/0/stdout.log")
    assert log.read_text().startswith("out 0\n")


def test_lines_arrive_while_the_job_runs(folder: str) -> None:
    with FakeTask(spec(worker_function("speak_and_wait", folder), folder, nproc=2)) as task:
        task.until(messages.OutputLines, 4)
        assert {(line.rank, line.stream, line.text) for line in task.lines()} == {
            (rank, stream, f"{stream} of {rank}")
            for rank in (0, 1)
            for stream in ("stdout", "stderr")
        }
        assert not task.results()
        Path(folder, "told").touch()
        assert task.verdict() == messages.JobSucceeded((0, 1))


def test_what_prints_fast_waits_for_a_task_that_reads_slowly_and_no_line_is_lost(
    folder: str,
) -> None:
    count, size = 50_000, 300
    with FakeTask(spec(worker_function("chatter", count, size), folder)) as task:
        task.until(messages.RoundBegan)
        before = memory(task.process.pid)
        most = 0
        for turn in range(40):  # slower than it prints
            task.step(0.1, size=1 << 15)
            time.sleep(0.02)
            most = max(most, memory(task.process.pid)) if turn % 5 == 0 else most
        assert sum(1 for _ in task.lines()) < count / 2, "the reader was not slow"
        assert task.verdict() == messages.JobSucceeded((0,))
        assert [line.text for line in task.lines()] == [
            f"{number} {'x' * size}" for number in range(count)
        ]
    assert most - before < 60 << 20, "what waits is bounded"


def memory(pid: int) -> int:
    """Resident bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.fault
def test_a_stop_ends_the_job_after_it_could_save(folder: str) -> None:
    with FakeTask(
        spec(worker_function("save_when_stopped", folder, 1.0), folder, nproc=2, grace=20)
    ) as task:
        wait_for_ranks(task, folder, 2)
        task.tell(messages.Stop("the DAG run was marked failed"))
        stopped = task.verdict()
        assert (stopped.error, stopped.job_failure.failure_class, stopped.retryable) == (
            "StoppedError",
            FailureClass.PREEMPTION,
            False,
        )
        assert stopped.report == "the job was stopped: the DAG run was marked failed"
        (end,) = (m.end for m in task.heard if isinstance(m, messages.RoundEnded))
        assert (end.kind, end.why) == ("signal", "this node got SIGTERM")
    assert {path.name for path in Path(folder).glob("saved-*")} == {"saved-0", "saved-1"}


@pytest.mark.fault
def test_a_stop_kills_who_ignores_it_when_the_grace_is_over(folder: str) -> None:
    with FakeTask(spec(worker_function("hide_children", folder), folder, grace=1.5)) as task:
        wait_for_ranks(task, folder, 1)
        started = time.monotonic()
        task.tell(messages.Stop("enough"))
        assert task.verdict().error == "StoppedError"
        assert 1.5 < time.monotonic() - started < 30
        assert alive(folder) == []


@pytest.mark.fault
def test_a_stop_before_the_workers_start_is_a_stop(folder: str) -> None:
    with FakeTask(spec(worker_function("rank_and", 1), folder), messages.Stop("too late")) as task:
        stopped = task.verdict()
        assert (stopped.error, stopped.job_failure.failure_class) == (
            "StoppedError",
            FailureClass.PREEMPTION,
        )
        assert "too late" in stopped.report
        assert task.results() == {}


@pytest.mark.fault
def test_a_stop_after_the_end_changes_nothing(folder: str) -> None:
    with FakeTask(spec(worker_function("rank_and", 1), folder)) as task:
        task.until(messages.JobSucceeded)
        with suppress(OSError):
            task.tell(messages.Stop("too late"))
        assert task.verdict() == messages.JobSucceeded((0,))


@pytest.mark.fault
def test_a_signal_to_the_agent_itself_is_a_stop(folder: str) -> None:
    with FakeTask(
        spec(worker_function("save_when_stopped", folder, 0.5), folder, grace=20)
    ) as task:
        wait_for_ranks(task, folder, 1)
        task.process.send_signal(signal.SIGTERM)
        stopped = task.verdict()
        assert (stopped.error, stopped.report) == (
            "StoppedError",
            "the job was stopped: the agent got signal SIGTERM",
        )
    assert Path(folder, "saved-0").exists()


@pytest.mark.fault
def test_a_stop_ends_the_wait_for_other_nodes(folder: str) -> None:
    (port,) = free_ports(1)
    meeting: dict[str, Any] = {
        "rdzv_backend": "c10d",
        "rdzv_endpoint": f"127.0.0.1:{port}",
        "run_id": "r",
    }
    with FakeTask(
        spec(worker_function("rank_and", 1), folder, min_nodes=2, max_nodes=2, **meeting)
    ) as task:
        task.until(messages.Hello)
        assert wait_until(lambda: listens(port), 60)
        time.sleep(1.0)
        started = time.monotonic()
        task.tell(messages.Stop("no one came"))
        stopped = task.verdict()
        assert (stopped.error, "no one came" in stopped.report) == ("StoppedError", True)
        assert time.monotonic() - started < 20


@pytest.mark.fault
@pytest.mark.parametrize(
    ("backend", "address", "configs"),
    [
        ("c10d", "127.0.0.1", {"is_host": False, "read_timeout": 120}),
        ("c10d", "192.0.2.1", {"is_host": False, "read_timeout": 120}),  # leads nowhere (RFC 5737)
        ("static", "127.0.0.1", {"rank": 0, "timeout": 120}),
        ("static", "127.0.0.1", {"rank": 1, "timeout": 120}),
    ],
    ids=["refused", "unanswered", "alone", "without its master"],
)
def test_a_stop_is_heard_while_torch_waits_for_others_in_native_code(
    backend: str, address: str, configs: dict[str, Any], folder: str
) -> None:
    (port,) = free_ports(1)
    meeting: dict[str, Any] = {
        "rdzv_backend": backend,
        "rdzv_endpoint": f"{address}:{port}",
        "rdzv_configs": configs,
        "run_id": "r",
    }
    job = spec(worker_function("rank_and", 1), folder, min_nodes=2, max_nodes=2, grace=5, **meeting)
    with FakeTask(job) as task:
        task.until(messages.Hello)
        assert wait_until(lambda: has_helpers(task.process.pid), 60)
        time.sleep(1)
        started = time.monotonic()
        task.tell(messages.Stop("enough"))
        stopped = task.verdict()
        assert (stopped.error, stopped.report) == ("StoppedError", "the job was stopped: enough")
        assert time.monotonic() - started < 20


@pytest.mark.fault
def test_an_agent_that_is_stuck_where_no_signal_reaches_it_ends_all_the_same(
    folder: str, tmp_path: Path
) -> None:
    """Here it waits in C for a lock that nobody gives back, instead of asking for its first worker.
    Its last resort comes sooner than it does for users.
    """
    (tmp_path / "sitecustomize.py").write_text(
        "import ctypes, socket\n"
        "import llutil.time_budgets\n"
        "llutil.time_budgets.StopBudget.last_resort = 6.0\n"
        "def wait(*_):\n"
        "    lock = ctypes.create_string_buffer(64)\n"
        "    for _ in range(2): ctypes.CDLL(None).pthread_mutex_lock(lock)\n"
        "socket.send_fds = wait\n"
    )
    job = spec(worker_function("rank_and", 1), folder, grace=0.5, start_method="forkserver")
    path = os.pathsep.join([str(tmp_path), ROOT])
    # Without the mark, the agent does not fork its server from itself.
    with FakeTask(job, env={"PYTHONPATH": path, MARK_VARIABLE: ""}) as task:
        task.until(messages.Hello)
        assert wait_until(lambda: len(children(task.process.pid)) == 2, 60)
        time.sleep(1)
        started = time.monotonic()
        task.tell(messages.Stop("enough"))
        server = children(task.process.pid)
        while task.process.poll() is None:
            assert time.monotonic() - started < 60, task.story()
            task.step()
        assert 6 < time.monotonic() - started < 40
        # 1 from the last resort, or 0 if the main thread, whose server was killed, was the first to
        # leave.
        assert task.process.returncode in {0, 1}
        assert wait_until(lambda: not [pid for pid in server if is_alive(pid)], 10)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def has_helpers(pid: int) -> bool:
    """Whether the agent is past its imports: it has its fork server, and then its guardian."""
    return len(children(pid)) == 2


def listens(port: int) -> bool:
    needle = f":{port:04X} "
    return any(
        needle in line and " 0A " in line
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()
    )


@pytest.mark.fault
def test_when_the_task_is_gone_the_job_may_save_and_its_words_are_kept(folder: str) -> None:
    with FakeTask(
        spec(worker_function("save_when_stopped", folder, 1.0), folder, nproc=2, grace=20)
    ) as task:
        wait_for_ranks(task, folder, 2)
        task.hang_up()
        task.process.wait(60)
    assert {path.name for path in Path(folder).glob("saved-*")} == {"saved-0", "saved-1"}
    assert alive(folder) == []
    text = Path(folder, "after.log").read_text()
    assert "the job ended: the job was stopped: its Airflow task is gone" in text


@pytest.mark.fault
def test_when_the_task_is_gone_who_will_not_stop_is_killed_after_the_grace(folder: str) -> None:
    with FakeTask(
        spec(worker_function("hide_children", folder), folder, nproc=2, grace=1.0)
    ) as task:
        wait_for_ranks(task, folder, 2)
        started = time.monotonic()
        task.hang_up()
        task.process.wait(60)
        assert 1.0 < time.monotonic() - started < 30
    assert alive(folder) == []


@pytest.mark.parametrize("log_lines", ["folded", "complete"])
def test_a_rank_does_not_wait_for_a_task_that_does_not_read_unless_no_line_may_be_left_out(
    folder: str, log_lines: str
) -> None:
    lines = 350_000
    job = spec(worker_function("print_much", folder, lines), folder, log_lines=log_lines)
    complete = log_lines == "complete"
    with FakeTask(job) as task:
        task.until(messages.RoundBegan)
        all_is_printed = wait_until(Path(folder, "printed").exists, 1 if complete else 60)
        assert all_is_printed != complete
        task.verdict()
        said = [m.text for m in task.heard if isinstance(m, messages.LogRecord)]
        left_out = sum(
            int(text.partition(" ")[0].replace(",", ""))
            for text in said
            if " of stdout of rank 0 left out here" in text
        )
        numbers = [int(line.text) for line in task.lines()]
    assert (left_out == 0) == complete
    assert len(numbers) + left_out == lines
    assert numbers == sorted(numbers)
    assert numbers[-1] == lines - 1


@pytest.mark.fault
def test_what_was_printed_around_the_end_of_the_task_is_kept_in_full(folder: str) -> None:
    with FakeTask(spec(worker_function("count_until_stopped", folder), folder, grace=20)) as task:
        task.until(messages.OutputLines, 100)
        task.hang_up()
        task.process.wait(60)
        seen = [int(line.text) for line in task.lines()]
    text = Path(folder, "after.log").read_text()
    kept = [
        int(line.removeprefix("[rank 0] "))
        for line in text.splitlines()
        if line.startswith("[rank 0]")
    ]
    last = int(Path(folder, "last").read_text())
    assert sorted({*seen, *kept}) == list(range(last + 1))
    assert kept == list(range(kept[0], last + 1))


@pytest.mark.fault
@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_an_agent_that_is_killed_takes_everything_with_it(method: str, folder: str) -> None:
    with FakeTask(
        spec(worker_function("hide_children", folder), folder, nproc=2, start_method=method)
    ) as task:
        wait_for_ranks(task, folder, 2)
        assert len(pids(folder, "child")) == 6
        started = time.monotonic()
        task.process.kill()
        task.process.wait()
        assert wait_until(lambda: not alive(folder), 20)  # an overlooked child lives for 60 s
        print(f"gone {time.monotonic() - started:.2f} s after the kill")
    assert wait_until(lambda: not Path(Path(folder, "page").read_text()).exists(), 20)


@pytest.mark.fault
def test_a_task_that_is_gone_before_its_agent_has_begun(folder: str) -> None:
    """The stop is there before the first line of the agent runs."""
    with ExitStack() as stack:
        tasks = [
            stack.enter_context(FakeTask(spec(worker_function("rank_and", 1), folder)))
            for _ in range(3)
        ]
        for task in tasks:
            task.hang_up()
        for task in tasks:
            assert task.process.wait(60) == 0
    assert pids(folder) == []


@pytest.mark.fault
def test_a_task_killed_at_any_moment_leaves_no_process_and_no_page(folder: str) -> None:
    seed = random.SystemRandom().getrandbits(32)
    print("seed:", seed)
    moments = random.Random(seed)
    agents: list[int] = []
    for turn in range(8):
        method = ("forkserver", "spawn", "forkserver", "fork")[turn % 4]
        own = Path(folder, str(turn))
        own.mkdir()
        if turn < 4:  # in the time in which an agent imports torch
            killed_task(moments.uniform(0, 2.5), own, method, popen=subprocess.Popen)
        else:  # from then on
            killed_task(moments.uniform(0, 1), own, method)
        agents.append(int((own / "agent").read_text()))
        if turn % 4 == 3:  # a few at a time
            assert wait_until(lambda: not [pid for pid in agents if is_alive(pid)], 60)
    left = [pid for own in Path(folder).iterdir() for pid in alive(str(own))]
    assert wait_until(lambda: not [pid for pid in (*agents, *left) if is_alive(pid)], 10)


def killed_task(seconds: float, folder: Path, method: str, **options: Any) -> None:
    """A task process, forked from this one, that is killed so long after it has started its
    agent.
    """
    job = spec(
        worker_function("chatter_and_hide_children", str(folder)),
        str(folder),
        nproc=2,
        grace=0.5,
        start_method=method,
    )
    child = fork()
    if child == 0:
        try:
            task = FakeTask(job, **options)
            (folder / "part").write_text(str(task.process.pid))
            (folder / "part").rename(folder / "agent")
            while True:
                task.step()
        finally:
            os._exit(1)
    assert wait_until((folder / "agent").exists)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
