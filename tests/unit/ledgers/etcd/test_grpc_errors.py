"""What a gRPC status means. The texts are those that etcd 3.5 and gRPC 1.85 gave."""

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
    ("code", "details", "remedy", "expected"),
    [
        ("UNAVAILABLE", _ALL + "UNKNOWN: x: Connection refused", "RETRY", "UNKNOWN: x: Connection"),
        ("UNAVAILABLE", "etcdserver: no leader", "RETRY", "no leader"),
        ("UNAVAILABLE", "etcdserver: request timed out", "RETRY", "timed out"),
        ("UNAVAILABLE", _ALL + "UNAVAILABLE: x: Socket closed", "RETRY", "give 'cacert'"),
        ("UNAVAILABLE", _ALL + "x: Handshake read failed (Socket closed)", "RETRY", "leave out"),
        ("UNAVAILABLE", _ALL + "Hostname Verification Check failed.", "SUSPECT", "server_name"),
        ("UNAVAILABLE", _ALL + _SSL + "CERTIFICATE_VERIFY_FAILED: x", "SUSPECT", "CA in 'cacert'"),
        ("UNAVAILABLE", _ALL + _SSL + "SSLV3_ALERT_BAD_CERTIFICATE", "SUSPECT", "'cert' and 'key'"),
        ("UNAVAILABLE", _ALL + "Unwrap failed (TSI_DATA_CORRUPTED)", "SUSPECT", "'cert' and 'key'"),
        ("UNAVAILABLE", _ALL + _SSL + "WRONG_VERSION_NUMBER", "SUSPECT", "does not speak TLS"),
        ("UNAVAILABLE", _ALL + "x: Failed parsing HTTP/2 (Expected", "SUSPECT", "not an etcd"),
        ("UNIMPLEMENTED", "Method not found!", "SUSPECT", "no etcd v3 API"),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", "RETRY", "frozen, cut off or overloaded"),
        ("UNKNOWN", "context deadline exceeded", "RETRY", "context deadline exceeded"),
        ("INTERNAL", "stream reset", "RETRY", "stream reset"),
        ("CANCELLED", "Channel closed!", "RETRY", "Channel closed!"),
        ("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded", "RETRY", "space"),
        ("RESOURCE_EXHAUSTED", "trying to send message larger than max", "GIVE_UP", "larger"),
        ("UNAUTHENTICATED", "etcdserver: invalid auth token", "NEW_TOKEN", "invalid auth token"),
        ("INVALID_ARGUMENT", "etcdserver: revision of auth store is old", "NEW_TOKEN", "old"),
        ("UNKNOWN", "auth: revision in header is old", "NEW_TOKEN", "old"),
        ("INVALID_ARGUMENT", "etcdserver: user name is empty", "NEW_TOKEN", "empty"),
        (
            "INVALID_ARGUMENT",
            "etcdserver: authentication failed, invalid user ID or password",
            "GIVE_UP",
            "does not know the user 'ann'",
        ),
        ("INVALID_ARGUMENT", "etcdserver: request is too large", "GIVE_UP", "too large"),
        ("PERMISSION_DENIED", "etcdserver: permission denied", "GIVE_UP", "the user 'ann' may not"),
        ("NOT_FOUND", "etcdserver: requested lease not found", "LEASE_MISSING", "lease not found"),
        (
            "FAILED_PRECONDITION",
            "etcdserver: lease already exists",
            "LEASE_EXISTS",
            "already exists",
        ),
        ("OUT_OF_RANGE", "etcdserver: too large lease TTL", "GIVE_UP", "OUT_OF_RANGE: etcdserver"),
        ("DATA_LOSS", "etcdserver: corrupt cluster", "GIVE_UP", "corrupt cluster"),
    ],
)
def test_a_status_has_a_remedy_and_a_sentence(
    code: str, details: str, remedy: str, expected: str
) -> None:
    diagnosis = diagnose(StatusCode[code], details, user="ann")
    assert diagnosis.remedy is Remedy[remedy]
    assert expected in diagnosis.text


@pytest.mark.parametrize(
    ("code", "details"),
    [
        ("UNAUTHENTICATED", "etcdserver: invalid auth token"),
        ("INVALID_ARGUMENT", "etcdserver: user name is empty"),
    ],
)
def test_without_a_user_the_error_asks_for_user_and_password(code: str, details: str) -> None:
    diagnosis = diagnose(StatusCode[code], details, user="")
    assert diagnosis.remedy is Remedy.GIVE_UP
    assert "give 'user' and 'password'" in diagnosis.text


@pytest.mark.parametrize("code", list(StatusCode))
def test_no_status_is_without_a_remedy(code: StatusCode) -> None:
    assert diagnose(code, "", user="").text
