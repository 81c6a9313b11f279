"""From what the ranks of a node reported to what the launch returns."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from llutil.agent.worker_side.outcome_pipe import Refused, Returned
from llutil.errors import InfrastructureError, ResultError
from llutil.launcher.run import _values

PICKLED = Returned(pickle.dumps({"loss": 0.5}), pickled=True)
JSON = Returned(b'{"loss": 0.5}', pickled=False)


def full(_content: Any) -> Any:
    raise InfrastructureError("the disk is full")


def test_values_come_in_the_order_of_their_ranks(tmp_path: Path) -> None:
    assert list(_values({1: JSON, 0: None}, tmp_path, None).items()) == [
        (0, None),
        (1, {"loss": 0.5}),
    ]
    assert _values({0: PICKLED}, tmp_path, None) == {0: {"loss": 0.5}}
    assert _values({0: JSON}, tmp_path, len) == {0: 13}
    assert list(tmp_path.iterdir()) == []


def test_values_that_were_refused_are_told_together_and_the_others_are_there(
    tmp_path: Path,
) -> None:
    notes = {2: Refused("rank 2: bytes"), 1: JSON, 0: Refused("rank 0: a set")}
    with pytest.raises(ResultError) as caught:
        _values(notes, tmp_path, None)
    assert str(caught.value).splitlines()[1:] == ["rank 0: a set", "rank 2: bytes"]
    assert caught.value.results == {1: {"loss": 0.5}}


def test_a_value_for_which_the_tasks_disk_has_no_room_is_kept_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="rank 4: what it returned cannot be taken here: Infra"):
        _values({4: JSON}, tmp_path / "kept", full)
    assert json.loads((tmp_path / "kept" / "rank_4.json").read_bytes()) == {"loss": 0.5}


def test_a_value_that_the_caller_cannot_unpickle_is_kept(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="No module named 'not_there'"):
        _values({0: Returned(b"cnot_there\nthing\n.", pickled=True)}, tmp_path / "kept", None)
    assert (tmp_path / "kept" / "rank_0.pickle").exists()
