"""What the server of a served ledger knows of a client, and what it costs."""

from __future__ import annotations

from llutil.ledgers.memory_store import MemoryStore
from llutil.ledgers.served import messages
from llutil.ledgers.served.client_state import ClientState
from llutil.ledgers.served.messages import Change, FromServer, Request
from tests.support.python_steps import steps_of

SCOPE = "members/"


class Job:
    """Clients of one server; the first watches all members."""

    def __init__(self, nodes: int) -> None:
        self.store = MemoryStore()
        self.leader = self._client()
        self.leader.answer(Request(call=messages.Watch(1, SCOPE, {})))
        for _ in range(nodes):
            self.join()

    def _client(self) -> ClientState:
        return ClientState(self.store, "llutil", lambda: None)

    def join(self) -> str:
        """One more node; its session."""
        client = self._client()
        (answer,) = client.answer(Request(number=1, call=messages.OpenSession(10.0)))
        session = messages.decode(messages.decode(answer, FromServer).result, str)
        client.answer(Request(number=2, call=messages.Join(session, SCOPE, session, b"x", ())))
        return str(session)


def test_one_more_of_a_thousand_members_costs_as_many_steps_as_one_of_ten() -> None:
    def steps(nodes: int) -> int:
        job = Job(nodes)
        job.leader.changes()
        name = job.join()
        changes: list[Change] = []
        count = steps_of(lambda: changes.extend(job.leader.changes()))
        assert [one.key for change in changes for one in change.put] == [SCOPE + name]
        return count

    steps(10)  # the first time is another one
    assert steps(1000) == steps(10)


def test_a_leader_is_told_who_has_come_and_who_has_gone() -> None:
    job = Job(0)
    first, second = job.join(), job.join()
    (change,) = job.leader.changes()
    assert [one.key for one in change.put] == [SCOPE + first, SCOPE + second]
    assert change.whole
    with job.store.transaction() as txn:
        txn.end_lease(first)
    third = job.join()
    (change,) = job.leader.changes()
    assert ([one.key for one in change.put], change.gone) == ([SCOPE + third], (SCOPE + first,))
    assert not change.whole
    assert job.leader.changes() == ()


def test_what_nobody_waits_for_is_answered_only_with_news() -> None:
    job = Job(1)
    client = job.leader
    (known,) = client.changes()[0].put
    assert client.answer(Request(call=messages.Watch(2, SCOPE, {known.key: known.created}))) == ()
    (answer,) = client.answer(Request(call=messages.Watch(3, SCOPE, {})))
    assert messages.decode(answer, FromServer).changes[0].put == (known,)
    assert client.answer(Request(call=messages.Unwatch(3))) == ()
