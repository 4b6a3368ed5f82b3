"""The OTLP exporter's settings: OTEL_* variables go before the rules file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autoinst.export import variables
from autoinst.export.endpoint import SECONDS, Endpoint, ExporterError, Reaching
from autoinst.export.feed import BACKLOG
from autoinst.export.otlp import JSON, METRIC_SECONDS, PROTOBUF, Metrics, Traces

if TYPE_CHECKING:
    from collections.abc import Mapping

    from autoinst.export.feed import Feed
    from autoinst.export.variables import Asked

OTLP_ENDPOINT = "http://localhost:4318"
OTEL = "OTEL_EXPORTER_OTLP_"


def make(asked: Asked) -> list[Feed]:
    """Return the feeds of the OTLP exporter; raises ExporterError."""
    environ, told = asked.environ, asked.told
    backlog = told.get("backlog", BACKLOG)
    traces = _otlp_endpoint(environ, told, "traces")
    feeds: list[Feed] = [Traces(*traces, backlog=backlog)]
    if told.get("metrics", True) and environ.get("OTEL_METRICS_EXPORTER", "").strip().lower() != "none":
        gather = variables.milliseconds(environ, "OTEL_METRIC_EXPORT_INTERVAL") or METRIC_SECONDS
        feeds.append(Metrics(*_otlp_endpoint(environ, told, "metrics"), backlog=backlog, gather=gather))
    return feeds


def _otlp_endpoint(environ: Mapping[str, str], told: Mapping[str, Any], signal: str) -> tuple[Endpoint, str]:
    """Return where a signal goes and the content type it has there (OpenTelemetry's OTLP exporter spec)."""

    def variable(name: str) -> tuple[str, str | None]:
        own = f"{OTEL}{signal.upper()}_{name}"
        name = own if environ.get(own) else f"{OTEL}{name}"
        return name, environ.get(name) or None

    name, text = variable("ENDPOINT")
    url = variables.url(name, text) if text else told.get("endpoint", OTLP_ENDPOINT)
    if f"_{signal.upper()}_" not in name:
        url = f"{url}/v1/{signal}"
    name, protocol = variable("PROTOCOL")
    if protocol and protocol not in ("http/protobuf", "http/json"):
        raise ExporterError(f"{name}: {protocol!r} is not spoken here, http/protobuf and http/json are")
    name, compression = variable("COMPRESSION")
    if compression and compression not in ("gzip", "none"):
        raise ExporterError(f"{name}: {compression!r} is neither gzip nor none")
    headers = dict(told.get("headers", {}))
    name, text = variable("HEADERS")
    headers |= variables.headers(name, text) if text else {}
    seconds = variables.milliseconds(environ, variable("TIMEOUT")[0]) or told.get("timeout", SECONDS)
    files = {
        key: variable(key.upper())[1] or told.get(key) for key in ("certificate", "client_certificate", "client_key")
    }
    reaching = Reaching(headers, seconds, proxy=told.get("proxy"), **files)
    compress = (compression or told.get("compression", "gzip")) == "gzip"
    content_type = JSON if (protocol or told.get("protocol")) == "http/json" else PROTOBUF
    return Endpoint(url, reaching, compress=compress), content_type
