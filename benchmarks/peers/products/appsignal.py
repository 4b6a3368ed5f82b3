"""AppSignal: its agent is started beside the worker; spans go to a collector, which is the sink, so that all count."""

from __future__ import annotations

from benchmarks.peers.products.opentelemetry import OpenTelemetry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.peers.sink import Ports


class AppSignal(OpenTelemetry):
    """OpenTelemetry's SDK with AppSignal's settings."""

    name = "appsignal"
    title = "AppSignal"
    package = "appsignal"
    environment = "peer-appsignal"

    def variables(self, ports: Ports, folder: Path) -> dict[str, str]:
        """Name the collector."""
        return {
            "APPSIGNAL_ACTIVE": "true",
            "APPSIGNAL_APP_NAME": "bench",
            "APPSIGNAL_APP_ENV": "production",
            "APPSIGNAL_PUSH_API_KEY": "00-key",
            "APPSIGNAL_PUSH_API_ENDPOINT": ports.url,
            "APPSIGNAL_COLLECTOR_ENDPOINT": ports.url,
            "APPSIGNAL_WORKING_DIRECTORY_PATH": str(folder),
            "APPSIGNAL_LOG_PATH": str(folder),
            "APPSIGNAL_LOG_LEVEL": "error",
            "APPSIGNAL_ENABLE_HOST_METRICS": "false",
        }

    def command(self, words: list[str], programs: Path) -> list[str]:  # noqa: ARG002
        """Run as it is."""
        return words

    def start(self) -> None:
        """Start it, its agent with it."""
        from appsignal import Appsignal

        Appsignal(active=True, name="bench").start()


PRODUCT = AppSignal()
