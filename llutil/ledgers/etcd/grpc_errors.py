"""What a failed gRPC call means, and what to do about it: the one boundary where gRPC's errors end.

``diagnose`` turns a status into a ``GrpcDiagnosis``: a remedy and a sentence for people. It is a
pure function. The codes and texts are those of etcd 3.4 and 3.5 (``rpctypes/error.go``) and, for
what happens below etcd, those that gRPC 1.85 was seen to give: a handshake that fails has only its
text to tell one cause from another.

This module may import grpc, and nothing of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

import grpc

__all__ = ["GrpcDiagnosis", "Remedy", "diagnose"]


class Remedy(Enum):
    """What a failed attempt calls for.

    AGAIN: try again, on the next endpoint if there is one; the attempt may have been applied.
    TOKEN: our token is not, or no longer, good; get another and try again. SUSPECT: it looks like a
    wrong setting. Try again, and believe it when every endpoint says so repeatedly. REFUSED: the
    same again cannot help. MISSING: the lease that the call names is over. PRESENT: the lease that
    the call wants to make is there already.
    """

    AGAIN = auto()
    TOKEN = auto()
    SUSPECT = auto()
    REFUSED = auto()
    MISSING = auto()
    PRESENT = auto()


@dataclass(frozen=True, slots=True)
class GrpcDiagnosis:
    """What to do about a failed attempt, and what to tell people about it."""

    remedy: Remedy
    text: str


_CONNECTING = (  # part of gRPC's text → what it means; the first that is found counts
    (
        "Hostname Verification Check failed",
        "its certificate is for another host; if that is intended, set 'server_name' to a name in it",
    ),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate was not signed by the CA in 'cacert'"),
    (
        "_ALERT_",
        "it refuses our side of the TLS handshake: it wants a client certificate ('cert' and 'key') that "
        "its own CA signed",
    ),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS; leave out 'cacert', or correct the port"),
    ("Failed parsing HTTP/2", "what listens there is not an etcd; correct the host and port"),
    ("http1.x server", "what listens there is not an etcd; correct the host and port"),
)
_HINTS = (
    (
        "Handshake read failed",
        "it closed the connection during the TLS handshake; if it speaks plain text, leave out 'cacert'",
    ),
    ("Socket closed", "it closed the connection; if it speaks TLS, give 'cacert'"),
)
_OLD = (
    "invalid auth token",  # it ran out, or etcd was restarted
    "revision of auth store is old",  # somebody's permissions changed since it was given out
    "revision in header is old",  # the same, of a signed token; etcd 3.5.1 gives it the status UNKNOWN
)
_LOGIN = "etcd wants a user and a password; give 'user' and 'password'"


def _known(details: str, table: tuple[tuple[str, str], ...]) -> str | None:
    return next((meaning for part, meaning in table if part in details), None)


def _unavailable(details: str) -> GrpcDiagnosis:
    """Nothing answered, or etcd itself says that it cannot now (no leader, stopping, timed out
    inside).
    """
    cause = details.rpartition("last error: ")[2]
    if suspicion := _known(details, _CONNECTING):
        return GrpcDiagnosis(Remedy.SUSPECT, f"{suspicion} ({cause})")
    hint = _known(details, _HINTS)
    return GrpcDiagnosis(Remedy.AGAIN, f"{hint} ({cause})" if hint else cause)


def _argument(details: str, *, user: str) -> GrpcDiagnosis:
    if "user name is empty" in details:
        if user:
            return GrpcDiagnosis(Remedy.TOKEN, details)
        return GrpcDiagnosis(Remedy.REFUSED, f"{_LOGIN} ({details})")
    if "authentication failed" in details:
        text = f"etcd does not know the user {user!r} with this password ({details})"
        return GrpcDiagnosis(Remedy.REFUSED, text)
    return GrpcDiagnosis(Remedy.REFUSED, details)


def diagnose(code: grpc.StatusCode, details: str, *, user: str) -> GrpcDiagnosis:
    """What the status says. ``user`` is whom the call was made as, empty for nobody."""
    status = grpc.StatusCode
    details = details or f"{code.name}, without a reason"
    if user and any(part in details for part in _OLD):
        return GrpcDiagnosis(Remedy.TOKEN, details)
    match code:
        case status.UNAVAILABLE:
            return _unavailable(details)
        case status.DEADLINE_EXCEEDED:
            return GrpcDiagnosis(
                Remedy.AGAIN, "no answer in time; it is frozen, cut off or overloaded"
            )
        case status.UNAUTHENTICATED if user:
            return GrpcDiagnosis(Remedy.TOKEN, details)
        case status.UNAUTHENTICATED:
            return GrpcDiagnosis(Remedy.REFUSED, f"{_LOGIN} ({details})")
        case status.PERMISSION_DENIED:
            who = f"the user {user!r}" if user else "an anonymous client"
            text = f"{who} may not do this; grant read and write on the namespace ({details})"
            return GrpcDiagnosis(Remedy.REFUSED, text)
        case status.INVALID_ARGUMENT:
            return _argument(details, user=user)
        case status.NOT_FOUND if "lease" in details:
            return GrpcDiagnosis(Remedy.MISSING, details)
        case status.FAILED_PRECONDITION if "lease already exists" in details:
            return GrpcDiagnosis(Remedy.PRESENT, details)
        case status.RESOURCE_EXHAUSTED if "larger than max" in details:
            return GrpcDiagnosis(Remedy.REFUSED, details)
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
            return GrpcDiagnosis(Remedy.AGAIN, details)
        case _:
            return GrpcDiagnosis(Remedy.REFUSED, f"{code.name}: {details}")
