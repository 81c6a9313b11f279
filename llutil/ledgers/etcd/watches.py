"""Watches on etcd. All watches of a ledger share one stream, and one thread reads it.

When a stream is lost, a watch continues on the next one, from the revision that it saw last. In two
cases the scope is read again: etcd has compacted the revisions after that one, or etcd is older
than that revision because its data were deleted. When etcd refuses a watch even with a new token,
``view`` raises the refusal; nothing else does.

The first watch starts the thread; ``EtcdWatchThread.close`` waits for its end. This module may
import ``llutil.ledgers`` and this folder.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc

from llutil.ledgers.errors import LedgerClosed, LedgerRefused, LedgerUnavailable
from llutil.ledgers.etcd import messages
from llutil.ledgers.etcd.channel import Channel
from llutil.ledgers.etcd.connection import Connection
from llutil.ledgers.etcd.grpc_errors import Remedy
from llutil.ledgers.etcd.watch_state import WatchState, WatchStream
from llutil.ledgers.keys import Namespace
from llutil.ledgers.protocol import View

__all__ = ["EtcdWatch", "EtcdWatchThread"]

_log = logging.getLogger(__name__)

# Seconds before a lost stream is opened again: first value and maximum.
_PAUSE = (0.05, 0.5)
# Seconds to read a scope again.
_READ_TIMEOUT = 10.0


class _StreamOver(Exception):
    """The stream cannot be used any more. A new one is needed."""


class EtcdWatchThread:
    """The thread that follows the watches of one ledger. It calls ``on_change`` when a view has
    changed.
    """

    def __init__(
        self, connection: Connection, namespace: Namespace, on_change: Callable[[], None]
    ) -> None:
        self._connection = connection
        self._namespace = namespace
        self._on_change = on_change
        self._lock = threading.Lock()
        """Guards the attributes below, and every ``WatchState`` and ``WatchStream``. Never held
        during a call.
        """
        self._open: set[WatchState] = set()
        self._stream: WatchStream | None = None
        self._thread: threading.Thread | None = None
        self._pause = 0.0
        """Seconds until the next stream is opened. Used by the thread only."""

    def add(self, scope: str, since: View) -> EtcdWatch:
        """Watch ``scope`` from ``since`` on."""
        watch = WatchState(scope, since)
        with self._lock:
            self._connection.check()
            self._open.add(watch)
            if self._stream is not None:
                self._stream.request_events(watch)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="llutil-watch", daemon=True)
                self._thread.start()
        return EtcdWatch(self, watch)

    def view(self, watch: WatchState) -> View:
        """The latest state that ``watch`` knows.

        :raises LedgerRefused: etcd refuses this watch.
        """
        self._connection.check()
        with self._lock:
            if watch.refusal:
                raise LedgerRefused(watch.refusal)
            return watch.latest()

    def remove(self, watch: WatchState) -> None:
        """Stop this watch. In a forked child this does nothing, because the watch belongs to the
        parent.
        """
        if self._connection.inherited:
            return
        with self._lock:
            self._open.discard(watch)
            if self._stream is not None and watch.watch_id is not None:
                self._stream.cancel(watch.watch_id)

    def close(self, *, deadline: float) -> None:
        """Wait for the thread's end. The connection must be closed before; that ends the thread's
        waits.
        """
        if self._thread is not None and threading.current_thread() is not self._thread:
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        first, most = _PAUSE
        try:
            closing = self._connection.closing
            while not closing.wait(random.uniform(0.0, self._pause)):  # noqa: S311 - no secret
                self._pause = min(most, max(first, 2 * self._pause))
                self._open_stream()
        except LedgerClosed:
            return
        except Exception as error:  # noqa: BLE001 - the thread's edge: the watches must raise
            _log.exception("the watches on %s have ended", self._connection.config)
            with self._lock:
                watches = list(self._open)
                self._thread = None  # the next watch starts a new thread
            why = f"the watch thread of this process failed: {type(error).__name__}: {error}"
            self._fail(watches, why)

    def _open_stream(self) -> None:
        """Open a stream and read it until it is lost."""
        try:
            self._read_stale()
            channel = self._connection.channel()
        except LedgerUnavailable as error:
            _log.debug("the watches on %s wait: %s", self._connection.config, error)
            return
        try:
            self._read_stream(channel)
        except _StreamOver:
            return
        except ValueError:  # "Cannot invoke RPC: Channel closed!": another thread changed endpoints
            return
        except grpc.RpcError as error:
            diagnosis = self._connection.diagnose(error)
            _log.debug("watch stream to %s lost: %s", channel.endpoint, diagnosis.text)
            match diagnosis.remedy:
                case Remedy.NEW_TOKEN:
                    self._connection.forget_token()
                case Remedy.GIVE_UP:
                    with self._lock:
                        watches = list(self._open)
                    self._refuse(watches, diagnosis.text)
                case _:
                    self._connection.use_next_endpoint(channel)

    def _read_stale(self) -> None:
        """Read the scopes again whose next events etcd no longer has.

        :raises LedgerUnavailable: etcd did not answer; they are still stale.
        """
        with self._lock:
            stale = [watch for watch in self._open if watch.stale]
        for watch in stale:
            request = messages.read(self._namespace, watch.scope)
            try:
                reply = self._connection.call(
                    f"read {watch.scope!r} again",
                    lambda channel: channel.kv.Range,
                    request,
                    deadline=time.monotonic() + _READ_TIMEOUT,
                ).reply
            except LedgerRefused as error:
                self._refuse([watch], str(error))
                continue
            with self._lock:
                watch.reset(
                    messages.to_view(self._namespace, watch.scope, reply.kvs, reply.header.revision)
                )
            self._on_change()

    def _read_stream(self, channel: Channel) -> None:
        deadline = time.monotonic() + _READ_TIMEOUT
        metadata = self._connection.metadata(channel, deadline=deadline)
        stream = WatchStream(self._namespace)
        with self._lock:
            for watch in self._open:
                stream.request_events(watch)
            self._stream = stream
        try:
            call = channel.watch.Watch(iter(stream.requests.get, None), metadata=metadata)
            try:
                for reply in call:
                    self._handle_reply(stream, reply)
            finally:
                call.cancel()
        finally:
            with self._lock:
                self._stream = None
            stream.requests.put(None)  # ends gRPC's thread, which sends the requests

    def _handle_reply(self, stream: WatchStream, reply: Any) -> None:
        """Handle one message of the stream. :raises _StreamOver: another stream is needed."""
        changed = False
        ended: WatchState | None = None
        with self._lock:
            if reply.created:
                watch = stream.next_answered()
                if reply.canceled:
                    ended = watch
                else:
                    self._handle_created(stream, watch, reply)
            elif reply.canceled:
                ended = stream.by_watch_id.pop(reply.watch_id, None)
            elif (watched := stream.by_watch_id.get(reply.watch_id)) in self._open:
                changed = watched.apply(self._namespace, reply.events)
            if ended is not None and ended not in self._open:
                ended = None
        if changed:
            self._on_change()
        if ended is not None:
            self._handle_canceled(ended, reply)

    def _handle_created(self, stream: WatchStream, watch: WatchState, reply: Any) -> None:
        stream.by_watch_id[reply.watch_id] = watch
        watch.watch_id = reply.watch_id
        watch.refused = False
        self._pause = _PAUSE[0]
        if watch not in self._open:
            stream.cancel(reply.watch_id)
        elif reply.header.revision + 1 < watch.next_revision:
            # This member lags behind, or etcd lost its data. A quorum read tells which.
            watch.stale = True
            raise _StreamOver

    def _handle_canceled(self, watch: WatchState, reply: Any) -> None:
        """Handle that etcd ended a watch that we did not close.

        :raises _StreamOver: another stream is needed, to request the watch again.
        """
        if reply.compact_revision:
            with self._lock:
                watch.stale = True
        elif self._connection.config.user and not watch.refused:
            # etcd gives the same answer for an old token and for a missing permission.
            watch.refused = True
            self._connection.forget_token()
        else:
            self._refuse([watch], reply.cancel_reason or "no reason given")
            return
        raise _StreamOver

    def _refuse(self, watches: list[WatchState], reason: str) -> None:
        self._fail(watches, f"{self._connection.config} refuses this watch: {reason}")

    def _fail(self, watches: list[WatchState], why: str) -> None:
        with self._lock:
            for watch in watches:
                self._open.discard(watch)
                watch.refusal = f"watch {watch.scope!r}: {why}"
        self._on_change()


class EtcdWatch:
    """``llutil.ledgers.Watch`` on etcd. Made by ``EtcdLedger.watch``."""

    def __init__(self, thread: EtcdWatchThread, state: WatchState) -> None:
        self._thread = thread
        self._state = state

    def view(self) -> View:
        """The latest known state. :raises LedgerRefused: etcd refuses this watch."""
        return self._thread.view(self._state)

    def close(self) -> None:
        """Stop watching."""
        self._thread.remove(self._state)
