"""Whether a store can be used, as people are told."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest

from llutil.ledgers import connection_test
from llutil.ledgers.errors import LedgerUnavailable
from llutil.ledgers.memory import MemoryLedger, MemorySession
from llutil.ledgers.memory_store import MemoryStore


class Frozen(MemorySession):
    """A session of a store that does not answer any more."""

    def join(self, *_: Any, **__: Any) -> NoReturn:
        raise LedgerUnavailable("join: it is frozen")

    def release(self, *, deadline: float) -> NoReturn:
        raise LedgerUnavailable("end the session: the deadline had passed")


class FreezingLedger(MemoryLedger):
    def open_session(self, ttl: float, *, deadline: float) -> MemorySession:
        return Frozen(self, ttl, super().open_session(ttl, deadline=deadline).lease)


def test_the_reason_is_what_failed_first_and_not_that_the_session_cannot_be_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def opener(*_: Any) -> Any:
        return lambda on_change: FreezingLedger(MemoryStore(), on_change)

    monkeypatch.setattr(connection_test, "ledger_opener", opener)
    with pytest.raises(LedgerUnavailable, match="join: it is frozen"):
        connection_test.check_connection("etcd", "h:1", {})
