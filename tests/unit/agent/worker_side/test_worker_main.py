"""A rank's outcome reaches its agent or its standard error, whatever it failed by."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llutil.agent.worker_side import worker_main
from llutil.agent.worker_side.cpu_affinity import CPUS, bind_to_cpus
from llutil.agent.worker_side.outcome_pipe import ErrorNote, Note, OutcomeReader
from llutil.agent.worker_side.work_order import WorkOrder
from llutil.agent.worker_side.worker_main import _errors_reported, _run_function, _run_main
from llutil.entrypoint import FunctionName


class OutOfMemoryError(RuntimeError):
    """Of torch's name."""


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> WorkOrder:
    monkeypatch.setenv("RANK", "3")
    entrypoint = FunctionName("a:b", b"")
    folder = str(tmp_path / "kept")
    return WorkOrder(entrypoint=entrypoint, sys_path=(), result_limit=100, kept_folder=folder)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    os.close(read)


def told(pipe: tuple[int, int]) -> Note | None:
    """What the agent is told."""
    read, write = pipe
    os.close(write)
    reader = OutcomeReader()
    reader.feed(os.read(read, 1 << 16))
    return reader.note()


@pytest.mark.parametrize(
    ("error", "wrong"),
    [
        (ValueError("x"), True),
        (SystemExit(3), True),
        (KeyboardInterrupt(), False),
        (MemoryError(), False),
        (OutOfMemoryError("CUDA out of memory"), False),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("kind", ["function", "script"])
def test_only_what_is_the_configurations_fault_is_called_so(
    order: WorkOrder, pipe: tuple[int, int], kind: str, error: BaseException, wrong: bool
) -> None:
    def load() -> Any:
        raise error

    if kind == "script" and isinstance(error, SystemExit):
        assert _run_main(load, [""], pipe[1]) == 3
        assert told(pipe) is None
        return
    run = _run_function(load, order, pipe[1]) if kind == "function" else None
    status = _run_main(load, [""], pipe[1]) if run is None else run
    note = told(pipe)
    assert status == 1
    assert isinstance(note, ErrorNote)
    assert (note.fatal, note.bad_configuration) == (wrong, wrong)


def closing(pipe: tuple[int, int], then: Callable[[], Any]) -> Callable[[], Callable[[], Any]]:
    """Loads a function that closes what it has not opened."""

    def function() -> Any:
        os.close(pipe[1])
        return then()

    return lambda: function


def test_the_error_of_a_function_that_closed_the_pipe_is_printed(
    order: WorkOrder, pipe: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run_function(closing(pipe, lambda: int("seven")), order, pipe[1]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("ValueError: invalid literal")
    assert "OSError" not in "".join(lines)


def test_the_value_of_a_function_that_closed_the_pipe_is_kept(
    order: WorkOrder, pipe: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run_function(closing(pipe, lambda: [1]), order, pipe[1]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("rank 3: the agent does not get what it returned ([Errno 9] Bad file")
    assert f"pickle.load(open('{order.kept_folder}/rank_3.pickle', 'rb'))" in line


@pytest.mark.parametrize(
    ("begin", "text"),
    [
        (bind_to_cpus, "numa_options binds this rank to the CPUs 100000, which it"),
        (lambda: worker_main._receive_shared(10**6), "this rank did not get what the launching"),
    ],
    ids=["CPUs", "shared objects"],
)
def test_a_rank_that_cannot_begin_says_why(
    monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int], begin: Callable[[], None], text: str
) -> None:
    ends: list[int] = []
    monkeypatch.setattr(worker_main, "end_program", ends.append)
    monkeypatch.setenv(CPUS, "100000")
    with _errors_reported(pipe[1]):
        begin()
    note = told(pipe)
    assert isinstance(note, ErrorNote)
    assert (note.kind, note.bad_configuration) == ("ConfigError", True)
    assert note.text.startswith(text)
    assert ends == [1]
