"""One gRPC channel to one endpoint of an etcd, with etcd3's stubs on it, and gRPC's options for it.

This module starts no thread and connects to nothing before the first call. It imports grpc.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from llutil.ledgers.credentials import TlsContents
from llutil.ledgers.endpoints import Endpoint
from llutil.ledgers.etcd.etcd3_import import etcdrpc

__all__ = ["Channel", "open_line"]

_OPTIONS = (
    # Notice a dead connection that carries only a watch: ask after 10 s of silence (etcd takes less
    # than 5 s for abuse), give up 3 s later. gRPC 1.85 waits 60 s for the answer unless the third
    # is set too.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),
    # Go on asking, however long nothing else is sent; else gRPC asks once a minute after the second
    # time.
    ("grpc.http2.max_pings_without_data", 0),
    # Back within half a second of a server's restart. The last is also gRPC's limit for connecting,
    # TLS handshake included: as small as the others, it cuts off a server that is merely far away
    # or busy.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", -1),
    # A closed channel closes its socket, also if another channel of the process leads to the same
    # place.
    ("grpc.use_local_subchannel_pool", 1),
    # etcd is near; a proxy that the environment names for the Internet does not lead to it.
    ("grpc.enable_http_proxy", 0),
)


class Channel:
    """One channel to one endpoint, and the stubs on it."""

    def __init__(self, endpoint: Endpoint, channel: Any) -> None:
        self.endpoint = endpoint
        self.kv = etcdrpc.KVStub(channel)
        self.lease = etcdrpc.LeaseStub(channel)
        self.auth = etcdrpc.AuthStub(channel)
        self.watch = etcdrpc.WatchStub(channel)
        # etcd answers each message of its keep-alive stream with one of its own. We send one and
        # close our side, which makes it a call like all others; a stream would need threads, and a
        # deadline of its own.
        self.renew = channel.unary_unary(
            "/etcdserverpb.Lease/LeaseKeepAlive",
            request_serializer=etcdrpc.LeaseKeepAliveRequest.SerializeToString,
            response_deserializer=etcdrpc.LeaseKeepAliveResponse.FromString,
        )
        self.close: Callable[[], None] = channel.close


def open_line(endpoint: Endpoint, tls: TlsContents | None, server_name: str) -> Channel:
    """A line to ``endpoint``: TLS if there is ``tls``, for the name ``server_name`` unless that is
    empty.
    """
    match endpoint.ip_version:
        case None:
            target = f"dns:///{endpoint}"
        case version:
            target = f"ipv{version}:{endpoint}"
    if tls is None:
        return Channel(endpoint, grpc.insecure_channel(target, options=_OPTIONS))
    named = (("grpc.ssl_target_name_override", server_name),) if server_name else ()
    credentials = grpc.ssl_channel_credentials(tls.cacert, tls.key, tls.cert)
    return Channel(endpoint, grpc.secure_channel(target, credentials, options=(*_OPTIONS, *named)))
