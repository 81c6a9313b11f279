"""When a session counts as suspended, connected again, or lost, whatever the store says and does
not say.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from llutil.ledgers import LedgerClosed, LedgerRefused, LedgerUnavailable, SessionLost, SessionState
from llutil.ledgers.session_keeper import Renewal, SessionKeeper
from tests.support.ledger_contract import Changes, soon

TTL = 0.09  # seconds


class Scripted(SessionKeeper):
    """A keeper whose store answers as it is told to."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        super().__init__("s", "a store", Renewal(time.monotonic(), TTL), on_change)
        self.trouble: Exception | None = None
        self.gone: set[str] = set()
        self.asked: list[str] = []

    def _answer(self, what: str) -> Renewal:
        self.asked.append(what)
        self._on_change()
        if self.trouble is not None:
            raise self.trouble
        return Renewal(time.monotonic(), TTL)

    def _renew_session(self, *, deadline: float) -> Renewal:
        assert deadline <= time.monotonic() + TTL
        return self._answer("session")

    def _renew_lease(self, name: str, *, deadline: float) -> Renewal | None:
        renewal = self._answer(name)
        return None if name in self.gone else renewal


@contextmanager
def keeping(trouble: Exception | None = None) -> Iterator[tuple[Scripted, Changes]]:
    changes = Changes()
    keeper = Scripted(changes)
    keeper.trouble = trouble
    keeper.start()
    try:
        yield keeper, changes
    finally:
        keeper.stop(deadline=soon())
        assert not keeper.is_alive


def test_a_session_is_renewed_again_and_again() -> None:
    with keeping() as (keeper, changes):
        changes.wait_for(lambda: keeper.asked.count("session") >= 3)
        assert keeper.renewal.due < keeper.renewal.until


@pytest.mark.parametrize("error", [LedgerUnavailable("away"), LedgerRefused("no")])
def test_silence_and_refusals_suspend_and_only_an_answer_connects_again(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with keeping(error) as (keeper, changes):
        changes.wait_for(lambda: keeper.state is SessionState.SUSPENDED)
        changes.wait_for(lambda: "session s on a store is suspended: " in caplog.text)
        keeper.trouble = None
        keeper.hasten()
        changes.wait_for(lambda: keeper.state is SessionState.CONNECTED)
        changes.wait_for(lambda: "session s on a store is connected again" in caplog.text)


@pytest.mark.parametrize("error", [SessionLost("it is over"), RuntimeError("a mistake of ours")])
def test_only_the_stores_word_or_a_mistake_of_ours_loses_it_and_for_good(error: Exception) -> None:
    with keeping(error) as (keeper, changes):
        changes.wait_for(lambda: keeper.state is SessionState.LOST)
        keeper.trouble = None
        keeper.hasten()
        assert keeper.state is SessionState.LOST


def test_a_closed_ledger_ends_the_thread_without_a_word() -> None:
    with keeping(LedgerClosed("closed")) as (keeper, changes):
        changes.wait_for(lambda: not keeper.is_alive or bool(keeper.asked))
        keeper.stop(deadline=soon())
        assert keeper.state is not SessionState.LOST


def test_leases_are_kept_beside_it_until_the_store_says_that_they_are_over() -> None:
    with keeping() as (keeper, changes):
        for name in ("one", "two"):
            keeper.add(name, Renewal(time.monotonic(), TTL))
        keeper.gone = {"two"}
        changes.wait_for(lambda: keeper.asked.count("one") >= 2)
        assert keeper.keeps("one")
        assert not keeper.keeps("two")
        assert keeper.state is SessionState.CONNECTED
