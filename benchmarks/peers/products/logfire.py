"""Pydantic's Logfire, which sends a span when it begins, too."""

from __future__ import annotations

from benchmarks.peers.products.opentelemetry import OpenTelemetry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from typing import Any

    from benchmarks.peers.sink import Ports, Posted, Seen


class Logfire(OpenTelemetry):
    """OpenTelemetry's SDK with Logfire's settings."""

    name = "logfire"
    title = package = "logfire"
    environment = "peer-logfire"

    def variables(self, ports: Ports, folder: Path) -> dict[str, str]:
        """Name the place to send to; a token is needed."""
        return {
            "LOGFIRE_TOKEN": "pylf_v1_local_" + "0" * 40,
            "LOGFIRE_BASE_URL": ports.url,
            "LOGFIRE_CONSOLE": "false",
            "LOGFIRE_SEND_TO_LOGFIRE": "true",
            "LOGFIRE_CONFIG_DIR": str(folder),
            "LOGFIRE_IGNORE_NO_CONFIG": "1",
        }

    def command(self, words: list[str], programs: Path) -> list[str]:  # noqa: ARG002
        """Run as it is."""
        return words

    def answer(self, path: str) -> bytes:
        """Accept the token."""
        return b'{"project_name": "bench", "project_url": ""}' if path.endswith("/info") else b""

    def seen(self, posted: Iterable[Posted], folder: Path) -> Seen:
        """Tell the spans that were sent at their begin from those that were sent at their end."""
        from benchmarks.peers.sink import Seen

        posted = list(posted)
        named = super().seen(posted, folder).recorded
        pending = sum(sent.body.count(b"pending_span") for sent in posted if sent.path.endswith("/v1/traces"))
        return Seen(named - pending, 0, max(2 * pending - named, 0))

    def start(self) -> None:
        """Configure it."""
        import logfire

        logfire.configure(metrics=False, scrubbing=False)

    def span(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Let each call be a span called `name`, without its arguments, as the others have none."""
        import logfire

        span: Callable[..., Any] = logfire.instrument(name, extract_args=False)(function)
        return span

    def work(self) -> None:
        """Also instrument what the jobs use, each by its own call."""
        self.start()
        import logfire

        logfire.instrument_celery()
        logfire.instrument_requests()
        logfire.instrument_sqlite3()
        logfire.instrument_redis()


PRODUCT = Logfire()
