"""When a session counts as suspended, connected again, or lost, for every answer of the store."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from llutil.ledgers import LedgerClosed, LedgerRefused, LedgerUnavailable, SessionLost, SessionState
from llutil.ledgers.session_keeper import Renewal, SessionKeeper
from tests.support.ledger_contract import Changes, soon

# Seconds.
TTL = 0.09


class ScriptedKeeper(SessionKeeper):
    """A keeper whose store answers as the test says."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        super().__init__("s", "a store", Renewal(time.monotonic(), TTL), on_change)
        self.error_to_raise: Exception | None = None
        self.expired_leases: set[str] = set()
        self.renewals: list[str] = []
        self.sent: list[float] = []
        """When the session's renewals were sent."""

    def _answer(self, what: str) -> Renewal:
        self.renewals.append(what)
        self._on_change()
        if self.error_to_raise is not None:
            raise self.error_to_raise
        return Renewal(time.monotonic(), TTL)

    def _renew_session(self, *, deadline: float) -> Renewal:
        assert deadline <= time.monotonic() + TTL
        renewal = self._answer("session")
        self.sent.append(renewal.sent)
        return renewal

    def _renew_lease(self, name: str, *, deadline: float) -> Renewal | None:
        renewal = self._answer(name)
        return None if name in self.expired_leases else renewal


@contextmanager
def running_keeper(
    error_to_raise: Exception | None = None, *, cut_off: bool = False, expired: str = ""
) -> Iterator[tuple[ScriptedKeeper, Changes]]:
    """What it is told is so from its first renewal on."""
    changes = Changes()
    keeper = ScriptedKeeper(changes)
    keeper.error_to_raise = error_to_raise
    keeper.expired_leases = {expired}
    if cut_off:
        keeper.cut_off(float("inf"))
    keeper.start()
    try:
        yield keeper, changes
    finally:
        keeper.stop(deadline=soon())
        assert not keeper.is_alive


def test_a_renewal_is_due_three_times_in_a_ttl() -> None:
    renewal = Renewal(100.0, 30.0)
    assert (renewal.due, renewal.valid_until) == (110.0, 130.0)


def test_a_session_is_renewed_again_and_again_and_never_early() -> None:
    with running_keeper() as (keeper, changes):
        changes.wait_for(lambda: len(keeper.sent) >= 4)
    for before, after in itertools.pairwise(keeper.sent):
        assert after >= Renewal(before, TTL).due


@pytest.mark.parametrize("error", [LedgerUnavailable("away"), LedgerRefused("no")])
def test_silence_and_refusals_suspend_and_only_an_answer_connects_again(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with running_keeper(error) as (keeper, changes):
        changes.wait_for(lambda: keeper.state is SessionState.SUSPENDED)
        changes.wait_for(lambda: "session s on a store is suspended: " in caplog.text)
        keeper.error_to_raise = None
        keeper.renew_if_suspended()
        changes.wait_for(lambda: keeper.state is SessionState.CONNECTED)
        changes.wait_for(lambda: "session s on a store is connected again" in caplog.text)


@pytest.mark.parametrize("error", [SessionLost("it is over"), RuntimeError("an error of ours")])
def test_only_the_store_or_an_error_of_ours_makes_it_lost_for_ever(error: Exception) -> None:
    with running_keeper(error) as (keeper, changes):
        changes.wait_for(lambda: keeper.state is SessionState.LOST)
        keeper.error_to_raise = None
        keeper.renew_if_suspended()
        assert keeper.state is SessionState.LOST


def test_a_closed_ledger_ends_the_thread_and_loses_no_session() -> None:
    with running_keeper(LedgerClosed("closed")) as (keeper, changes):
        changes.wait_for(lambda: not keeper.is_alive or bool(keeper.renewals))
        keeper.stop(deadline=soon())
        assert keeper.state is not SessionState.LOST


def test_leases_are_renewed_beside_it_until_the_store_says_that_they_are_over() -> None:
    with running_keeper(expired="two") as (keeper, changes):
        for name in ("one", "two"):
            keeper.add_lease(name, Renewal(time.monotonic(), TTL))
        changes.wait_for(lambda: keeper.renewals.count("one") >= 2)
        changes.wait_for(lambda: not keeper.keeps_lease("two"))
        assert keeper.keeps_lease("one")
        changes.wait_for(lambda: keeper.state is SessionState.CONNECTED)
    assert keeper.renewals.count("two") == 1


def test_a_session_that_is_cut_off_is_not_renewed_until_the_end_of_that() -> None:
    with running_keeper(cut_off=True) as (keeper, changes):
        keeper.add_lease("long", Renewal(0.0, TTL))
        changes.wait_for(lambda: keeper.state is SessionState.SUSPENDED)
        keeper.renew_if_suspended()
        assert keeper.renewals == []
        keeper.cut_off(0.0)
        keeper.renew_if_suspended()
        changes.wait_for(lambda: keeper.state is SessionState.CONNECTED)
