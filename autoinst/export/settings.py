"""Which exporters are on, and how they are set: variables go before `exporters:` of the rules file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from autoinst.export.choice import chosen_names
from autoinst.export.endpoint import SECONDS, Endpoint, ExporterError, Reaching
from autoinst.export.feed import BACKLOG
from autoinst.rules import figures

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from autoinst.export.feed import Feed

OTLP_ENDPOINT = "http://localhost:4318"
OTEL = "OTEL_EXPORTER_OTLP_"


class Chosen:
    """The exporters that are on: their feeds, and in `problems` what is wrong with their settings."""

    def __init__(self) -> None:
        self.feeds: list[Feed] = []
        self.problems: list[str] = []

    def close(self) -> None:
        """Close all connections."""
        for feed in self.feeds:
            feed.close()


def choose(environ: Mapping[str, str], settings: Mapping[str, Any]) -> Chosen:
    """Return the exporters that are on; one whose settings are wrong is left out, and its jobs wait in the store."""
    out = Chosen()
    names, out.problems = chosen_names(environ, settings)
    for name, told in names.items():
        try:
            out.feeds += MAKERS[name](environ, told)
        except (ExporterError, ValueError) as error:
            out.problems.append(f"exporter {name}: {error}; it is off, and its jobs wait in the store")
    return out


def make_otlp(environ: Mapping[str, str], told: Mapping[str, Any]) -> list[Feed]:
    """Return the feeds of the OTLP exporter; raises ExporterError, ValueError."""
    from autoinst.export.otlp import Metrics, Traces

    backlog = told.get("backlog", BACKLOG)
    traces = _otlp_endpoint(environ, told, "traces")
    feeds: list[Feed] = [Traces(*traces, backlog=backlog)]
    if told.get("metrics", True) and environ.get("OTEL_METRICS_EXPORTER", "").strip().lower() != "none":
        gather = _milliseconds(environ, "OTEL_METRIC_EXPORT_INTERVAL") or 60.0
        feeds.append(Metrics(*_otlp_endpoint(environ, told, "metrics"), backlog=backlog, gather=gather))
    return feeds


def _otlp_endpoint(environ: Mapping[str, str], told: Mapping[str, Any], signal: str) -> tuple[Endpoint, str]:
    """Return where a signal goes and the content type it has there (OpenTelemetry's OTLP exporter spec)."""
    from autoinst.export.otlp import JSON, PROTOBUF

    def variable(name: str) -> tuple[str, str | None]:
        own = f"{OTEL}{signal.upper()}_{name}"
        name = own if environ.get(own) else f"{OTEL}{name}"
        return name, environ.get(name) or None

    name, text = variable("ENDPOINT")
    url = _url(name, text) if text else told.get("endpoint", OTLP_ENDPOINT)
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
    headers |= _headers(name, text) if text else {}
    seconds = _milliseconds(environ, variable("TIMEOUT")[0]) or told.get("timeout", SECONDS)
    files = {
        key: variable(key.upper())[1] or told.get(key) for key in ("certificate", "client_certificate", "client_key")
    }
    reaching = Reaching(headers, seconds, proxy=told.get("proxy"), **files)
    compress = (compression or told.get("compression", "gzip")) == "gzip"
    content_type = JSON if (protocol or told.get("protocol")) == "http/json" else PROTOBUF
    return Endpoint(url, reaching, compress=compress), content_type


def _url(name: str, text: str) -> str:
    try:
        return figures.url(text.strip())
    except ValueError as error:
        raise ExporterError(f"{name}: {text!r} {error}") from None


def _headers(name: str, text: str) -> dict[str, str]:
    """Return headers as W3C baggage has them: `key=value,key=value`, percent-encoded."""
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise ExporterError(f"{name}: {key[:20]!r}... is no key=value")
        found[unquote(key.strip())] = unquote(value.strip())
    return found


def _milliseconds(environ: Mapping[str, str], name: str) -> float | None:
    text = environ.get(name)
    if not text:
        return None
    try:
        return figures.milliseconds(text.strip()) / 1e9 or None
    except ValueError as error:
        raise ExporterError(f"{name}: {error}, not {text!r}") from None


MAKERS: dict[str, Callable[[Mapping[str, str], Mapping[str, Any]], list[Feed]]] = {"otlp": make_otlp}
