"""What a job's agreement through a ledger tells the gates of its node."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from llutil.agent.steering.ledger_agreement import LedgerAgreement
from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol.gate_records import WishKind
from llutil.rendezvous.protocol.parameters import ProtocolParameters
from llutil.rendezvous.protocol.record_base import Stage


@pytest.mark.parametrize(("preempted", "ends_within"), [(True, 330.0), (False, None)])
def test_ranks_that_have_saved_wait_as_long_as_others_may_save(
    preempted: bool, ends_within: float | None
) -> None:
    told: list[dict[str, Any]] = []
    driver: Any = SimpleNamespace(
        parameters=ProtocolParameters(min_nodes=1, max_nodes=2, growth_timeout=300.0)
    )
    gates: Any = SimpleNamespace(open_gate=lambda *_, **options: told.append(options))
    LedgerAgreement(driver, gates).carry_out(
        do.OpenGate(
            stage=Stage(1, 1),
            number=3,
            kinds=(WishKind.CHECKPOINT,),
            step=7,
            resumed=0,
            debugged=False,
            preempted=preempted,
            why="somebody new is there",
        )
    )
    assert [one["ends_within"] for one in told] == [ends_within]
