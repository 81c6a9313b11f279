"""Watches on ZooKeeper. Each keeps the present state of a scope, and reads it again after each
change.

ZooKeeper's own watches fire once. They tell that something has changed, but not what. kazoo drops
them when the connection is lost, and says so. Both cases are handled alike here: the scope is read
again, and the same request sets a new watch. What came and went in between is never seen; a ledger
promises no more. In a folder, only the new records are read.

A watch on one session's record (a predecessor's) watches that record's own znode, not its folder.
So the end of one member wakes one node, and not all nodes.

One thread serves all watches of a ledger. The first watch starts it; ``close`` ends it. This module
may import ``llutil.ledgers`` and this folder.
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
from llutil.ledgers.zookeeper.znode_reader import NO_FOLDER, ZnodeReader

__all__ = ["ZooKeeperWatch", "ZooKeeperWatchThread"]

_log = logging.getLogger(__name__)

# Seconds to read a scope again.
_READ_TIMEOUT = 10.0
# Seconds between a read that failed and the next one.
_RETRY_PAUSE = 0.2
# Seconds without a change after which every scope is read again, in case a notice was lost.
_REREAD_PERIOD = 600.0


class _WatchState:
    """What one watch knows of its scope. Only the thread uses it, except for ``view``, ``error``
    and ``stale``.
    """

    def __init__(
        self, scope: str, view: View, watched_record: Record | None, on_stale: Callable[[], None]
    ) -> None:
        self.scope = scope
        self.view = view
        self.error: LedgerError | None = None
        self.stale = True
        self.watched_record = watched_record
        """The record whose own znode is watched; None once it is gone."""
        self._records: dict[str, Record] = {}
        self._listing = NO_FOLDER
        self._on_stale = on_stale

    def wake(self, _event: Any) -> None:
        """Called in kazoo's thread: something changed, or the connection was lost."""
        self.stale = True
        self._on_stale()

    def read(self, reader: ZnodeReader, paths: ZnodePaths) -> View:
        """Read the scope, and set a watch on it."""
        reader.sync()
        if self.watched_record is not None:
            path = paths.record(self.watched_record)
            if reader.ask(lambda client: client.exists_async(path, self.wake)) is not None:
                return self.view
            self.watched_record = None
        records, listing = reader.records_in(self.scope, self.wake, self._records, self._listing)
        self._records, self._listing = records, listing
        found = by_arrival(records.values())
        return self.view if found == self.view.records else View(found, listing.revision)


class ZooKeeperWatchThread:
    """The thread that follows the watches of one ledger. It calls ``on_change`` when a view has
    changed.
    """

    def __init__(
        self, kazoo: Callable[[], KazooSession], paths: ZnodePaths, on_change: Callable[[], None]
    ) -> None:
        self._kazoo = kazoo
        self._paths = paths
        self._on_change = on_change
        self._changed = threading.Condition()
        """Guards the attributes below. Notified when a watch is stale."""
        self._open: list[_WatchState] = []
        self._closing = False
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None

    def add(self, scope: str, since: View) -> ZooKeeperWatch:
        """Watch ``scope``. ``since`` is its latest known state."""
        single = not scope.endswith("/") and len(since.records) == 1
        watched_record = (
            since.records[0] if single and not _has_granted_lease(since.records[0]) else None
        )
        watch = _WatchState(scope, since, watched_record, self._wake)
        with self._changed:
            self._open.append(watch)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="llutil-watch", daemon=True)
                self._thread.start()
            self._changed.notify()
        return ZooKeeperWatch(self, watch)

    def view(self, watch: _WatchState) -> View:
        """The latest state that ``watch`` knows.

        :raises LedgerRefused: ZooKeeper refuses this watch.
        """
        self._kazoo().check()
        if watch.error is not None:
            raise type(watch.error)(str(watch.error))
        return watch.view

    def remove(self, watch: _WatchState) -> None:
        """Stop this watch. In a forked child this does nothing, because the watch belongs to the
        parent.
        """
        if self._pid != os.getpid():
            return
        with self._changed:
            if watch in self._open:
                self._open.remove(watch)

    def close(self, *, deadline: float) -> None:
        """Wait for the thread's end. The ZooKeeper session must be closed before; that ends the
        thread's waits.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None and threading.current_thread() is not self._thread:
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def _next(self) -> _WatchState | None:
        """Wait for a watch that is stale; None when the thread should end."""
        with self._changed:
            while not self._closing:
                for watch in self._open:
                    if watch.stale:
                        return watch
                if not self._changed.wait(_REREAD_PERIOD):
                    for watch in self._open:
                        watch.stale = True
        return None

    def _run(self) -> None:
        try:
            while (watch := self._next()) is not None:
                self._read_again(watch)
        except LedgerClosed:
            return
        except Exception as error:  # noqa: BLE001 - the thread's edge: the watches must raise
            _log.exception("the watches under %r have ended", self._paths.namespace.path)
            with self._changed:
                watches, self._open = self._open, []
                self._thread = None  # the next watch starts a new thread
            why = f"the watch thread of this process failed: {type(error).__name__}: {error}"
            for watch in watches:
                watch.error = LedgerRefused(f"watch {watch.scope!r}: {why}")
            self._on_change()

    def _read_again(self, watch: _WatchState) -> None:
        deadline = time.monotonic() + _READ_TIMEOUT
        kazoo = self._kazoo()
        reader = ZnodeReader(kazoo, self._paths, deadline)
        # This read sees what has happened until now. A later change sets ``stale`` again.
        watch.stale = False
        try:
            view = kazoo.retry(
                f"watch {watch.scope!r}",
                lambda _: watch.read(reader, self._paths),
                deadline=deadline,
            )
        except LedgerUnavailable as error:
            _log.debug("the watch on %r waits: %s", watch.scope, error)
            watch.stale = True
            with self._changed:
                self._changed.wait(_RETRY_PAUSE)
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


def _has_granted_lease(record: Record) -> bool:
    return record.lease.startswith("lease-")


class ZooKeeperWatch:
    """``llutil.ledgers.Watch`` on ZooKeeper. Made by ``ZooKeeperLedger.watch``."""

    def __init__(self, thread: ZooKeeperWatchThread, state: _WatchState) -> None:
        self._thread = thread
        self._state = state

    def view(self) -> View:
        """The latest known state. :raises LedgerRefused: ZooKeeper refuses this watch."""
        return self._thread.view(self._state)

    def close(self) -> None:
        """Stop watching."""
        self._thread.remove(self._state)
