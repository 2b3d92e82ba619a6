"""A collector of OpenTelemetry spans: takes what an exporter posts and keeps it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector:
    """Listens on a free port.

    Attributes:
        spans: What came in, by name.
        endpoint: Its address.
    """

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, str]] = []
        keep = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                for part in ExportTraceServiceRequest.FromString(body).resource_spans:
                    keep.resources.append(
                        {item.key: item.value.string_value for item in part.resource.attributes}
                    )
                    for scope in part.scope_spans:
                        keep.spans.extend(scope.spans)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}/v1/traces"

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Serve for the time of a block."""
        serving = threading.Thread(target=self._server.serve_forever, daemon=True)
        serving.start()
        try:
            yield
        finally:
            self._server.shutdown()
            self._server.server_close()
            serving.join(5.0)

    def of(self, trace: int) -> list[Any]:
        """Return the spans of a trace, in the order of their begin."""
        found = [span for span in self.spans if int.from_bytes(span.trace_id, "big") == trace]
        return sorted(found, key=lambda span: (span.start_time_unix_nano, span.kind))


def attributes(span: Any) -> dict[str, str | int]:
    """Return a span's attributes."""
    return {
        item.key: item.value.int_value if item.value.HasField("int_value") else item.value.string_value
        for item in span.attributes
    }
