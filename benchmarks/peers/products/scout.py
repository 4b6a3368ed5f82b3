"""Scout's APM; the sink is its core agent, which on a real machine is one more process that it downloads."""

from __future__ import annotations

from benchmarks.peers.product import EVENT, JOB, Product

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from typing import Any

    from benchmarks.peers.sink import Ports, Posted, Seen


class Scout(Product):
    """It sends commands over a socket to a process beside the worker."""

    name = "scout"
    title = "Scout"
    package = "scout-apm"
    environment = "peer-scout"
    records = True

    def variables(self, ports: Ports, folder: Path) -> dict[str, str]:  # noqa: ARG002
        """Name the socket of its agent, of which none is downloaded."""
        return {
            "SCOUT_MONITOR": "true",
            "SCOUT_KEY": "0" * 20,
            "SCOUT_NAME": "bench",
            "SCOUT_CORE_AGENT_DOWNLOAD": "false",
            "SCOUT_CORE_AGENT_LAUNCH": "false",
            "SCOUT_CORE_AGENT_SOCKET_PATH": f"tcp://127.0.0.1:{ports.frames}",
            "SCOUT_ERRORS_ENABLED": "false",
            "SCOUT_SHUTDOWN_MESSAGE_ENABLED": "false",
        }

    def seen(self, posted: Iterable[Posted], folder: Path) -> Seen:  # noqa: ARG002
        """Count the job's spans."""
        from benchmarks.peers.sink import Seen

        name = f'"Job/{JOB}"'.encode()
        return Seen(sum(sent.body.count(name) for sent in posted if sent.path == "frame"))

    def start(self) -> None:
        """Start it, with its instrumentation of libraries."""
        import scout_apm.api

        scout_apm.api.install()

    def job(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Let each call be a transaction."""
        import scout_apm.api

        job: Callable[..., Any] = scout_apm.api.BackgroundTransaction(JOB)(function)
        return job

    def event(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Let each call be a span."""
        import scout_apm.api

        event: Callable[..., Any] = scout_apm.api.instrument(EVENT)(function)
        return event

    def work(self) -> None:
        """Also install it for Celery, as its documentation says."""
        self.start()
        import scout_apm.celery

        scout_apm.celery.install()


PRODUCT = Scout()
