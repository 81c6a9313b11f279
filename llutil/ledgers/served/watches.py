"""Watches on a served ledger: what this client knows of each watched scope.

The server sends the differences from what the client knows. This module does no I/O; it may import
``llutil.ledgers`` and this folder.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count

from llutil.ledgers.keys import by_arrival
from llutil.ledgers.protocol import View
from llutil.ledgers.served import messages
from llutil.ledgers.served.connection import Connection
from llutil.ledgers.served.messages import Change, Unwatch

__all__ = ["ServedWatch", "Watches"]


class Watches:
    """The open watches of one ledger. Any thread may use them."""

    def __init__(self, connection: Connection, check: Callable[[], None]) -> None:
        self._connection = connection
        self.check = check
        """:raises LedgerError: a watch cannot show anything any more."""
        self.lock = threading.Lock()
        """Guards the attributes below, and what all watches know. Not held during a call."""
        self._open: dict[int, ServedWatch] = {}
        self._numbers = count(1)

    def add(self, scope: str, since: View | None, *, deadline: float) -> ServedWatch:
        """Watch ``scope`` from ``since`` on; from its present state if ``since`` is None."""
        with self.lock:
            watch = ServedWatch(self, next(self._numbers), scope, since)
            self._open[watch.number] = watch
        if since is not None:
            self._connection.post(watch.request())
            return watch
        try:
            self._connection.call(f"watch {scope!r}", watch.request(), None, deadline=deadline)
        except BaseException:
            self.remove(watch)
            raise
        return watch

    def remove(self, watch: ServedWatch) -> None:
        """Stop this watch. In a forked child this does nothing, because it is the parent's."""
        if self._connection.inherited:
            return
        with self.lock:
            found = self._open.pop(watch.number, None)
        if found is not None:
            self._connection.post(Unwatch(watch.number))

    def resume(self) -> None:
        """Name all watches to the server, which a new connection leads to."""
        with self.lock:
            watches = list(self._open.values())
        for watch in watches:
            self._connection.post(watch.request())

    def apply(self, changes: tuple[Change, ...]) -> bool:
        """Take note of what the server says; whether a view has changed."""
        with self.lock:
            applied = [
                watch.apply(change)
                for change in changes
                if (watch := self._open.get(change.number)) is not None
            ]
        return any(applied)


class ServedWatch:
    """``llutil.ledgers.Watch`` on a served ledger. Made by ``ServedLedger.watch``."""

    def __init__(self, watches: Watches, number: int, scope: str, since: View | None) -> None:
        self.number = number
        self._watches = watches
        self._scope = scope
        self._view = since or View((), 0)
        self._records = {record.key: record for record in self._view.records}
        self._is_stale = since is None
        """Whether ``_view`` is older than what is known."""
        self._unfinished: list[Change] = []
        """The slices of a change of which the last one has not come yet."""

    def view(self) -> View:
        """The latest known state.

        :raises LedgerRefused: the server refuses this client.
        """
        self._watches.check()
        with self._watches.lock:
            if self._is_stale:
                self._view = View(by_arrival(self._records.values()), self._view.revision)
                self._is_stale = False
            return self._view

    def close(self) -> None:
        """Stop watching."""
        self._watches.remove(self)

    def request(self) -> messages.Watch:
        """What asks the server for all changes from here on."""
        with self._watches.lock:
            self._unfinished.clear()  # on another connection all of them come again
            known = {record.key: record.created for record in self._records.values()}
        return messages.Watch(self.number, self._scope, known)

    def apply(self, change: Change) -> bool:
        """Take note of a change; whether there was one. Called with the lock held."""
        if change.unfinished:
            self._unfinished.append(change)
            return False
        if self._unfinished:
            slices = [*self._unfinished, change]
            self._unfinished.clear()
            change = _joined(slices)
        if change.whole:
            records = {record.key: record for record in change.put}
            if records == self._records and not self._is_stale:
                return False
            self._records = records
        elif change.put or change.gone:
            for key in change.gone:
                self._records.pop(key, None)
            self._records.update((record.key, record) for record in change.put)
        else:
            return False
        self._view = View(self._view.records, change.revision)
        self._is_stale = True
        return True


def _joined(slices: list[Change]) -> Change:
    """The change of which these are all slices, in order."""
    return Change(
        slices[-1].number,
        slices[-1].revision,
        tuple(record for one in slices for record in one.put),
        tuple(key for one in slices for key in one.gone),
        whole=slices[0].whole,
    )
