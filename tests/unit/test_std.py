"""Our ``Std`` is torch's by number, for one worker or for all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from torch.distributed.elastic.multiprocessing import Std as TorchStd

from llutil.std import Std, std_for


def test_names_and_values_are_those_of_torch() -> None:
    assert {one.name: one.value for one in (Std.NONE, *Std, Std.ALL)} == {
        one.name: one.value for one in (TorchStd.NONE, *TorchStd, TorchStd.ALL)
    }
    assert Std.OUT | Std.ERR is Std.ALL


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        (Std.ALL, [Std.ALL, Std.ALL]),
        (TorchStd.ERR, [Std.ERR, Std.ERR]),
        ({0: Std.OUT}, [Std.OUT, Std.NONE]),
        ({1: TorchStd.ALL}, [Std.NONE, Std.ALL]),
        ({}, [Std.NONE, Std.NONE]),
    ],
)
def test_an_option_is_for_all_ranks_or_for_those_it_names(
    option: Any | Mapping[int, Any], wanted: list[Std]
) -> None:
    found = [std_for(option, local_rank) for local_rank in range(2)]
    assert found == wanted
    assert {type(one) for one in found} == {Std}
