"""Watches on etcd: all of a ledger's on one stream, read by one thread.

A watch goes on from the revision that it has seen last, however often its stream is lost. Where
etcd has compacted what came after that revision, or turns out to be older than it (its data were
wiped), the scope is read again. A refusal is reported once a fresh token does not help: ``view``
raises it, nothing else does.

The thread is started by the first watch and ends with ``EtcdWatches.close``. Of ours this module
imports ``llutil.ledgers`` and what lies in this folder.
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
from llutil.ledgers.etcd.watch_state import Stream, WatchState
from llutil.ledgers.keys import Namespace
from llutil.ledgers.protocol import View

__all__ = ["EtcdWatch", "EtcdWatches"]

_log = logging.getLogger(__name__)

_PAUSE = (0.05, 0.5)  # seconds before a lost stream is opened again: at first, and at most
_READ = 10.0  # seconds for reading a scope again


class _StreamOver(Exception):
    """The stream is of no more use; open another."""


class EtcdWatches:
    """The watches of one ledger. ``on_change`` is called, in the thread, when a view has
    changed.
    """

    def __init__(
        self, connection: Connection, namespace: Namespace, on_change: Callable[[], None]
    ) -> None:
        self._connection = connection
        self._namespace = namespace
        self._on_change = on_change
        self._lock = threading.Lock()
        """Guards all below, and every ``WatchState`` and ``Stream``. Never held during a call."""
        self._open: set[WatchState] = set()
        self._stream: Stream | None = None
        self._thread: threading.Thread | None = None
        self._pause = 0.0
        """Seconds until the next stream is opened. The thread's own."""

    def add(self, scope: str, since: View) -> EtcdWatch:
        """Watch ``scope`` from ``since`` on."""
        watch = WatchState(scope, since)
        with self._lock:
            self._connection.check()
            self._open.add(watch)
            if self._stream is not None:
                self._stream.ask(watch)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="llutil-watch", daemon=True)
                self._thread.start()
        return EtcdWatch(self, watch)

    def view(self, watch: WatchState) -> View:
        """The latest state that ``watch`` knows."""
        self._connection.check()
        with self._lock:
            if watch.refusal:
                raise LedgerRefused(watch.refusal)
            return watch.latest()

    def remove(self, watch: WatchState) -> None:
        """Stop this watch. In a forked child it does nothing: the watch is the parent's."""
        if self._connection.inherited:
            return
        with self._lock:
            self._open.discard(watch)
            if self._stream is not None and watch.number is not None:
                self._stream.cancel(watch.number)

    def close(self, *, deadline: float) -> None:
        """Wait for the thread's end. The connection, closed before, has ended what it waits for."""
        if self._thread is not None and threading.current_thread() is not self._thread:
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        first, most = _PAUSE
        try:
            while not self._connection.closing.wait(random.uniform(0.0, self._pause)):  # noqa: S311 - no secret
                self._pause = min(most, max(first, 2 * self._pause))
                self._serve()
        except LedgerClosed:
            return
        except Exception as error:  # noqa: BLE001 - the thread's edge: who watches is told, and not left to wait
            _log.exception("the watches on %s have ended", self._connection.config)
            with self._lock:
                watches = list(self._open)
                self._thread = None  # the next watch starts another
            self._fail(watches, f"this side broke down: {type(error).__name__}: {error}")

    def _serve(self) -> None:
        """Follow one stream until it is lost."""
        try:
            self._read_stale()
            line = self._connection.line()
        except LedgerUnavailable as error:
            _log.debug("the watches on %s wait: %s", self._connection.config, error)
            return
        try:
            self._follow(line)
        except _StreamOver:
            return
        except ValueError:  # "Cannot invoke RPC: Channel closed!": somebody else moved on
            return
        except grpc.RpcError as error:
            diagnosis = self._connection.diagnose(error)
            _log.debug("watch stream to %s lost: %s", line.endpoint, diagnosis.text)
            match diagnosis.remedy:
                case Remedy.TOKEN:
                    self._connection.forget_token()
                case Remedy.REFUSED:
                    with self._lock:
                        watches = list(self._open)
                    self._refuse(watches, diagnosis.text)
                case _:
                    self._connection.leave(line)

    def _read_stale(self) -> None:
        """Read again the scopes whose next events etcd no longer has. :raises LedgerUnavailable:
        not now.
        """
        with self._lock:
            stale = [watch for watch in self._open if watch.stale]
        for watch in stale:
            request = messages.read(self._namespace, watch.scope)
            try:
                reply = self._connection.call(
                    f"read {watch.scope!r} again",
                    lambda line: line.kv.Range,
                    request,
                    deadline=time.monotonic() + _READ,
                ).reply
            except LedgerRefused as error:
                self._refuse([watch], str(error))
                continue
            with self._lock:
                watch.reset(
                    messages.to_view(self._namespace, watch.scope, reply.kvs, reply.header.revision)
                )
            self._on_change()

    def _follow(self, line: Channel) -> None:
        deadline = time.monotonic() + _READ
        metadata = self._connection.metadata(line, deadline=deadline)
        stream = Stream(self._namespace)
        with self._lock:
            for watch in self._open:
                stream.ask(watch)
            self._stream = stream
        try:
            call = line.watch.Watch(iter(stream.requests.get, None), metadata=metadata)
            try:
                for reply in call:
                    self._take(stream, reply)
            finally:
                call.cancel()
        finally:
            with self._lock:
                self._stream = None
            stream.requests.put(None)  # ends gRPC's thread that sends the requests

    def _take(self, stream: Stream, reply: Any) -> None:
        """Take in one message. :raises _StreamOver: another stream is needed."""
        changed = False
        ended: WatchState | None = None
        with self._lock:
            if reply.created:
                watch = stream.answered()
                if reply.canceled:
                    ended = watch
                else:
                    self._started(stream, watch, reply)
            elif reply.canceled:
                ended = stream.by_number.pop(reply.watch_id, None)
            elif (watched := stream.by_number.get(reply.watch_id)) in self._open:
                changed = watched.apply(self._namespace, reply.events)
            if ended is not None and ended not in self._open:
                ended = None
        if changed:
            self._on_change()
        if ended is not None:
            self._ended(ended, reply)

    def _started(self, stream: Stream, watch: WatchState, reply: Any) -> None:
        stream.by_number[reply.watch_id] = watch
        watch.number = reply.watch_id
        watch.refused = False
        self._pause = _PAUSE[0]
        if watch not in self._open:
            stream.cancel(reply.watch_id)
        elif reply.header.revision + 1 < watch.next:
            watch.stale = True  # a member that lags, or an etcd that lost its data: reading tells
            raise _StreamOver

    def _ended(self, watch: WatchState, reply: Any) -> None:
        """etcd ended a watch that we did not close."""
        if reply.compact_revision:
            with self._lock:
                watch.stale = True
        elif self._connection.config.user and not watch.refused:
            watch.refused = True  # etcd says the same of an old token as of a missing permission
            self._connection.forget_token()
        else:
            self._refuse([watch], reply.cancel_reason or "no reason given")
            return
        raise _StreamOver

    def _refuse(self, watches: list[WatchState], reason: str) -> None:
        self._fail(watches, f"{self._connection.config} refuses it: {reason}")

    def _fail(self, watches: list[WatchState], why: str) -> None:
        with self._lock:
            for watch in watches:
                self._open.discard(watch)
                watch.refusal = f"watch {watch.scope!r}: {why}"
        self._on_change()


class EtcdWatch:
    """``llutil.ledgers.Watch`` on etcd. Made by ``EtcdLedger.watch``."""

    def __init__(self, owner: EtcdWatches, watched: WatchState) -> None:
        self._owner = owner
        self._watched = watched

    def view(self) -> View:
        """The latest state known. :raises LedgerRefused: etcd refuses this watch."""
        return self._owner.view(self._watched)

    def close(self) -> None:
        """Stop watching."""
        self._owner.remove(self._watched)
