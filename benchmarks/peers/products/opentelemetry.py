"""OpenTelemetry: its distro's command, its instrumentations of Celery, requests, sqlite3 and Redis, spans by OTLP."""

from __future__ import annotations

from benchmarks.peers.product import EVENT, JOB, Product

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from typing import Any

    from benchmarks.peers.sink import Ports, Posted, Seen


class OpenTelemetry(Product):
    """Also what appsignal and logfire send by."""

    name = "opentelemetry"
    title = "OpenTelemetry"
    package = "opentelemetry-sdk"
    environment = "peer-opentelemetry"
    records = True

    def variables(self, ports: Ports, folder: Path) -> dict[str, str]:  # noqa: ARG002
        """Send traces alone."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": ports.url,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_SERVICE_NAME": "bench",
        }

    def command(self, words: list[str], programs: Path) -> list[str]:
        """Run under its command."""
        return [str(programs / "opentelemetry-instrument"), *words]

    def answer(self, path: str) -> bytes:  # noqa: ARG002
        """Return an empty message of protobuf."""
        return b""

    def seen(self, posted: Iterable[Posted], folder: Path) -> Seen:  # noqa: ARG002
        """Count the spans that have the job's name: field 5 of a span is its name."""
        from benchmarks.peers.sink import Seen

        name = b"\x2a%c%s" % (len(JOB), JOB.encode())
        return Seen(sum(sent.body.count(name) for sent in posted if sent.path.endswith("/v1/traces")))

    def job(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Let each call be a span."""
        return self.span(function, JOB)

    def event(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Let each call be a span."""
        return self.span(function, EVENT)

    def span(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Let each call be a span called `name`; the context manager of its tracer is also a decorator."""
        from opentelemetry import trace

        return trace.get_tracer("bench").start_as_current_span(name)(function)


PRODUCT = OpenTelemetry()
