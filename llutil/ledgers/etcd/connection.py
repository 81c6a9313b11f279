"""The way to an etcd: a line to one of its endpoints, a token, and calls that are tried again.

``Connection.call`` is how everything but the watch stream reaches etcd. It tries until its
deadline: each attempt has a short limit of its own, so that a frozen server costs a second and not
the whole time, and after a failed attempt the next endpoint has its turn. One line is open at a
time; who notices that it fails moves everybody to the next endpoint. (gRPC can choose among
endpoints itself, but then stays with a frozen one until its keep-alive gives up on it, and it
cannot take several names.)

What is called must bear to be done twice: an attempt that failed may have been applied. All our
writes are conditional transactions, so the next attempt reads back what is there and changes
nothing.

This module starts no thread. It imports grpc and tenacity, and of ours what lies in this folder.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import tenacity

from llutil.ledgers.credentials import read_tls
from llutil.ledgers.endpoints import Endpoint
from llutil.ledgers.errors import LedgerError, LedgerRefused, LedgerUnavailable
from llutil.ledgers.etcd.channel import Channel, open_line
from llutil.ledgers.etcd.config import EtcdConfig
from llutil.ledgers.etcd.etcd3_import import etcdrpc
from llutil.ledgers.etcd.grpc_errors import GrpcDiagnosis, Remedy, diagnose
from llutil.ledgers.process_owned import ProcessOwned

__all__ = ["Answer", "Connection", "LeaseMissing", "LeasePresent"]

_log = logging.getLogger(__name__)

_ATTEMPT = (1.0, 4.0)
"""Seconds that an attempt may take: at first, and at most; it doubles when all endpoints were too
slow.
"""
_LOGIN = 10.0
"""Seconds for a login: etcd hashes passwords slowly on purpose, and many nodes may come at once."""
_PAUSE = (0.05, 0.5)
"""Seconds between attempts: at first, and at most; a random part of it."""
_BELIEVED = 3
"""A suspicion is believed once every endpoint has raised it so many times in a row."""


class LeaseMissing(LedgerError):
    """etcd says that the lease which a call names is over. Stays in this folder."""


class LeasePresent(LedgerError):
    """etcd says that the lease which a call wants to make exists. Stays in this folder."""


@dataclass(frozen=True, slots=True)
class Answer:
    """etcd's reply; ``time.monotonic()`` when the attempt that got it was sent; and whether an
    earlier attempt of the same call may have been applied.
    """

    reply: Any
    sent: float
    doubtful: bool


class _AttemptFailed(Exception):
    """One attempt failed in a way that another may not."""


@dataclass(slots=True)
class _Tries:
    """The failed attempts of one call."""

    endpoints: int
    count: int = 0
    slow: int = 0
    suspicious: int = 0
    last: dict[Endpoint, str] = field(default_factory=dict)

    def add(self, endpoint: Endpoint, diagnosis: GrpcDiagnosis, *, slow: bool) -> None:
        self.count += 1
        self.slow += slow
        self.suspicious = self.suspicious + 1 if diagnosis.remedy is Remedy.SUSPECT else 0
        self.last[endpoint] = diagnosis.text

    @property
    def believed(self) -> bool:
        return self.suspicious >= _BELIEVED * self.endpoints

    @property
    def limit(self) -> float:
        first, most = _ATTEMPT
        return min(most, first * 2.0 ** (self.slow // self.endpoints))

    def __str__(self) -> str:
        return "; ".join(f"{endpoint}: {text}" for endpoint, text in self.last.items())


class Connection(ProcessOwned):
    """Calls to the etcd of ``config``, from any thread of the process that made it. Connects when
    first used.

    :raises ConfigError: the TLS files cannot be used.
    """

    def __init__(self, config: EtcdConfig) -> None:
        super().__init__(config)
        self.config = config
        self._tls = read_tls(config)
        self._lock = threading.Lock()
        """Guards the three below. Never held during a call, nor touched in a forked child."""
        self._turn = 0
        self._line: Channel | None = None
        self._token: str | None = None if config.user else ""

    def close(self) -> bool:
        """Close the line; calls in flight fail. False, and nothing done, in a forked child: it is
        the parent's.
        """
        if self.inherited:
            return False
        with self._lock:
            self.closing.set()
            line, self._line = self._line, None
        if line is not None:
            line.close()
        return True

    def line(self) -> Channel:
        """The line in use, opened if there is none. :raises LedgerClosed: as ``check``."""
        self.check()
        with self._lock:
            if self.closing.is_set():
                self.check()
            if self._line is None:
                endpoints = self.config.endpoints
                endpoint = endpoints[self._turn % len(endpoints)]
                self._line = open_line(endpoint, self._tls, self.config.server_name)
            return self._line

    def leave(self, line: Channel) -> None:
        """Move to the next endpoint, if there is one, unless somebody has done so since."""
        with self._lock:
            if self._line is not line or len(self.config.endpoints) == 1:
                return
            self._turn += 1
            self._line = None
        line.close()  # whoever waits on it fails now, and comes along

    def metadata(self, line: Channel, *, deadline: float) -> tuple[tuple[str, str], ...]:
        """What goes with every call: the token, if any, and the wish to hear at once that there is
        no leader.

        :raises grpc.RpcError: there is no token yet, and etcd did not give one.
        """
        token = self._token
        if token is None:
            token = self._login(line, deadline)
        leader = ("hasleader", "true")
        return (leader, ("token", token)) if token else (leader,)

    def _login(self, line: Channel, deadline: float) -> str:
        request = etcdrpc.AuthenticateRequest(name=self.config.user, password=self.config.password)
        limit = min(_LOGIN, max(0.0, deadline - time.monotonic()))
        try:
            token = str(line.auth.Authenticate(request, timeout=limit).token)
        except grpc.RpcError as error:
            if "authentication is not enabled" not in (error.details() or ""):
                raise
            _log.info("%s asks nobody for a password; the given one is not used", self.config)
            token = ""  # as etcd's own clients do
        with self._lock:
            self._token = token
        return token

    def forget_token(self) -> None:
        """The token is not good any more: the next call gets another."""
        with self._lock:
            self._token = None if self.config.user else ""

    def diagnose(self, error: grpc.RpcError) -> GrpcDiagnosis:
        """What a failed call or stream means."""
        return diagnose(error.code(), error.details() or "", user=self.config.user)

    def call(
        self, what: str, method: Callable[[Channel], Any], request: Any, *, deadline: float
    ) -> Answer:
        """Call ``method`` of the line in use until there is an answer. ``what`` names the act in
        errors.

        :raises LedgerUnavailable: there was none by ``deadline``; the call may have been applied or
            not.
        :raises LedgerRefused: the same again cannot help.
        :raises LeaseMissing, LeasePresent: etcd says so of the lease in the request.
        """
        self.check()
        began = time.monotonic()
        if began >= deadline:
            raise LedgerUnavailable(f"{what}: the deadline had passed; nothing was sent")
        tries = _Tries(len(self.config.endpoints))
        first, most = _PAUSE
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(
                lambda error: isinstance(error, _AttemptFailed) and not tries.believed
            ),
            wait=tenacity.wait_random_exponential(multiplier=first, max=most),
            stop=lambda state: time.monotonic() + state.upcoming_sleep >= deadline,
            sleep=tenacity.sleep_using_event(self.closing),
            reraise=True,
        )
        try:
            return retrying(self._attempt, what, method, request, tries, deadline)
        except _AttemptFailed as failed:
            if tries.believed:
                raise LedgerRefused(f"{what}: {tries}") from failed.__cause__
            raise LedgerUnavailable(
                f"{what}: no usable answer in {time.monotonic() - began:.1f} s and {tries.count} attempts; {tries}"
            ) from failed.__cause__

    def _attempt(
        self,
        what: str,
        method: Callable[[Channel], Any],
        request: Any,
        tries: _Tries,
        deadline: float,
    ) -> Answer:
        line = self.line()
        began = time.monotonic()
        try:
            metadata = self.metadata(line, deadline=deadline)
            sent = time.monotonic()
            limit = min(tries.limit, deadline - sent)
            reply = method(line)(request, timeout=limit, metadata=metadata)
            return Answer(reply, sent, doubtful=tries.count > 0)
        except grpc.RpcError as error:
            cause: Exception = error
            diagnosis = self.diagnose(error)
        except (
            ValueError
        ) as error:  # "Cannot invoke RPC on closed channel!": somebody else moved on
            cause = error
            diagnosis = GrpcDiagnosis(Remedy.AGAIN, str(error))
        match diagnosis.remedy:
            case Remedy.REFUSED:
                raise LedgerRefused(f"{what}: {line.endpoint}: {diagnosis.text}") from cause
            case Remedy.MISSING:
                raise LeaseMissing(f"{what}: {diagnosis.text}") from cause
            case Remedy.PRESENT:
                raise LeasePresent(f"{what}: {diagnosis.text}") from cause
            case Remedy.TOKEN:
                self.forget_token()
            case Remedy.AGAIN | Remedy.SUSPECT:
                self.leave(line)
        slow = time.monotonic() - began >= tries.limit
        tries.add(line.endpoint, diagnosis, slow=slow)
        raise _AttemptFailed from cause
