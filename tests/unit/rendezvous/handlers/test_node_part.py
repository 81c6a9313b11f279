"""Which of torch's errors an agent of torch's gets once its node's part has ended."""

from __future__ import annotations

from typing import Any

import pytest
from torch.distributed.elastic.rendezvous import (
    RendezvousClosedError,
    RendezvousConnectionError,
    RendezvousStateError,
    RendezvousTimeoutError,
)

from llutil.failure import JobFailure
from llutil.rendezvous.handlers.node_part import NodePart
from llutil.rendezvous.protocol import instructions as do


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (do.GaveUp("too few came"), RendezvousTimeoutError),
        (do.GaveUp("it is away", ledger_away=True), RendezvousTimeoutError),
        (do.GaveUp("it has gone", ledger_away=True, gone=True), RendezvousConnectionError),
        (do.Refused("they do not fit"), RendezvousStateError),
        (do.Failed(JobFailure(why="a failed")), RendezvousClosedError),
        (do.Late("it is over"), RendezvousClosedError),
    ],
)
def test_an_end_is_one_of_torchs_errors(end: do.End, kind: type[Exception]) -> None:
    driver: Any = None
    part = NodePart("digits", driver)
    part.end = end
    with pytest.raises(kind, match=f"^run 'digits': {end.why}$") as raised:
        part.raise_if_ended()
    assert type(raised.value) is kind
