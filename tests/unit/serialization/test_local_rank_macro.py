"""``${local_rank}`` in arguments is torch's."""

from __future__ import annotations

import pytest
from torch.distributed.elastic.utils.api import macros

from llutil.events.events import SLOT_NUMBER
from llutil.serialization.local_rank_macro import arguments_of_rank


@pytest.mark.parametrize(
    "arg",
    [
        macros.local_rank,
        "--local-rank=${local_rank}/$local_rank/$local_rank_2/${rank}",
        "$${local_rank} $$ ${ $LOCAL_RANK local_rank",
        3,
        None,
        ["${local_rank}"],
    ],
)
def test_it_is_replaced_as_torch_replaces_it(arg: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")  # as with virtual_local_rank
    monkeypatch.setenv(SLOT_NUMBER, "7")
    assert arguments_of_rank([arg]) == macros.substitute([arg], "7")


def test_a_shells_process_number_stays_in_what_does_not_name_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert arguments_of_rank(("echo $$ $LOCAL_RANK",)) == ["echo $$ $LOCAL_RANK"]
