"""``ClientState``: what the server knows of one client, and how it does what the client asks.

It outlives the client's connection, since a client that was cut off comes back: its sessions live
until their leases expire, and it gets the answers that it has missed. Used by the server's thread
only. This module does no I/O.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import is_
from typing import Any

from llutil.errors import ConfigError
from llutil.ledgers.errors import LedgerError, LedgerRefused, SessionLost
from llutil.ledgers.memory import MemoryLedger, MemorySession, MemoryWatch
from llutil.ledgers.memory_store import MemoryStore
from llutil.ledgers.protocol import Created, Exists, SessionState, View
from llutil.ledgers.served import messages
from llutil.ledgers.served.message_bodies import bodies
from llutil.ledgers.served.messages import Change, Creation, Failure, FromServer, Request

__all__ = ["ClientState"]

_log = logging.getLogger(__name__)

_FOREVER = float("inf")


@dataclass
class _Watched:
    """A watch of the client's, and the view that it knows."""

    watch: MemoryWatch
    known: View


class ClientState:
    """One client of ``store``. ``on_change`` is called when ``changes`` may have something new."""

    def __init__(self, store: MemoryStore, namespace: str, on_change: Callable[[], None]) -> None:
        self._ledger = MemoryLedger(store, on_change, namespace=namespace, expires=True)
        self._sessions: dict[str, MemorySession] = {}
        """Those of the client, by lease."""
        self._watches: dict[int, _Watched] = {}
        self._answers: dict[int, tuple[bytes, ...]] = {}
        """Those that the client may ask for again, by the numbers of their requests."""
        self._acknowledged = 0

    def answer(self, request: Request) -> tuple[bytes, ...]:
        """Do what the client asks, unless that was done; the messages of the answer. There are
        none if there is nothing to say, or the client has said that it does not wait for it.
        """
        number = request.number
        if request.acknowledged > self._acknowledged:
            self._acknowledged = request.acknowledged
            for old in [one for one in self._answers if one <= self._acknowledged]:
                del self._answers[old]
        if not number:
            done = self._perform(0, request.call)
            return bodies(done) if any(map(_says_something, done.changes)) else ()
        if number <= self._acknowledged:
            return ()
        if number not in self._answers:
            answer = self._perform(number, request.call)
            self._answers[number] = bodies(answer, _in_words(request.call))
        return self._answers[number]

    def changes(self) -> tuple[Change, ...]:
        """What has changed in the client's watches since this was last asked."""
        return tuple(self._changes())

    def disconnect(self) -> None:
        """The connection is lost. The client names its watches again when it comes back."""
        for number in list(self._watches):
            self._unwatch(number)

    def forget(self) -> None:
        """The client does not come back. Its sessions end with their leases."""
        self.disconnect()
        self._ledger.close(end_sessions=False)

    @property
    def has_session(self) -> bool:
        """Whether one of its sessions lives."""
        return any(map(_lives, self._sessions.values()))

    def _perform(self, number: int, call: messages.Call) -> FromServer:
        try:
            done = self._do(call)
            if isinstance(done, Change):
                return FromServer(number=number, changes=(done,))
            return FromServer(number=number, result=messages.result(done))
        except (LedgerError, ConfigError) as error:
            return FromServer(number=number, failure=Failure(type(error).__name__, str(error)))
        except Exception as error:  # noqa: BLE001 - the edge of the server: others must be served
            _log.exception("the served ledger could not do what a client asked")
            text = f"the server failed: {type(error).__name__}: {error}"
            return FromServer(number=number, failure=Failure(LedgerRefused.__name__, text))

    def _do(self, call: messages.Call) -> Any:
        ledger = self._ledger
        match call:
            case messages.OpenSession(ttl):
                session = ledger.open_session(ttl, deadline=_FOREVER)
                self._sessions = {
                    lease: one for lease, one in self._sessions.items() if _lives(one)
                }
                self._sessions[session.lease] = session
                return session.lease
            case messages.Read(scope):
                return ledger.read(scope, deadline=_FOREVER)
            case messages.Watch(number, scope, known):
                return self._watch(number, scope, known)
            case messages.Unwatch(number):
                return self._unwatch(number)
            case messages.EndLease(lease):
                return ledger.end_lease(lease, deadline=_FOREVER)
            case _:
                if call.session not in self._sessions:
                    raise SessionLost(f"this client has no session {call.session}")
                return self._do_in_session(self._sessions[call.session], call)

    def _do_in_session(self, session: MemorySession, call: messages.SessionCall) -> Any:
        match call:
            case messages.Join(_, folder, name, value, reads):
                return session.join(folder, name, value, reads=reads, deadline=_FOREVER)
            case messages.Create(_, values, guard, lease):
                done = session.create(values, guard=guard, lease=lease, deadline=_FOREVER)
                return Creation(
                    created=done if isinstance(done, Created) else None,
                    exists=done if isinstance(done, Exists) else None,
                )
            case messages.Delete(_, scopes, guard):
                return session.delete(*scopes, guard=guard, deadline=_FOREVER)
            case messages.GrantLease(_, ttl):
                return session.grant_lease(ttl, deadline=_FOREVER)
            case messages.KeepAlive(_, lease):
                session.keep_alive(lease, deadline=_FOREVER)
                return self._ledger.store.leases[lease].ttl
            case messages.Renew():
                session.renew()
                return session.ttl

    def _watch(self, number: int, scope: str, known: dict[str, int]) -> Change:
        self._unwatch(number)
        watch = self._ledger.watch(scope, deadline=_FOREVER)
        view = watch.view()
        self._watches[number] = _Watched(watch, view)
        return _change(number, known, view)

    def _unwatch(self, number: int) -> None:
        if watched := self._watches.pop(number, None):
            watched.watch.close()

    def _changes(self) -> Iterator[Change]:
        for number, watched in self._watches.items():
            view = watched.watch.view()
            if view is not watched.known:
                known, watched.known = watched.known, view
                yield _change_from(known, number, view)


def _in_words(call: messages.Call) -> str:
    """What a call asks for, for people."""
    match call:
        case messages.Read(scope):
            return f"read {scope!r}"
        case messages.Join(_, folder):
            return f"join {folder!r}"
        case _:
            return type(call).__name__.lower()


def _lives(session: MemorySession) -> bool:
    return session.state is SessionState.CONNECTED


def _change(number: int, known: dict[str, int], view: View) -> Change:
    """What somebody who has the ``known`` records lacks of ``view``."""
    put = tuple(record for record in view.records if known.get(record.key) != record.created)
    present = {record.key for record in view.records}
    gone = tuple(key for key in known if key not in present)
    return Change(number, view.revision, put, gone, whole=not known)


def _change_from(known: View, number: int, view: View) -> Change:
    """What somebody who has ``known`` lacks of ``view``. A thousand records that were there before
    cost no step each: both views have the same objects, and the new ones are the last.
    """
    old, new = known.records, view.records
    if len(old) <= len(new) and all(map(is_, old, new)):
        return Change(number, view.revision, new[len(old) :], whole=not old)
    return _change(number, {record.key: record.created for record in old}, view)


def _says_something(change: Change) -> bool:
    return bool(change.put or change.gone)
