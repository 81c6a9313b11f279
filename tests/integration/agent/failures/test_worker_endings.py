"""Ways for a worker to end: each gets the right verdict, a reason, and leaves no process.

The table is ``worker_endings.WAYS``, played here on one node; ``test_endings_on_two_nodes`` plays
it on two. What follows it here are ways and details that can only be told on one node, or need no
second one.
"""

from __future__ import annotations

import pickle
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from llutil.agent.failures.report import WorkersFailed
from llutil.errors import ResultError
from llutil.failure import FailureClass
from llutil.std import Std
from tests.integration.agent.failures import worker_endings
from tests.integration.agent.failures.worker_endings import ABSENT, WAYS
from tests.support import worker_functions
from tests.support.launches import is_alive, launch, wait_until

pytestmark = [pytest.mark.launch, pytest.mark.usefixtures("no_torch")]

METHODS = ["spawn", "fork", "forkserver"]
LIMIT = 60.0  # seconds on a loaded machine; the interval is 1000 s, so what ends a job is an event

CASES = [
    ("fork" if WAYS[how].torch else "spawn", kind, how)
    for how in WAYS
    for kind in ("function", "script")
    if WAYS[how].reason(kind) is not ABSENT
]
# Where a forked worker could differ from a fresh interpreter.
CASES += [
    (method, kind, how)
    for method in ("fork", "forkserver")
    for kind, how in (
        ("function", "raise"),
        ("function", "sys.exit(3)"),
        ("function", "os._exit(0)"),
        ("function", "SIGKILL"),
        ("function", "SIGINT"),
        ("function", "killed while its result is being written"),
        ("function", "a thread that never ends"),
        ("script", "return"),
        ("script", "raise"),
        ("script", "sys.exit(3)"),
        ("script", "a thread that never ends"),
    )
]


@pytest.mark.fault
@pytest.mark.parametrize(("method", "kind", "how"), CASES)
def test_a_node_ends_with_the_right_verdict_and_nothing_is_left(
    method: str, kind: str, how: str, folder: str
) -> None:
    way = WAYS[how]
    size = 500_000_000 if how == "a big result" else 50_000_000
    fields: dict[str, Any] = {
        "nproc": 2,
        "start_method": method,
        "shutdown_timeout": 1,
        "tee": Std.ALL,
        "log_dir": f"{folder}/logs",
    }
    started = time.monotonic()
    reason = way.reason(kind)
    if reason is None:
        found = _play(kind, how, folder, size, fields)
        value = size if how == "a big result" else "value"
        assert found == ({0: "peer", 1: value} if kind == "function" else {0: None, 1: None})
    else:
        with pytest.raises(WorkersFailed) as caught:
            _play(kind, how, folder, size, fields)
        assert f"failed: rank {reason}" in str(caught.value)
    assert (1 if way.grace else 0) <= time.monotonic() - started < LIMIT
    pids = [int(path.read_text()) for path in Path(folder).glob("*-[01]")]
    assert pids
    assert [pid for pid in pids if is_alive(pid)] == []


def _play(kind: str, how: str, folder: str, size: int, fields: dict[str, Any]) -> dict[int, Any]:
    if kind == "script":
        return launch(worker_endings.__file__, how, folder, **fields)
    found = launch(worker_endings.play, kind, how, folder, size, **fields)
    return {
        rank: len(value) if isinstance(value, bytes) else value for rank, value in found.items()
    }


REASONS = {
    "SIGABRT": "signal 6 (SIGABRT",
    "raise without stderr": "ConfigError: one thing is wrong",
    "all descriptors closed": "exit code 1: ValueError: no such digit",
    "an error that cannot be shown": "Unshowable: (its message cannot be shown: RuntimeError)",
    "an excepthook that fails": "ValueError: no such digit",
    "an excepthook that ends the process": "ValueError: no such digit",
    "a recursion": "RecursionError: maximum recursion depth exceeded",
    "out of memory": "MemoryError",
}


def failure(how: str, **fields: Any) -> WorkersFailed:
    started = time.monotonic()
    with pytest.raises(ChildFailedError) as caught:
        launch(worker_functions.end, how, **fields)
    assert time.monotonic() - started < LIMIT
    assert isinstance(caught.value, WorkersFailed)
    return caught.value


def on_each_method(ways: dict[str, Any], telling: set[str]) -> pytest.MarkDecorator:
    """All ways with spawn, and those where a forked worker could differ with the others too."""
    assert telling <= set(ways)
    cases = [
        (method, how) for method in METHODS for how in ways if method == "spawn" or how in telling
    ]
    return pytest.mark.parametrize(("method", "how"), cases)


@on_each_method(REASONS, {"all descriptors closed"})
def test_whatever_else_ends_a_function_is_a_failure_and_the_report_says_why(
    method: str, how: str
) -> None:
    error = failure(how, start_method=method)
    assert str(error).startswith(f"end failed: rank 0: {REASONS[how]}"), str(error)


@pytest.mark.parametrize("method", METHODS)
def test_a_function_that_closes_everything_fails_and_its_value_is_kept(
    method: str, folder: str
) -> None:
    error = failure("everything closed", start_method=method, log_dir=folder)
    assert str(error).startswith("end failed: rank 0: exit code 1\n"), str(error)
    (kept,) = Path(folder).glob("*/results/rank_0.pickle")
    assert pickle.loads(kept.read_bytes()) == "closed"


@pytest.mark.parametrize("method", METHODS)
def test_sys_exit_in_a_function_ends_the_rank_with_that_code_and_is_no_exception(
    method: str, tmp_path: Path
) -> None:
    assert launch(sys.exit, 0, nproc=2, start_method=method) == {0: None, 1: None}
    with pytest.raises(WorkersFailed) as caught:
        launch(sys.exit, 138, start_method=method, log_dir=str(tmp_path))
    _, record = caught.value.get_first_failure()
    assert (record.exitcode, record.error_file) == (138, "<N/A>")
    assert not list(tmp_path.rglob("error.json"))


def test_the_code_counts_although_the_rank_had_to_be_ended() -> None:
    def leave() -> None:
        import sys
        import threading
        import time

        threading.Thread(target=time.sleep, args=(60,)).start()
        sys.exit("told you")

    with pytest.raises(WorkersFailed) as caught:
        launch(leave)
    assert "rank 0: SystemExit: the function called sys.exit('told you')" in str(caught.value)
    assert caught.value.get_first_failure()[1].exitcode == 1
    assert caught.value.failure is not None
    assert caught.value.failure.tail[-1:] == ("told you",)


@pytest.mark.parametrize("how", ["closed stdout", "closed sys.stdout"])
@pytest.mark.parametrize("method", METHODS)
def test_a_function_may_close_its_streams(method: str, how: str) -> None:
    assert launch(worker_functions.end, how, start_method=method) == {0: "closed"}


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_value_that_cannot_be_pickled_ends_no_other_rank_and_is_kept(
    method: str, folder: str
) -> None:
    with pytest.raises(ResultError) as caught:
        launch(
            worker_functions.returns_what_cannot_be_pickled,
            folder,
            nproc=2,
            log_dir=folder,
            start_method=method,
        )
    assert caught.value.failure_class is FailureClass.RESULT
    assert caught.value.results == {1: "fine"}
    told = str(caught.value)
    assert "rank 0 returned a builtins.dict that cannot be pickled (not on my watch)" in told
    (kept,) = Path(folder).glob("*/results/rank_0.pickle")
    assert f"pickle.load(open({str(kept)!r}, 'rb'))" in told
    value = pickle.loads(kept.read_bytes())
    assert (value["loss"], type(value["refuses"])) == (0.5, str)


def test_a_lambda_may_be_returned() -> None:
    function, value = launch(worker_functions.end, "lambda")[0]
    assert (function(), value) == (42, {"key": [1, 2]})


def test_an_exception_comes_with_the_users_frames_and_no_others() -> None:
    text = str(failure("raise"))
    frames = [line.strip() for line in text.splitlines() if line.strip().startswith("File ")]
    assert len(frames) == 1
    assert f'{worker_functions.__file__}", line ' in frames[0]
    assert frames[0].endswith("in end")


def test_torchs_record_of_the_failure_is_filled_in(tmp_path: Path) -> None:
    error = failure("raise", log_dir=str(tmp_path))
    rank, record = error.get_first_failure()
    assert (rank, record.local_rank, record.exitcode) == (0, 0, 1)
    assert record.message["message"] == "ValueError: no such digit"
    assert "no such digit" in record.message["extraInfo"]["py_callstack"]


def test_the_first_of_several_failures_is_the_one_reported(folder: str) -> None:
    def fail_in_turn() -> None:
        import atexit
        import os
        import signal
        import time

        rank = os.environ["RANK"]
        if rank == "0":
            time.sleep(LIMIT)
        elif rank == "1":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            Path(folder, "ready").touch()
            assert wait_until(Path(folder, "told").exists)
        else:
            assert wait_until(Path(folder, "ready").exists)
            atexit.register(Path(folder, "told").touch)  # after it has reported its error
        raise ValueError(rank)

    with pytest.raises(WorkersFailed) as caught:
        launch(fail_in_turn, nproc=3, shutdown_timeout=LIMIT, restart_grace=LIMIT)
    error = caught.value
    assert error.failure is not None
    assert (error.failure.rank, error.failure.reason) == (2, "ValueError: 2")
    assert "rank 1 failed after it: ValueError: 1" in str(error)
    assert "ranks ended because of it: 0" in str(error)


@pytest.mark.parametrize("method", METHODS)
def test_a_value_larger_than_any_pipe_arrives_whole(method: str) -> None:
    (value,) = launch(worker_functions.returns_much, 20_000_000, start_method=method).values()
    assert (len(value), value[:8]) == (20_000_000, value[-8:])


@pytest.mark.parametrize("method", METHODS)
def test_children_do_not_outlive_the_job_wherever_they_hide(method: str, folder: str) -> None:
    started = time.monotonic()
    assert launch(worker_functions.leave_children, folder, start_method=method) == {0: "done"}
    children = [int(path.name.partition("-")[2]) for path in Path(folder).glob("child-*")]
    assert len(children) == 3
    assert not [pid for pid in children if is_alive(pid)]
    assert time.monotonic() - started < LIMIT


SCRIPTS = {
    "sys.exit(0)": ("import sys; sys.exit(0)", None),
    "sys.exit()": ("raise SystemExit", None),
    "daemon thread": ("import threading, time\nthreading.Thread(target=time.sleep, args=(60,), "
        "daemon=True).start()", None),
    "thread that ends": ("import threading, time\nthreading.Thread(target=time.sleep, "
        "args=(0.2,)).start()", None),
    "sys.exit(text)": ("import sys; sys.exit('told you')", "exit code 1"),
    "os._exit(7)": ("import os; os._exit(7)", "exit code 7"),
    "raise, then leave with 0": (
        "import atexit, os\natexit.register(os._exit, 0)\nraise ValueError('no such digit')",
        "ValueError: no such digit",
    ),
    "raise beside a thread": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\n1 / 0",
        "ZeroDivisionError: division by zero",
    ),
    "syntax error": ("def broken(:", "SyntaxError: invalid syntax"),
}  # fmt: skip


@on_each_method(SCRIPTS, {"daemon thread", "thread that ends"})
def test_a_script_ends_as_under_plain_python(method: str, how: str, tmp_path: Path) -> None:
    code, reason = SCRIPTS[how]
    script = tmp_path / "train.py"
    script.write_text(code)
    started = time.monotonic()
    if reason is None:
        assert launch(str(script), start_method=method) == {0: None}
    else:
        with pytest.raises(WorkersFailed) as caught:
            launch(str(script), start_method=method)
        assert str(caught.value).startswith(f"{script} failed: rank 0: {reason}")
    assert time.monotonic() - started < LIMIT


def test_a_module_ends_with_the_code_that_its_package_left_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "leaving"
    package.mkdir()
    (package / "__init__.py").write_text("import os, sys; sys.exit(int(os.environ['STATUS']))")
    (package / "train.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STATUS", "3")
    with pytest.raises(WorkersFailed, match="rank 0: exit code 3"):
        launch("-m leaving.train")
    monkeypatch.setenv("STATUS", "0")
    assert launch("-m leaving.train") == {0: None}


@pytest.mark.fault
def test_a_shells_children_get_the_grace_that_the_shell_does_not_wait_for(tmp_path: Path) -> None:
    saver = tmp_path / "save.sh"
    saver.write_text(
        f"trap 'sleep 0.5; touch {tmp_path}/saved; exit 0' TERM\ntouch {tmp_path}/ready\n"
        "while true; do sleep 0.1; done\n"
    )
    command = (
        f"if [ $RANK = 1 ]; then while [ ! -e {tmp_path}/ready ]; do sleep 0.05; done; exit 3; fi; "
        f"sh {saver} & wait"
    )
    with pytest.raises(WorkersFailed, match="rank 1: exit code 3"):
        launch("sh", "-c", command, nproc=2, shutdown_timeout=LIMIT, restart_grace=LIMIT)
    assert (tmp_path / "saved").exists()
