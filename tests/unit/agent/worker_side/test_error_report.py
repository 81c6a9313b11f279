"""An error of any class is told as what it is, whatever the class makes of Python's protocols."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

from llutil.agent.worker_side import worker_main
from llutil.agent.worker_side.error_report import report_error
from llutil.agent.worker_side.outcome_pipe import ErrorNote, OutcomeReader
from llutil.agent.worker_side.work_order import WorkOrder
from llutil.entrypoint import FunctionName
from llutil.serialization import made_modules


@dataclass(frozen=True)
class Frozen(Exception):
    index: int


@dataclass(frozen=True, slots=True)
class FrozenSlots(Exception):
    index: int


@dataclass
class Unhashable(Exception):
    index: int


class Arguments(Exception):
    def __init__(self, index: int, *, reason: str) -> None:
        super().__init__(index, reason)


def refuse(*_: Any) -> NoReturn:
    raise KeyError("refused")


def leave(*_: Any) -> NoReturn:
    raise SystemExit(3)


class NoAttributes(Exception):
    __setattr__ = __delattr__ = refuse


class NoTraceback(Exception):
    with_traceback = refuse


class NoText(Exception):
    __str__ = __repr__ = refuse


class TextThatLeaves(Exception):
    __str__ = __repr__ = leave


class TextThatIsNone(Exception):
    __str__ = lambda self: None  # type: ignore[assignment, return-value]  # noqa: E731


class NoCopy(Exception):
    __reduce__ = __reduce_ex__ = refuse  # type: ignore[assignment]


class NoModule(Exception):
    __module__ = None  # type: ignore[assignment]


class Endless(Exception):
    """Looks for all that it does not have in what it does not have."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def caused() -> Exception:
    error = ValueError("x")
    error.__cause__, error.__context__ = Frozen(1), Endless("y")
    return error


def noted() -> Exception:
    error = ValueError("x")
    error.__notes__ = 7  # type: ignore[assignment]
    return error


ERRORS: dict[str, Callable[[], BaseException]] = {
    "frozen": lambda: Frozen(3),
    "frozen, with slots": lambda: FrozenSlots(3),
    "unhashable": lambda: Unhashable(3),
    "arguments": lambda: Arguments(3, reason="x"),
    "no attribute can be set": lambda: NoAttributes("x"),
    "no traceback can be set": lambda: NoTraceback("x"),
    "no text": lambda: NoText("x"),
    "a text that leaves": lambda: TextThatLeaves("x"),
    "a text that is none": lambda: TextThatIsNone("x"),
    "no copy": lambda: NoCopy("x"),
    "no module": lambda: NoModule("x"),
    "an endless attribute": lambda: Endless("x"),
    "surrogates": lambda: ValueError("gut gen\udcfcg"),
    "causes": caused,
    "notes that are none": noted,
    "a group": lambda: ExceptionGroup("x", [Frozen(1), NoText("y")]),
}


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    os.close(read)


def told(pipe: tuple[int, int]) -> ErrorNote:
    """What the agent is told."""
    read, write = pipe
    os.close(write)
    reader = OutcomeReader()
    reader.feed(os.read(read, 1 << 16))
    note = reader.note()
    assert isinstance(note, ErrorNote)
    return note


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where torch's tools look for an error."""
    path = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
    return path


@pytest.mark.parametrize("make", ERRORS.values(), ids=ERRORS)
def test_its_class_and_trace_reach_the_agent_and_torchs_file_and_are_printed(
    make: Callable[[], BaseException],
    pipe: tuple[int, int],
    shown: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    kind = type(make()).__qualname__

    def users_code() -> NoReturn:
        raise make()

    try:
        users_code()
    except BaseException as error:
        status = report_error(error, pipe[1])
    note = told(pipe)
    assert (status, note.kind) == (1, kind)
    assert "in users_code" in note.trace
    assert note.text or kind == "TextThatIsNone"
    assert json.loads(shown.read_text())["message"]["message"].startswith(f"{kind}: ")
    assert "in users_code" in capfd.readouterr().err


def test_a_code_that_cannot_be_shown_hides_no_exit(pipe: tuple[int, int], shown: Path) -> None:
    assert report_error(SystemExit(NoText()), pipe[1], exit_code=1) == 1
    assert told(pipe).text == "the function called sys.exit(<NoText>) and returned no value"
    assert not shown.exists()


def test_an_error_of_a_module_of_the_users_is_told_as_what_it_is(
    pipe: tuple[int, int], shown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"from {__name__} import Frozen\nraise Frozen(7)\n"
    (tmp_path / "frozen_module.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", [""])
    monkeypatch.setattr(made_modules, "_made", None)
    entrypoint = FunctionName("frozen_module:train", b"")
    order = WorkOrder(entrypoint=entrypoint, sys_path=tuple(sys.path), result_limit=0)
    assert worker_main.run_order(order, os.memfd_create("order"), pipe[1], None) == 1
    note = told(pipe)
    assert (note.kind, note.bad_configuration) == ("Frozen", True)
    assert "frozen_module.py" in note.trace
    assert shown.exists()
