"""What a status of gRPC means. The texts are those that etcd 3.5 and gRPC 1.85 gave."""

from __future__ import annotations

import pytest
from grpc import StatusCode

from llutil.ledgers.etcd.grpc_errors import Remedy, diagnose

_ALL = "failed to connect to all addresses; last error: "
_SSL = (
    "Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1:SSL routines:"
    "OPENSSL_internal:"
)


@pytest.mark.parametrize(
    ("code", "details", "remedy", "told"),
    [
        ("UNAVAILABLE", _ALL + "UNKNOWN: x: Connection refused", "AGAIN", "UNKNOWN: x: Connection"),
        ("UNAVAILABLE", "etcdserver: no leader", "AGAIN", "no leader"),
        ("UNAVAILABLE", "etcdserver: request timed out", "AGAIN", "timed out"),
        ("UNAVAILABLE", _ALL + "UNAVAILABLE: x: Socket closed", "AGAIN", "give 'cacert'"),
        ("UNAVAILABLE", _ALL + "x: Handshake read failed (Socket closed)", "AGAIN", "leave out"),
        ("UNAVAILABLE", _ALL + "Hostname Verification Check failed.", "SUSPECT", "server_name"),
        ("UNAVAILABLE", _ALL + _SSL + "CERTIFICATE_VERIFY_FAILED: x", "SUSPECT", "CA in 'cacert'"),
        ("UNAVAILABLE", _ALL + _SSL + "SSLV3_ALERT_BAD_CERTIFICATE", "SUSPECT", "'cert' and 'key'"),
        ("UNAVAILABLE", _ALL + _SSL + "WRONG_VERSION_NUMBER", "SUSPECT", "does not speak TLS"),
        ("UNAVAILABLE", _ALL + "x: Failed parsing HTTP/2 (Expected", "SUSPECT", "not an etcd"),
        ("UNIMPLEMENTED", "Method not found!", "SUSPECT", "no etcd v3 API"),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", "AGAIN", "frozen, cut off or overloaded"),
        ("UNKNOWN", "context deadline exceeded", "AGAIN", "context deadline exceeded"),
        ("INTERNAL", "stream reset", "AGAIN", "stream reset"),
        ("CANCELLED", "Channel closed!", "AGAIN", "Channel closed!"),
        ("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded", "AGAIN", "space"),
        ("RESOURCE_EXHAUSTED", "trying to send message larger than max", "REFUSED", "larger"),
        ("UNAUTHENTICATED", "etcdserver: invalid auth token", "TOKEN", "invalid auth token"),
        ("INVALID_ARGUMENT", "etcdserver: revision of auth store is old", "TOKEN", "old"),
        ("UNKNOWN", "auth: revision in header is old", "TOKEN", "old"),
        ("INVALID_ARGUMENT", "etcdserver: user name is empty", "TOKEN", "empty"),
        (
            "INVALID_ARGUMENT",
            "etcdserver: authentication failed, invalid user ID or password",
            "REFUSED",
            "does not know the user 'ann'",
        ),
        ("INVALID_ARGUMENT", "etcdserver: request is too large", "REFUSED", "too large"),
        ("PERMISSION_DENIED", "etcdserver: permission denied", "REFUSED", "the user 'ann' may not"),
        ("NOT_FOUND", "etcdserver: requested lease not found", "MISSING", "lease not found"),
        ("FAILED_PRECONDITION", "etcdserver: lease already exists", "PRESENT", "already exists"),
        ("OUT_OF_RANGE", "etcdserver: too large lease TTL", "REFUSED", "OUT_OF_RANGE: etcdserver"),
        ("DATA_LOSS", "etcdserver: corrupt cluster", "REFUSED", "corrupt cluster"),
    ],
)
def test_a_status_has_a_remedy_and_a_sentence(
    code: str, details: str, remedy: str, told: str
) -> None:
    diagnosis = diagnose(StatusCode[code], details, user="ann")
    assert diagnosis.remedy is Remedy[remedy]
    assert told in diagnosis.text


@pytest.mark.parametrize(
    ("code", "details"),
    [
        ("UNAUTHENTICATED", "etcdserver: invalid auth token"),
        ("INVALID_ARGUMENT", "etcdserver: user name is empty"),
    ],
)
def test_who_gave_no_password_is_told_to(code: str, details: str) -> None:
    diagnosis = diagnose(StatusCode[code], details, user="")
    assert diagnosis.remedy is Remedy.REFUSED
    assert "give 'user' and 'password'" in diagnosis.text


@pytest.mark.parametrize("code", list(StatusCode))
def test_no_status_is_without_a_remedy(code: StatusCode) -> None:
    assert diagnose(code, "", user="").text
