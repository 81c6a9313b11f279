"""What a rank makes of the value that its function returned."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from llutil.agent.worker_side.outcome_pipe import Refused, Returned
from llutil.agent.worker_side.returned_value import _encoded_or_kept
from llutil.agent.worker_side.work_order import WorkOrder
from llutil.entrypoint import FunctionName


class Own:
    """Of a module."""


class Broken(dict[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise ZeroDivisionError


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """What rank 3 reports for a value."""
    monkeypatch.setenv("RANK", "3")

    def report(value: Any, limit: int | None) -> Any:
        folder = str(tmp_path / "kept")
        entrypoint = FunctionName("a:b", b"")
        order = WorkOrder(
            entrypoint=entrypoint, sys_path=(), result_limit=limit, kept_folder=folder
        )
        return _encoded_or_kept(value, order)

    return report


def test_a_value_for_this_interpreter_is_pickled_by_name_where_it_can_be(reported: Any) -> None:
    note = reported([Own, Own()], None)
    assert note.pickled
    kind, one = pickle.loads(note.content)
    assert kind is Own
    assert type(one) is Own


def test_what_has_no_name_is_pickled_all_the_same(reported: Any) -> None:
    assert pickle.loads(reported(lambda: 42, None).content)() == 42


def test_what_nobody_wants_is_not_looked_at(reported: Any, tmp_path: Path) -> None:
    assert reported(object(), 0) == Returned(b"null", pickled=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"raw": b"raw"}, "rank 3: value['raw'] is bytes, which XCom cannot hold: "),
        ("x" * 1000, "rank 3: the returned value takes at least 1,002 bytes as JSON; "),
        (
            Broken(a=1),
            "rank 3: the returned value cannot be handed on: ZeroDivisionError; it is kept ",
        ),
    ],
)
def test_what_is_refused_is_kept_and_told_on_standard_error(
    reported: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    value: Any,
    why: str,
) -> None:
    note = reported(value, 100)
    assert isinstance(note, Refused)
    assert note.text.startswith(why)
    kept = tmp_path / "kept" / "rank_3.pickle"
    assert f"pickle.load(open({str(kept)!r}, 'rb'))" in note.text
    assert capsys.readouterr().err == f"{note.text}\n"
    assert type(pickle.loads(kept.read_bytes())) is type(value)
