"""A collector that takes OpenTelemetry's protocol over HTTP, and decodes it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from waiting import until


class Collector:
    """Takes OTLP over HTTP and decodes it; `statuses` are answered first."""

    def __init__(self) -> None:
        self.url = ""
        self.spans: list[Span] = []
        self.resources: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.statuses: list[int] = []
        self.bodies: list[bytes] = []

    def take(self, body: bytes, headers: dict[str, str]) -> int:
        self.headers.append(headers)
        self.bodies.append(body)
        if self.statuses:
            return self.statuses.pop(0)
        sent = ExportTraceServiceRequest.FromString(body)
        for resource in sent.resource_spans:
            self.resources.append(facts(resource.resource.attributes))
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return 200

    def named(self, name: str) -> list[Span]:
        return [span for span in list(self.spans) if span.name == name]

    def of(self, answer_id: str) -> list[Span]:
        """Return the spans of an answer, once its own has come."""
        own = until(
            lambda: next(
                (
                    s
                    for s in list(self.spans)
                    if facts(s.attributes).get("slipway.answer.id") == answer_id
                ),
                None,
            )
        )
        assert own is not None
        return [own, *(s for s in self.spans if s.parent_span_id == own.span_id)]


def facts(attributes: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in attributes}


@contextmanager
def collecting() -> Iterator[Collector]:
    taker = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/v1/traces"
            status = taker.take(body, {k.lower(): v for k, v in self.headers.items()})
            self.send_response(status)
            self.send_header("Content-Length", "0")
            if status == 429:
                self.send_header("Retry-After", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    taker.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield taker
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
