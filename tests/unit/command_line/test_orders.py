from __future__ import annotations

from typing import Any

import pytest

from llutil.agent_socket.messages import Order, State
from llutil.command_line.errors import CommandError
from llutil.command_line.orders import outcome, undone
from tests.support.job_statuses import job_status

CASES: list[tuple[Order, dict[str, Any], str]] = [
    (Order.PAUSE, {}, ""),
    (Order.PAUSE, {"state": State.PAUSES}, ""),
    (Order.PAUSE, {"state": State.PAUSED, "detail": "paused after step 3"}, "paused after step 3"),
    (Order.RESUME, {"state": State.PAUSED}, ""),
    (Order.RESUME, {"state": State.PAUSES}, ""),
    (Order.RESUME, {}, "the ranks go on"),
    (Order.CHECKPOINT, {"saved": 3}, ""),
    (
        Order.CHECKPOINT,
        {"saved": 3, "has_saved": True, "checkpoint_folder": "/c"},
        "the checkpoint of step 3 is committed, below /c",
    ),
    (Order.STOP, {"state": State.STOPS}, ""),
    (Order.STOP, {"state": State.STOPS, "stops_after": 9}, "all ranks stop after step 9"),
    (Order.STOP, {"state": State.ENDS}, "the node ends: a signal has asked it to"),
]


@pytest.mark.parametrize(("order", "fields", "text"), CASES)
def test_what_has_become_of_an_order(order: Order, fields: dict[str, Any], text: str) -> None:
    assert outcome(order, job_status(**fields)) == text


def test_an_order_that_was_refused_says_why() -> None:
    status = job_status(refused={"pause": "torch's c10d rendezvous cannot carry it"})
    with pytest.raises(CommandError, match="nothing comes of the pause: torch's c10d rendezvous"):
        outcome(Order.PAUSE, status)
    assert outcome(Order.RESUME, status)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"state": State.WAITS}, "no round runs yet; it takes effect in the next one"),
        ({"counts_steps": True}, "has not come about within 5 s"),
        ({"pid": 77}, "no rank of this node has called worker.step.*kill 77,"),
    ],
)
def test_an_order_that_has_not_come_about_says_what_is_missing(
    fields: dict[str, Any], text: str
) -> None:
    with pytest.raises(CommandError, match=text):
        raise CommandError(undone(Order.STOP, job_status(**fields), 5.0))
