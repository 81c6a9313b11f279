"""One gRPC channel to one endpoint of an etcd, with etcd3's stubs and our gRPC options.

This module starts no thread, and connects only at the first call. It imports grpc.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from llutil.backends.endpoints import Endpoint
from llutil.ledgers.credentials import TlsContents
from llutil.ledgers.etcd.etcd3_import import etcdrpc

__all__ = ["Channel", "open_channel"]

_OPTIONS = (
    # These three notice a dead connection that carries only a watch. gRPC pings after 10 s of
    # silence, and gives up 3 s later. etcd treats pings more often than every 5 s as abuse. Without
    # the third option gRPC 1.85 waits 60 s for the answer.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),
    # gRPC keeps that interval even if nothing else is sent. With its default, it pings only once a
    # minute after the second ping.
    ("grpc.http2.max_pings_without_data", 0),
    # The channel reconnects within half a second of a server's restart. The third option is also
    # gRPC's time limit for a connection attempt, including the TLS handshake. So it must be longer,
    # or a server that is far away or busy is never reached.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", -1),
    # A closed channel closes its socket, even if another channel here has the same target.
    ("grpc.use_local_subchannel_pool", 1),
    # etcd is in the local network. An HTTP proxy in the environment is for the Internet.
    ("grpc.enable_http_proxy", 0),
)


class Channel:
    """One gRPC channel to one endpoint, and the stubs on it."""

    def __init__(self, endpoint: Endpoint, grpc_channel: Any) -> None:
        self.endpoint = endpoint
        self.kv = etcdrpc.KVStub(grpc_channel)
        self.lease = etcdrpc.LeaseStub(grpc_channel)
        self.auth = etcdrpc.AuthStub(grpc_channel)
        self.watch = etcdrpc.WatchStub(grpc_channel)
        # etcd's keep-alive method is a stream: each message gets one answer. We send one message
        # and close our side, so it is a call like all others. An open stream would need a thread
        # and its own deadline.
        self.renew = grpc_channel.unary_unary(
            "/etcdserverpb.Lease/LeaseKeepAlive",
            request_serializer=etcdrpc.LeaseKeepAliveRequest.SerializeToString,
            response_deserializer=etcdrpc.LeaseKeepAliveResponse.FromString,
        )
        self.close: Callable[[], None] = grpc_channel.close


def open_channel(endpoint: Endpoint, tls: TlsContents | None, server_name: str) -> Channel:
    """A channel to ``endpoint``, with TLS if ``tls`` is given. ``server_name`` is the name in the
    server's certificate; empty if it is the endpoint's host.
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
