"""Datadog's ddtrace under ddtrace-run; the sink is its agent, which on a real machine is one more process."""

from __future__ import annotations

from benchmarks.peers.product import EVENT, JOB, Product

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from typing import Any

    from benchmarks.peers.sink import Ports, Posted, Seen


class Ddtrace(Product):
    """With traces alone: what else it sends is switched off."""

    name = "ddtrace"
    title = package = "ddtrace"
    environment = "peer-ddtrace"
    records = True

    def variables(self, ports: Ports, folder: Path) -> dict[str, str]:  # noqa: ARG002
        """Send in the format in which each span has its texts, so that they can be counted."""
        return {
            "DD_TRACE_AGENT_URL": ports.url,
            "DD_TRACE_API_VERSION": "v0.4",
            "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
            "DD_REMOTE_CONFIGURATION_ENABLED": "false",
            "DD_CRASHTRACKING_ENABLED": "false",
            "DD_SERVICE": "bench",
        }

    def command(self, words: list[str], programs: Path) -> list[str]:
        """Run under its command."""
        return [str(programs / "ddtrace-run"), *words]

    def answer(self, path: str) -> bytes:
        """Say what an agent can, and that all is to be kept."""
        return b'{"endpoints": ["/v0.4/traces"]}' if path.endswith("/info") else b'{"rate_by_service": {}}'

    def seen(self, posted: Iterable[Posted], folder: Path) -> Seen:  # noqa: ARG002
        """Count the spans that have the job's name; the resource has another."""
        from benchmarks.peers.sink import Seen

        return Seen(sum(sent.body.count(JOB.encode()) for sent in posted if sent.path.endswith("/traces")))

    def job(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Let each call be a span."""
        from ddtrace.trace import tracer

        return tracer.wrap(JOB, resource=function.__name__, span_type="worker")(function)

    def event(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Let each call be a span."""
        from ddtrace.trace import tracer

        return tracer.wrap(EVENT, resource=function.__name__)(function)


PRODUCT = Ddtrace()
