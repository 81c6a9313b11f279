from __future__ import annotations

import argparse
from typing import Any

import pytest

from llutil.agent_socket.client import Heard
from llutil.agent_socket.folder import SocketName
from llutil.agent_socket.messages import Order, State
from llutil.command_line import orders
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


@pytest.mark.parametrize(("timeout", "text"), [(60.0, ""), (0.5, "no answer within 3 s")])
def test_an_agent_that_is_silent_for_a_while_has_taken_its_order_all_the_same(
    timeout: float, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, last = job_status(counts_steps=True), job_status(state=State.PAUSED, detail="paused")
    answers = [first, CommandError("no answer within 3 s"), last]
    now = [100.0]

    class Clock:
        monotonic = staticmethod(lambda: now[0])
        sleep = staticmethod(lambda _: None)

    def ask(*_: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, CommandError):
            now[0] += 3.0
            raise answer
        return answer

    monkeypatch.setattr(orders, "time", Clock)
    monkeypatch.setattr(orders, "ask_agent", ask)
    monkeypatch.setattr(orders, "nodes_of", lambda _: [Heard(SocketName("/a", 1, "a"), first)])
    given = argparse.Namespace(command="pause", run_id="a", why="", timeout=timeout, json=False)
    if text:
        with pytest.raises(CommandError, match=text):
            orders.order(given)
    else:
        assert orders.order(given) == 0
        assert capsys.readouterr().out == "paused\n"
