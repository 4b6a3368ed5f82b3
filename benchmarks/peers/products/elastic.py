"""Elastic's APM agent: a client in the program, as for work that is no web request."""

from __future__ import annotations

from benchmarks.peers.product import EVENT, JOB, Product

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from typing import Any

    from benchmarks.peers.sink import Ports, Posted, Seen


class Elastic(Product):
    """It offers a command for web programs; a worker makes a client and has its libraries instrumented."""

    name = "elastic"
    title = "Elastic APM"
    package = "elastic-apm"
    environment = "peer-elastic"
    records = True
    client: Any = None

    def variables(self, ports: Ports, folder: Path) -> dict[str, str]:  # noqa: ARG002
        """Name the server and have all spans kept apart, as those of others are."""
        return {
            "ELASTIC_APM_SERVER_URL": ports.url,
            "ELASTIC_APM_SERVICE_NAME": "bench",
            "ELASTIC_APM_CENTRAL_CONFIG": "false",
            "ELASTIC_APM_CLOUD_PROVIDER": "none",
            "ELASTIC_APM_SPAN_COMPRESSION_ENABLED": "false",
            "ELASTIC_APM_LOG_LEVEL": "off",
        }

    def answer(self, path: str) -> bytes:
        """Say which version the server is."""
        return b'{"version": "8.15.0"}' if path == "/" else b""

    def seen(self, posted: Iterable[Posted], folder: Path) -> Seen:  # noqa: ARG002
        """Count the lines that are transactions."""
        from benchmarks.peers.sink import Seen

        bodies = (sent.body for sent in posted if sent.path.startswith("/intake/"))
        return Seen(sum(line.startswith(b'{"transaction"') for body in bodies for line in body.split(b"\n")))

    def start(self) -> None:
        """Make a client."""
        import elasticapm

        self.client = elasticapm.Client()
        elasticapm.instrument()

    def job(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Let each call be a transaction, with its exception captured."""
        import functools

        @functools.wraps(function)
        def job(*args: Any, **kwargs: Any) -> Any:
            self.client.begin_transaction("task")
            try:
                result = function(*args, **kwargs)
            except Exception:
                self.client.capture_exception()
                self.client.end_transaction(JOB, "failure")
                raise
            self.client.end_transaction(JOB, "success")
            return result

        return job

    def event(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Let each call be a span."""
        import elasticapm

        span: Callable[..., Any] = elasticapm.capture_span(EVENT)(function)
        return span

    def work(self) -> None:
        """Also register with Celery, as its documentation says."""
        self.start()
        from elasticapm.contrib.celery import register_exception_tracking, register_instrumentation

        register_instrumentation(self.client)
        register_exception_tracking(self.client)


PRODUCT = Elastic()
