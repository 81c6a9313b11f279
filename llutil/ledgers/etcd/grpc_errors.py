"""What a failed gRPC call means, and what to do about it. gRPC's errors do not leave this folder.

``diagnose`` turns a status into a ``GrpcDiagnosis``: a remedy, and a sentence for people. It is a
pure function. Codes and texts are those of etcd 3.4 and 3.5 (``rpctypes/error.go``). Errors below
etcd have the texts that gRPC 1.85 was seen to give: when a handshake fails, only its text tells the
cause.

This module may import grpc, and nothing of ``llutil``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

import grpc

__all__ = ["GrpcDiagnosis", "Remedy", "diagnose"]


class Remedy(Enum):
    """What to do after a failed attempt.

    * RETRY: try again, on the next endpoint if there is one. The attempt may have been applied.
    * NEW_TOKEN: the token is not valid. Get a new one and try again.
    * SUSPECT: the configuration looks wrong. Try again; it is wrong if every endpoint says so
      repeatedly.
    * GIVE_UP: a retry cannot help.
    * LEASE_MISSING: the lease in the request is over.
    * LEASE_EXISTS: the lease to be granted exists already.
    """

    RETRY = auto()
    NEW_TOKEN = auto()
    SUSPECT = auto()
    GIVE_UP = auto()
    LEASE_MISSING = auto()
    LEASE_EXISTS = auto()


@dataclass(frozen=True, slots=True)
class GrpcDiagnosis:
    """What to do after a failed attempt, and the text for people."""

    remedy: Remedy
    text: str


# A part of gRPC's text, and what it means. The first part that is found counts.
_CONNECTION_TEXTS = (
    (
        "Hostname Verification Check failed",
        "its certificate is for another host; if that is intended, set 'server_name' to a name "
        "in it",
    ),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate was not signed by the CA in 'cacert'"),
    (
        "_ALERT_",
        "it refuses our side of the TLS handshake: it wants a client certificate ('cert' and "
        "'key') that its own CA signed",
    ),
    (
        # TLS 1.3 refuses a client after the handshake, as etcd 3.4 of Debian does.
        "TSI_DATA_CORRUPTED",
        "it ends the TLS connection after the handshake: it wants a client certificate ('cert' and "
        "'key') that its own CA signed",
    ),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS; leave out 'cacert', or correct the port"),
    ("Failed parsing HTTP/2", "what listens there is not an etcd; correct the host and port"),
    ("http1.x server", "what listens there is not an etcd; correct the host and port"),
)
_CLOSED_TEXTS = (
    (
        "Handshake read failed",
        "it closed the connection during the TLS handshake; if it speaks plain text, leave out "
        "'cacert'",
    ),
    ("Socket closed", "it closed the connection; if it speaks TLS, give 'cacert'"),
)
_OLD_TOKEN = (
    # The token expired, or etcd was restarted.
    "invalid auth token",
    # Permissions of some user have changed since the token was issued.
    "revision of auth store is old",
    # The same, for a signed token. etcd 3.5.1 gives it the status UNKNOWN.
    "revision in header is old",
)
_CREDENTIALS_WANTED = "etcd wants a user and a password; give 'user' and 'password'"


def _find_meaning(details: str, table: tuple[tuple[str, str], ...]) -> str | None:
    return next((meaning for part, meaning in table if part in details), None)


def _unavailable(details: str) -> GrpcDiagnosis:
    """The diagnosis of UNAVAILABLE: nothing answered, or etcd says that it cannot answer now (no
    leader, stopping, internal timeout).
    """
    cause = details.rpartition("last error: ")[2]
    if suspicion := _find_meaning(details, _CONNECTION_TEXTS):
        return GrpcDiagnosis(Remedy.SUSPECT, f"{suspicion} ({cause})")
    hint = _find_meaning(details, _CLOSED_TEXTS)
    return GrpcDiagnosis(Remedy.RETRY, f"{hint} ({cause})" if hint else cause)


def _invalid_argument(details: str, *, user: str) -> GrpcDiagnosis:
    if "user name is empty" in details:
        if user:
            return GrpcDiagnosis(Remedy.NEW_TOKEN, details)
        return GrpcDiagnosis(Remedy.GIVE_UP, f"{_CREDENTIALS_WANTED} ({details})")
    if "authentication failed" in details:
        text = f"etcd does not know the user {user!r} with this password ({details})"
        return GrpcDiagnosis(Remedy.GIVE_UP, text)
    return GrpcDiagnosis(Remedy.GIVE_UP, details)


def diagnose(code: grpc.StatusCode, details: str, *, user: str) -> GrpcDiagnosis:
    """What a status means. ``user`` is the user of the call; empty if there was none."""
    status = grpc.StatusCode
    details = details or f"{code.name}, without a reason"
    if user and any(part in details for part in _OLD_TOKEN):
        return GrpcDiagnosis(Remedy.NEW_TOKEN, details)
    match code:
        case status.UNAVAILABLE:
            return _unavailable(details)
        case status.DEADLINE_EXCEEDED:
            return GrpcDiagnosis(
                Remedy.RETRY, "no answer in time; it is frozen, cut off or overloaded"
            )
        case status.UNAUTHENTICATED if user:
            return GrpcDiagnosis(Remedy.NEW_TOKEN, details)
        case status.UNAUTHENTICATED:
            return GrpcDiagnosis(Remedy.GIVE_UP, f"{_CREDENTIALS_WANTED} ({details})")
        case status.PERMISSION_DENIED:
            who = f"the user {user!r}" if user else "an anonymous client"
            text = f"{who} may not do this; grant read and write on the namespace ({details})"
            return GrpcDiagnosis(Remedy.GIVE_UP, text)
        case status.INVALID_ARGUMENT:
            return _invalid_argument(details, user=user)
        case status.NOT_FOUND if "lease" in details:
            return GrpcDiagnosis(Remedy.LEASE_MISSING, details)
        case status.FAILED_PRECONDITION if "lease already exists" in details:
            return GrpcDiagnosis(Remedy.LEASE_EXISTS, details)
        case status.RESOURCE_EXHAUSTED if "larger than max" in details:
            return GrpcDiagnosis(Remedy.GIVE_UP, details)
        case status.UNIMPLEMENTED:
            text = f"what listens there has no etcd v3 API; correct the host and port ({details})"
            return GrpcDiagnosis(Remedy.SUSPECT, text)
        case (
            status.UNKNOWN
            | status.INTERNAL
            | status.CANCELLED
            | status.ABORTED
            | status.RESOURCE_EXHAUSTED
        ):
            return GrpcDiagnosis(Remedy.RETRY, details)
        case _:
            return GrpcDiagnosis(Remedy.GIVE_UP, f"{code.name}: {details}")
