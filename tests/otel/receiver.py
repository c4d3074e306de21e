"""A collector on loopback: it takes OTLP over HTTP, decodes it, and keeps what it got, raw and decoded."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gx.otel.collector import Collector, collector_of


class Received:
    """What came to one collector. `statuses` are those of its next answers, `rejects` spans that it won't keep."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.traces: list[ExportTraceServiceRequest] = []
        self.metrics: list[ExportMetricsServiceRequest] = []
        self.statuses: list[int] = []
        self.rejects = 0
        self.hangs = threading.Event()
        self.hangs.set()

    def collector(self, **variables: str) -> Collector:
        found = collector_of({"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, **variables})
        assert found is not None
        return found

    def spans(self) -> list[Span]:
        return [s for one in self.traces for r in one.resource_spans for scope in r.scope_spans for s in scope.spans]

    def last_metrics(self) -> dict[str, Metric]:
        (resource,) = self.metrics[-1].resource_metrics
        return {metric.name: metric for scope in resource.scope_metrics for metric in scope.metrics}

    def take(self, path: str, body: bytes) -> bytes:
        if path.endswith("/v1/traces"):
            self.traces.append(ExportTraceServiceRequest.FromString(body))
            answer = ExportTraceServiceResponse()
            answer.partial_success.rejected_spans = self.rejects
            return answer.SerializeToString()
        assert path.endswith("/v1/metrics")
        self.metrics.append(ExportMetricsServiceRequest.FromString(body))
        return b""


@contextmanager
def receiving() -> Iterator[Received]:
    """A collector, as long as the block lasts."""

    class Takes(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            made.hangs.wait(30)
            made.bodies.append(body)
            made.headers.append({name.lower(): value for name, value in self.headers.items()})
            status = made.statuses.pop(0) if made.statuses else 200
            whole = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
            answer = made.take(self.path, whole) if status == 200 else b"no"
            try:
                self.send_response(status)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
            except OSError:  # it waits no longer
                pass

        def log_message(self, *args: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Takes) as server:
        server.daemon_threads = True
        made = Received(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield made
        finally:
            made.hangs.set()
            server.shutdown()


def told(span: Span) -> dict[str, Any]:
    """A span's attributes as Python has them."""
    return {pair.key: plain(pair.value) for pair in span.attributes}


def plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    found = getattr(value, str(kind))
    return [plain(one) for one in found.values] if kind == "array_value" else found
