"""Bad input gives one readable error that lists all that is wrong, before anything runs where that
is possible.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from llutil.agent.failures.report import WorkersFailed
from llutil.errors import ConfigError, EntrypointError
from llutil.events.events import Events
from llutil.failure import FailureClass
from llutil.launcher.launch_agent import LaunchConfig, launch_agent
from tests.support import worker_functions
from tests.support.launches import config, launch, wait_until

pytestmark = [pytest.mark.launch, pytest.mark.usefixtures("no_torch")]

LOCK = threading.Lock()


def traces() -> set[Path]:
    """What a launch could have left: log folders, and pages that no other process uses."""
    pages = {str(path) for path in Path("/dev/shm").glob("llutil-events-*")}
    for maps in Path("/proc").glob("[0-9]*/maps"):
        if pages and maps.parent.name != str(os.getpid()):
            with suppress(OSError):  # that process has ended
                text = maps.read_text()
                pages = {page for page in pages if page not in text}
    return {*Path(tempfile.gettempdir()).iterdir(), *map(Path, pages)}


def uses_a_lock() -> bool:
    return LOCK.locked()


CALLS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "no entrypoint": (lambda: launch(None), ["entrypoint is None; wanted a function, "]),
    "a number": (lambda: launch(7), ["entrypoint is a int; wanted a function"]),  # type: ignore[arg-type]
    "an empty string": (lambda: launch("  "), ["entrypoint is an empty string; wanted"]),
    "no module": (lambda: launch("-m"), ["entrypoint is '-m' without a module"]),
    "no such script": (
        lambda: launch("no/such.py"),
        ["script 'no/such.py' does not exist (looked"],
    ),
    "no such command": (lambda: launch("no-such-cmd"), ["command 'no-such-cmd' is neither on the"]),
    "too few arguments": (
        lambda: launch(worker_functions.rank_and),
        ["rank_and(value", "cannot be called with these arguments: missing a required argument"],
    ),
    "too many arguments": (
        lambda: launch(worker_functions.rank_and, 1, 2),
        ["too many positional arguments"],
    ),
    "a function that cannot be sent": (
        lambda: launch(lambda: uses_a_lock() and LOCK.locked()),
        ["cannot be sent to a worker, because", "LOCK", "cannot be pickled"],
    ),
    "an argument that cannot be sent": (
        lambda: launch(worker_functions.rank_and, {"a": [LOCK]}),
        ["rank_and cannot be sent to a worker, because", "argument 0", "item 'a'"],
    ),
    "an argument of a reference that cannot be sent": (
        lambda: launch("os:getpid", LOCK),
        ["the arguments cannot be sent to a worker, because", "argument 0"],
    ),
    "everything at once": (
        lambda: launch("no/such.py", nproc=0, start_method="thread", tee="all", max_restarts=-1),
        [
            "5 things are wrong:\n  - ",
            "nproc_per_node is 0",
            "start_method is 'thread'",
            "tee has 'all'",
            "max_restarts is -1",
            "script 'no/such.py' does not exist",
        ],
    ),
    "configuration and function": (
        lambda: launch(worker_functions.rank_and, nproc=-1),
        ["2 things are wrong", "nproc_per_node is -1", "rank_and(value"],
    ),
    "several nodes and no endpoint": (
        lambda: launch_agent(LaunchConfig(2, 4, 1), worker_functions.rank_and, [0]),
        ["rdzv_endpoint is empty, but up to 4 nodes must find each other"],
    ),
    "unknown backend": (
        lambda: launch(worker_functions.rank_and, 0, rdzv_backend="gossip"),
        ["rdzv_backend is 'gossip'; wanted one of c10d, etcd, served, static, zeus-adapter"],
    ),
    "unknown option": (
        lambda: launch(worker_functions.rank_and, 0, rdzv_configs={"tiemout": 3}),
        ["rdzv_configs has 'tiemout', which backend 'etcd' does not know; it knows"],
    ),
    "unknown handler of events": (
        lambda: launch(worker_functions.rank_and, 0, event_log_handler="nowhere"),
        ["event_log_handler is 'nowhere', which torch does not know"],
    ),
    "a page without a file": (
        lambda: launch_agent(config(), worker_functions.rank_and, [0], Events.private()),
        ["ice_events cannot be shared with workers: no other process can map these events"],
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_mistake_is_told_before_anything_runs_and_leaves_nothing(call: str) -> None:
    made, texts = CALLS[call]
    before = traces()
    with pytest.raises(ConfigError) as caught:
        made()
    for text in texts:
        assert text in str(caught.value)
    assert not caught.value.retryable
    assert caught.value.failure_class is FailureClass.BAD_CONFIGURATION
    # Another test's page may be seen before its process has mapped it.
    assert wait_until(lambda: traces() <= before, 60), traces() - before


def test_a_problem_of_the_entrypoint_alone_is_an_entrypoint_error() -> None:
    with pytest.raises(EntrypointError):
        launch(None)


def test_a_run_id_in_the_environment_that_cannot_be_one_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LLUTIL_RUN_ID", "a/b")
    with pytest.raises(ConfigError, match="LLUTIL_RUN_ID in the environment is 'a/b'; wanted"):
        launch(worker_functions.rank_and, 0)


def test_a_log_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"log_dir '.*/file/logs' cannot be written"):
        launch(worker_functions.rank_and, 0, log_dir=str(tmp_path / "file" / "logs"))


def test_accelerators_that_are_not_there_are_missed() -> None:
    with pytest.raises(
        ConfigError, match=r"(?s)could not count the accelerators of this host; .*no torch"
    ):
        launch_agent(LaunchConfig(1, 1, "gpu"), worker_functions.rank_and, [0])


FOUND_BY_THE_WORKER: dict[str, tuple[str, tuple[str, ...], str]] = {
    "no such module": ("no_such.module:main", (), "EntrypointError: .*no_such"),
    "no such function": (
        "os:get_pid",
        (),
        "EntrypointError: .* has no 'get_pid'; did you mean 'getpid'",
    ),
    "no function": ("os:sep", (), "EntrypointError: .*'os:sep' is .*; wanted a function"),
    "a module that fails": ("broken:main", (), "ZeroDivisionError: division by zero"),
    "a module that leaves": (
        "leaving:main",
        (),
        r"SystemExit: sys.exit\(0\) was called before the function began",
    ),
    "no such -m module": ("-m no_such.module", (), "ConfigError: no module named 'no_such.module'"),
    "a -m module without code": ("-m math", (), "ConfigError: "),
    "a script that is no Python": ("broken_script.py", (), "SyntaxError: "),
    "a file that is no program": ("./file", (), "ConfigError: command './file' could not be"),
}


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.parametrize("case", FOUND_BY_THE_WORKER)
def test_what_only_a_worker_can_find_out_is_not_tried_again(
    case: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entrypoint, arguments, text = FOUND_BY_THE_WORKER[case]
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "leaving.py").write_text("import sys; sys.exit(0)")
    (tmp_path / "broken_script.py").write_text("def broken(:")
    (tmp_path / "file").write_text("no program")
    (tmp_path / "file").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    started = time.monotonic()
    with pytest.raises(WorkersFailed, match=f"rank 0: {text}") as caught:
        launch(entrypoint, *arguments, max_restarts=3, start_method=method)
    assert caught.value.failure_class is FailureClass.BAD_CONFIGURATION
    assert "after 0 of 3 restarts" in str(caught.value)
    assert time.monotonic() - started < 60


def test_a_module_that_fails_on_import_is_reported_with_its_own_frames_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text("def deep():\n    1 / 0\ndeep()")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(WorkersFailed) as caught:
        launch("broken:main")
    files = [line.split('"')[1] for line in str(caught.value).splitlines() if 'File "' in line]
    assert files == [str(tmp_path / "broken.py")] * 2


def test_a_page_that_is_closed_is_told() -> None:
    events = Events()
    events.close()
    with pytest.raises(ConfigError, match="ice_events is closed; wanted an open page"):
        launch_agent(config(), worker_functions.rank_and, [0], events)


def test_arguments_that_are_no_list_are_told() -> None:
    with pytest.raises(ConfigError, match="args is 'abc'; wanted a list"):
        launch_agent(config(), worker_functions.rank_and, "abc")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="args is None; wanted a list"):
        launch_agent(config(), worker_functions.rank_and, None)  # type: ignore[arg-type]
