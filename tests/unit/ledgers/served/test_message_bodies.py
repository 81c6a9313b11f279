"""What the server of a served ledger says, if one message cannot hold it."""

from __future__ import annotations

import pytest

from llutil.ledgers.protocol import Record, View
from llutil.ledgers.served import handshake, messages
from llutil.ledgers.served.message_bodies import bodies
from llutil.ledgers.served.messages import Change, Failure, FromServer

MOST = 1000
PUT = tuple(Record(f"f/{number}", b"v" * 30, number) for number in range(1, 40))
GONE = tuple(f"f/gone{number}" for number in range(40))


@pytest.fixture(autouse=True)
def short_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "MAX_MESSAGE", MOST)


def said(message: FromServer) -> list[FromServer]:
    found = bodies(message, "read 'f/'")
    assert all(len(body) <= MOST for body in found)
    return [messages.decode(body, FromServer) for body in found]


def test_what_fits_is_one_message() -> None:
    message = FromServer(number=3, changes=(Change(1, 5, PUT[:2], whole=True),))
    assert said(message) == [message]


@pytest.mark.parametrize("whole", [True, False])
def test_a_long_change_comes_in_slices_that_are_complete_with_the_answer(whole: bool) -> None:
    change = Change(1, 50, PUT, () if whole else GONE, whole=whole)
    found = said(FromServer(number=3, changes=(change,)))
    slices = [one for message in found for one in message.changes]
    assert len(slices) == len(found) > 2
    assert [message.number for message in found] == [0] * (len(found) - 1) + [3]
    assert [one.whole for one in slices] == [whole] + [False] * (len(slices) - 1)
    assert [one.unfinished for one in slices] == [True] * (len(slices) - 1) + [False]
    assert tuple(record for one in slices for record in one.put) == PUT
    assert tuple(key for one in slices for key in one.gone) == change.gone
    assert {(one.number, one.revision) for one in slices} == {(1, 50)}


def test_many_changes_come_in_order() -> None:
    changes = tuple(Change(number, 50, PUT[:10]) for number in range(1, 6))
    slices = [one for message in said(FromServer(changes=changes)) for one in message.changes]
    assert [one.number for one in slices if not one.unfinished] == [1, 2, 3, 4, 5]
    assert sorted(one.number for one in slices) == [one.number for one in slices]


def test_an_answer_that_is_too_long_is_a_failure() -> None:
    (answer,) = said(FromServer(number=3, result=messages.result(View(PUT, 50))))
    length = answer.failure.text.split()[5] if answer.failure else "none"
    text = f"read 'f/': the answer has {length} bytes; a served ledger sends {MOST} at most"
    assert answer == FromServer(number=3, failure=Failure("LedgerRefused", text))
    assert int(length) > MOST
