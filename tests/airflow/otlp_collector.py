"""A collector of OpenTelemetry: it takes what Airflow exports over HTTP, and keeps it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

__all__ = ["Collector", "collector"]


class Collector:
    """What has come so far: ``metrics`` as (name, tags), and ``spans``."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.metrics: list[tuple[str, dict[str, str]]] = []
        self.spans: list[Any] = []

    @property
    def settings(self) -> dict[str, str]:
        """What has an Airflow export to it, as environment variables."""
        return {
            "AIRFLOW__METRICS__OTEL_ON": "True",
            "AIRFLOW__TRACES__OTEL_ON": "True",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "OTEL_TRACES_EXPORTER": "otlp_proto_http",  # "otlp" is by gRPC
        }

    def take(self, path: str, body: bytes) -> None:
        """Keep what was exported to ``path``."""
        if path.endswith("/metrics"):
            self.metrics += _metrics(ExportMetricsServiceRequest.FromString(body))
        elif path.endswith("/traces"):
            request = ExportTraceServiceRequest.FromString(body)
            self.spans += [
                span
                for resource in request.resource_spans
                for scope in resource.scope_spans
                for span in scope.spans
            ]


def _metrics(request: ExportMetricsServiceRequest) -> Iterator[tuple[str, dict[str, str]]]:
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in getattr(metric, metric.WhichOneof("data")).data_points:
                    tags = {one.key: one.value.string_value for one in point.attributes}
                    yield metric.name, tags


@contextmanager
def collector() -> Iterator[Collector]:
    """A running collector, on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.take(self.path, body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Collector(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join(10)
