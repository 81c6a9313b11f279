"""Watches on ZooKeeper: each keeps the present state of a scope, read again whenever something
happened there.

ZooKeeper's own watches tell once that something has changed, and not what; kazoo drops them with
the connection, and says so. Both mean the same here: read the scope again, with a new watch set by
the same request. What came and went in between was never seen, which is what a ledger promises. Of
a folder only the records that are new are read.

To follow one record of a session (a predecessor) its own node is watched, not its folder: so a
member's end wakes one node, and not all. One thread for all watches of a ledger, started by the
first and ended by ``close``. Of ours this module imports ``llutil.ledgers`` and what lies in this
folder.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from llutil.ledgers.errors import LedgerClosed, LedgerError, LedgerRefused, LedgerUnavailable
from llutil.ledgers.keys import by_arrival
from llutil.ledgers.protocol import Record, View
from llutil.ledgers.zookeeper.kazoo_session import KazooSession
from llutil.ledgers.zookeeper.znode_paths import ZnodePaths
from llutil.ledgers.zookeeper.znode_reader import EMPTY, ZnodeReader

__all__ = ["ZooKeeperWatch", "ZooKeeperWatches"]

_log = logging.getLogger(__name__)

_READ = 10.0  # seconds for reading a scope again
_PAUSE = 0.2  # seconds after a read that failed
_NET = 600.0  # seconds of silence after which every scope is read again: a notice that was lost costs no more


class _Watched:
    """What one watch knows of its scope. Used by the thread alone, but for ``view``, ``error`` and
    ``stale``.
    """

    def __init__(
        self, scope: str, view: View, only: Record | None, told: Callable[[], None]
    ) -> None:
        self.scope = scope
        self.view = view
        self.error: LedgerError | None = None
        self.stale = True
        self.only = only
        """The record whose own node is watched, until it is gone."""
        self._records: dict[str, Record] = {}
        self._listing = EMPTY
        self._told = told

    def wake(self, _event: Any) -> None:
        """In kazoo's thread: something happened, or the connection was lost."""
        self.stale = True
        self._told()

    def look(self, reader: ZnodeReader, places: ZnodePaths) -> View:
        """Read the scope, and watch it."""
        reader.sync()
        if self.only is not None:
            path = places.path(self.only)
            if reader.ask(lambda client: client.exists_async(path, self.wake)) is not None:
                return self.view
            self.only = None
        records, listing = reader.scope(self.scope, self.wake, self._records, self._listing)
        self._records, self._listing = records, listing
        found = by_arrival(records.values())
        return self.view if found == self.view.records else View(found, listing.revision)


class ZooKeeperWatches:
    """The watches of one ledger. ``on_change`` is called, in the thread, when a view has
    changed.
    """

    def __init__(
        self, line: Callable[[], KazooSession], places: ZnodePaths, on_change: Callable[[], None]
    ) -> None:
        self._line = line
        self._places = places
        self._on_change = on_change
        self._changed = threading.Condition()
        """Guards the three below; notified when a watch is stale."""
        self._open: list[_Watched] = []
        self._closing = False
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None

    def add(self, scope: str, since: View) -> ZooKeeperWatch:
        """Watch ``scope``, of which ``since`` is the latest state known."""
        single = not scope.endswith("/") and len(since.records) == 1
        only = since.records[0] if single and not _granted(since.records[0]) else None
        watch = _Watched(scope, since, only, self._wake)
        with self._changed:
            self._open.append(watch)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="llutil-watch", daemon=True)
                self._thread.start()
            self._changed.notify()
        return ZooKeeperWatch(self, watch)

    def view(self, watch: _Watched) -> View:
        """The latest state that ``watch`` knows."""
        self._line().check()
        if watch.error is not None:
            raise type(watch.error)(str(watch.error))
        return watch.view

    def remove(self, watch: _Watched) -> None:
        """Stop this watch. In a forked child it does nothing: the watch is the parent's."""
        if self._pid != os.getpid():
            return
        with self._changed:
            if watch in self._open:
                self._open.remove(watch)

    def close(self, *, deadline: float) -> None:
        """Wait for the thread's end. The line, closed before, has ended what it waits for."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None and threading.current_thread() is not self._thread:
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def _next(self) -> _Watched | None:
        """Wait for a watch that is stale; None in the end."""
        with self._changed:
            while not self._closing:
                for watch in self._open:
                    if watch.stale:
                        return watch
                if not self._changed.wait(_NET):
                    for watch in self._open:
                        watch.stale = True
        return None

    def _run(self) -> None:
        try:
            while (watch := self._next()) is not None:
                self._look(watch)
        except LedgerClosed:
            return
        except Exception as error:  # noqa: BLE001 - the thread's edge: who watches is told, and not left to wait
            _log.exception("the watches under %r have ended", self._places.namespace.path)
            with self._changed:
                watches, self._open = self._open, []
                self._thread = None  # the next watch starts another
            why = f"this side broke down: {type(error).__name__}: {error}"
            for watch in watches:
                watch.error = LedgerRefused(f"watch {watch.scope!r}: {why}")
            self._on_change()

    def _look(self, watch: _Watched) -> None:
        deadline = time.monotonic() + _READ
        line = self._line()
        reader = ZnodeReader(line, self._places, deadline)
        watch.stale = (
            False  # whatever happens from here on is seen by this read, or wakes the watch again
        )
        try:
            view = line.trying(
                f"watch {watch.scope!r}",
                lambda _: watch.look(reader, self._places),
                deadline=deadline,
            )
        except LedgerUnavailable as error:
            _log.debug("the watch on %r waits: %s", watch.scope, error)
            watch.stale = True
            with self._changed:
                self._changed.wait(_PAUSE)
        except LedgerClosed:
            raise
        except LedgerError as error:
            refused = isinstance(error, LedgerRefused)
            watch.error = error if refused else LedgerRefused(str(error))
            self._on_change()
        else:
            with self._changed:
                changed = watch in self._open and view is not watch.view
                if changed:
                    watch.view = view
            if changed:
                self._on_change()


def _granted(record: Record) -> bool:
    return record.lease.startswith("lease-")


class ZooKeeperWatch:
    """``llutil.ledgers.Watch`` on ZooKeeper. Made by ``ZooKeeperLedger.watch``."""

    def __init__(self, owner: ZooKeeperWatches, watched: _Watched) -> None:
        self._owner = owner
        self._watched = watched

    def view(self) -> View:
        """The latest state known. :raises LedgerRefused: ZooKeeper refuses this watch."""
        return self._owner.view(self._watched)

    def close(self) -> None:
        """Stop watching."""
        self._owner.remove(self._watched)
