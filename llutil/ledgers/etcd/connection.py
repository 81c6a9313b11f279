"""The connection to an etcd: a channel to one of its endpoints, a token, and calls with retries.

Everything but the watch stream reaches etcd through ``Connection.call``. It retries until its
deadline. Each attempt has a short time limit of its own, so a frozen server costs a second and not
the whole time. After a failed attempt, the next endpoint is used. One channel is open at a time:
when one call finds that it fails, all calls move to the next endpoint. (gRPC can choose among
endpoints itself. But then it stays with a frozen one until its keep-alive gives up, and it takes
one host name only.)

A request may be applied twice, because a failed attempt may have been applied. All our writes are
conditional transactions. So a second attempt reads what is there and changes nothing.

This module starts no thread. It may import grpc, tenacity, ``llutil.ledgers`` and this folder.
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

from llutil.backends.endpoints import Endpoint
from llutil.ledgers.credentials import TlsContents, TlsReader, warn_of_plain_text
from llutil.ledgers.errors import LedgerError, LedgerRefused, LedgerUnavailable
from llutil.ledgers.etcd.channel import Channel, open_channel
from llutil.ledgers.etcd.config import EtcdConfig
from llutil.ledgers.etcd.etcd3_import import etcdrpc
from llutil.ledgers.etcd.grpc_errors import GrpcDiagnosis, Remedy, diagnose
from llutil.ledgers.process_owned import ProcessOwned

__all__ = ["Answer", "Connection", "LeaseExists", "LeaseMissing"]

_log = logging.getLogger(__name__)

_LATE = grpc.StatusCode.DEADLINE_EXCEEDED
_ATTEMPT_TIMEOUT = (1.0, 4.0)
"""Seconds that an attempt may take: first value and maximum. It doubles each time that all
endpoints were too slow.
"""
_LOGIN_TIMEOUT = 10.0
"""Seconds for a login. etcd hashes passwords slowly on purpose, and many nodes may log in at once.
"""
_PAUSE = (0.05, 0.5)
"""Seconds between attempts: first value and maximum. The real pause is a random part of it."""
_SUSPICIONS_NEEDED = 3
"""A configuration counts as wrong once every endpoint has failed this many times in a row with
``Remedy.SUSPECT``, and none has ever answered: later, somebody may be rotating certificates.
"""


class LeaseMissing(LedgerError):
    """etcd says that the lease in the request is over. Used in this folder only."""


class LeaseExists(LedgerError):
    """etcd says that the lease to be granted exists already. Used in this folder only."""


@dataclass(frozen=True, slots=True)
class Answer:
    """``reply`` is etcd's message. ``sent`` is ``time.monotonic()`` when the successful attempt was
    sent. ``maybe_applied`` says that an earlier attempt of the same call may have been applied.
    """

    reply: Any
    sent: float
    maybe_applied: bool


class _AttemptFailed(Exception):
    """One attempt failed; another attempt may succeed."""


@dataclass(slots=True)
class _FailedAttempts:
    """The failed attempts of one call: how many, and the last error of each endpoint."""

    endpoints: int
    worked: bool
    """Whether an endpoint has answered before."""
    count: int = 0
    slow: int = 0
    suspicions: int = 0
    last: dict[Endpoint, str] = field(default_factory=dict)

    def add(self, endpoint: Endpoint, diagnosis: GrpcDiagnosis, *, slow: bool, cut: bool) -> None:
        """``slow``: it took all the time of an attempt. ``cut``: the call's deadline came before
        that. Then what the endpoint said before tells more.
        """
        self.count += 1
        self.slow += slow
        self.suspicions = self.suspicions + 1 if diagnosis.remedy is Remedy.SUSPECT else 0
        if not cut or endpoint not in self.last:
            self.last[endpoint] = diagnosis.text

    @property
    def is_certain(self) -> bool:
        return not self.worked and self.suspicions >= _SUSPICIONS_NEEDED * self.endpoints

    @property
    def time_limit(self) -> float:
        first, most = _ATTEMPT_TIMEOUT
        return min(most, first * 2.0 ** (self.slow // self.endpoints))

    def __str__(self) -> str:
        return "; ".join(f"{endpoint}: {text}" for endpoint, text in self.last.items())


class Connection(ProcessOwned):
    """Calls to the etcd of ``config``, from any thread of the process that made it. It connects at
    the first call.

    :raises ConfigError: the TLS files cannot be used.
    """

    def __init__(self, config: EtcdConfig) -> None:
        super().__init__(config)
        self.config = config
        self._tls = TlsReader(config)
        warn_of_plain_text(config, "etcd")
        self._worked = False
        """Whether an endpoint has answered."""
        self._lock = threading.Lock()
        """Guards the four attributes below. Never held during a call; never taken in a forked
        child.
        """
        self._endpoint_index = 0
        self._channel: Channel | None = None
        self._channel_tls: TlsContents | None = None
        self._token: str | None = None if config.user else ""

    def close(self) -> bool:
        """Close the channel; calls in progress fail. In a forked child this does nothing, because
        the channel belongs to the parent, and returns False.
        """
        if self.inherited:
            return False
        with self._lock:
            self.closing.set()
            channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
        return True

    def channel(self) -> Channel:
        """The channel in use; opened if there is none. :raises LedgerClosed: as ``check``."""
        self.check()
        with self._lock:
            if self.closing.is_set():
                self.check()
            if self._channel is None:
                endpoints = self.config.endpoints
                endpoint = endpoints[self._endpoint_index % len(endpoints)]
                tls = self._channel_tls = self._tls.contents
                self._channel = open_channel(endpoint, tls, self.config.server_name)
            return self._channel

    def use_next_endpoint(self, channel: Channel) -> None:
        """Close ``channel`` and use the next endpoint. Does nothing if another thread has replaced
        the channel already, or if there is only one endpoint: gRPC connects to it again by itself.
        But gRPC cannot use other TLS files then, so if these have changed, the channel is replaced.
        """
        self._tls.renew()
        with self._lock:
            same = len(self.config.endpoints) == 1 and self._channel_tls is self._tls.contents
            if self._channel is not channel or same:
                return
            self._endpoint_index += 1
            self._channel = None
        channel.close()  # calls that wait on it fail now, and retry on the next endpoint

    def metadata(self, channel: Channel, *, deadline: float) -> tuple[tuple[str, str], ...]:
        """The metadata of every call: the token, if there is one, and ``hasleader``. With that,
        etcd answers at once if it has no leader.

        :raises grpc.RpcError: there is no token yet, and etcd did not give one.
        """
        token = self._token
        if token is None:
            token = self._login(channel, deadline)
        leader = ("hasleader", "true")
        return (leader, ("token", token)) if token else (leader,)

    def _login(self, channel: Channel, deadline: float) -> str:
        time_limit = min(_LOGIN_TIMEOUT, max(0.0, deadline - time.monotonic()))
        try:
            token = str(channel.auth.Authenticate(self._login_request(), timeout=time_limit).token)
        except grpc.RpcError as error:
            error.__traceback__ = None  # grpc's frames have the request, and with it the password
            if "authentication is not enabled" not in (error.details() or ""):
                raise
            _log.info("%s has authentication disabled; the given user is not used", self.config)
            token = ""  # as etcd's own clients do
        with self._lock:
            self._token = token
        return token

    def _login_request(self) -> Any:
        return etcdrpc.AuthenticateRequest(name=self.config.user, password=self.config.password)

    def forget_token(self) -> None:
        """Drop the token, because it is no longer valid. The next call gets a new one."""
        with self._lock:
            self._token = None if self.config.user else ""

    def diagnose(self, error: grpc.RpcError) -> GrpcDiagnosis:
        """What the error of a failed call or stream means."""
        return diagnose(error.code(), error.details() or "", user=self.config.user)

    def call(
        self, what: str, method: Callable[[Channel], Any], request: Any, *, deadline: float
    ) -> Answer:
        """Call ``method`` of the channel in use until there is an answer. ``what`` names the action
        in errors.

        :raises LedgerUnavailable: there was no answer by ``deadline``; the request may have been
            applied.
        :raises LedgerRefused: a retry cannot help.
        :raises LeaseMissing, LeaseExists: etcd says so of the lease in the request.
        """
        self.check()
        began = time.monotonic()
        if began >= deadline:
            raise LedgerUnavailable(f"{what}: the deadline had passed; nothing was sent")
        attempts = _FailedAttempts(len(self.config.endpoints), self._worked)
        first, most = _PAUSE
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(
                lambda error: isinstance(error, _AttemptFailed) and not attempts.is_certain
            ),
            wait=tenacity.wait_random_exponential(multiplier=first, max=most),
            stop=lambda state: time.monotonic() + state.upcoming_sleep >= deadline,
            sleep=tenacity.sleep_using_event(self.closing),
            reraise=True,
        )
        try:
            return retrying(self._attempt, what, method, request, attempts, deadline)
        except _AttemptFailed as error:
            if attempts.is_certain:
                raise LedgerRefused(f"{what}: {attempts}") from error.__cause__
            waited = time.monotonic() - began
            raise LedgerUnavailable(
                f"{what}: no usable answer in {waited:.1f} s and {attempts.count} attempts; "
                f"{attempts}"
            ) from error.__cause__

    def _attempt(
        self,
        what: str,
        method: Callable[[Channel], Any],
        request: Any,
        attempts: _FailedAttempts,
        deadline: float,
    ) -> Answer:
        channel = self.channel()
        began = time.monotonic()
        try:
            metadata = self.metadata(channel, deadline=deadline)
            sent = time.monotonic()
            time_limit = min(attempts.time_limit, deadline - sent)
            reply = method(channel)(request, timeout=time_limit, metadata=metadata)
            self._worked = True
            return Answer(reply, sent, maybe_applied=attempts.count > 0)
        except grpc.RpcError as error:
            cause: Exception = error
            diagnosis, late = self.diagnose(error), error.code() is _LATE
        except ValueError as error:
            # "Cannot invoke RPC on closed channel!": another thread has changed endpoints.
            cause = error
            diagnosis, late = GrpcDiagnosis(Remedy.RETRY, str(error)), False
        match diagnosis.remedy:
            case Remedy.GIVE_UP:
                raise LedgerRefused(f"{what}: {channel.endpoint}: {diagnosis.text}") from cause
            case Remedy.LEASE_MISSING:
                raise LeaseMissing(f"{what}: {diagnosis.text}") from cause
            case Remedy.LEASE_EXISTS:
                raise LeaseExists(f"{what}: {diagnosis.text}") from cause
            case Remedy.NEW_TOKEN:
                self.forget_token()
            case Remedy.RETRY | Remedy.SUSPECT:
                self.use_next_endpoint(channel)
        limit, ended = attempts.time_limit, time.monotonic()
        slow = ended - began >= limit
        # One that had its time ends before the deadline, unless this process was stopped.
        cut = late and (deadline - began < limit or ended >= deadline)
        attempts.add(channel.endpoint, diagnosis, slow=slow, cut=cut)
        raise _AttemptFailed from cause
