"""The AppSignal exporter's settings: AppSignal's own variables go before the rules file."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any

from autoinst.config import SPOOL_NAME
from autoinst.export import appsignal, variables
from autoinst.export.appsignal import App
from autoinst.export.check_ins import CheckIns
from autoinst.export.endpoint import SECONDS, Endpoint, ExporterError, Reaching
from autoinst.export.feed import BACKLOG
from autoinst.export.otlp import METRIC_SECONDS, PROTOBUF, Metrics, Traces

if TYPE_CHECKING:
    from collections.abc import Mapping

    from autoinst.export.feed import Feed
    from autoinst.export.variables import Asked

AGENT = "http://127.0.0.1:{}"
AGENT_PORT = "8099"  # opentelemetry_port's default
CHECK_INS = "https://appsignal-endpoint.net"
PUSH_API = "https://push.appsignal.com"
MAX_PORT = 65535
LISTS = ("ignore_actions", "ignore_errors", "ignore_namespaces", "filter_function_parameters")


def make(asked: Asked) -> list[Feed]:
    """Return the feeds of the AppSignal exporter; raises ExporterError."""
    environ, told = asked.environ, asked.told
    if variables.yes(environ, "APPSIGNAL_ACTIVE") is False:
        return []
    app = _app(environ, told)
    backlog = told.get("backlog", BACKLOG)
    base = _base(environ) or told.get("endpoint") or AGENT.format(AGENT_PORT)
    compress = told.get("compression") != "none"
    reaching = _reaching(environ, told, local=base.startswith(AGENT.format("")))
    traces = Traces(
        Endpoint(f"{base}/v1/traces", reaching, compress=compress),
        PROTOBUF,
        backlog=backlog,
        name="appsignal/traces",
        resources=functools.partial(appsignal.resources_of, app),
        test_attributes=appsignal.test_attributes(),
    )
    metrics = Metrics(
        Endpoint(f"{base}/v1/metrics", reaching, compress=compress),
        PROTOBUF,
        backlog=backlog,
        gather=METRIC_SECONDS,
        name="appsignal/metrics",
        resource_of=functools.partial(appsignal.resource_of, app),
        measure=functools.partial(appsignal.queue_times, app),
        test=(),
    )
    feeds: list[Feed] = [traces, metrics]
    if asked.settings.get("check_ins"):
        where = _address(environ, "APPSIGNAL_LOGGING_ENDPOINT") or told.get("check_in_endpoint", CHECK_INS)
        push = _address(environ, "APPSIGNAL_PUSH_API_ENDPOINT") or PUSH_API
        far = _reaching(environ, told, local=False)
        posting = Endpoint(f"{where}/check_ins/json", far, compress=False)
        asking = Endpoint(f"{push}/1/auth", far, compress=False)
        feeds.append(CheckIns(app, posting, asking, os.path.join(asked.home, SPOOL_NAME), backlog=backlog))
    return feeds


def _app(environ: Mapping[str, str], told: Mapping[str, Any]) -> App:
    def text(variable: str, key: str) -> str | None:
        found = (environ.get(variable) or "").strip() or told.get(key)
        return str(found) if found else None

    key = text("APPSIGNAL_PUSH_API_KEY", "push_api_key")
    if key is None:
        raise ExporterError("APPSIGNAL_PUSH_API_KEY is not set, nor push_api_key of the rules file")
    arguments = [variables.yes(environ, f"APPSIGNAL_SEND_{name}") for name in ("PARAMS", "FUNCTION_PARAMETERS")]
    return App(
        key,
        text("APPSIGNAL_APP_NAME", "name"),
        text("APPSIGNAL_APP_ENV", "environment"),
        text("APP_REVISION", "revision"),
        text("APPSIGNAL_HOSTNAME", ""),
        report=str(told.get("report", appsignal.REPORTS[0])),
        arguments=bool(told.get("arguments", True)) and False not in arguments,
        lists={name: _list(environ, f"APPSIGNAL_{name.upper()}") for name in LISTS},
    )


def _list(environ: Mapping[str, str], name: str) -> list[str]:
    return [word.strip() for word in (environ.get(name) or "").split(",") if word.strip()]


def _base(environ: Mapping[str, str]) -> str | None:
    """Return where the variables say that the collector is, or the agent; None where they say nothing."""
    collector = _address(environ, "APPSIGNAL_COLLECTOR_ENDPOINT")
    if collector:
        return collector
    port = (environ.get("APPSIGNAL_OPENTELEMETRY_PORT") or "").strip()
    if not port:
        return None
    if not (port.isascii() and port.isdigit() and 0 < int(port[:9]) <= MAX_PORT):
        raise ExporterError(f"APPSIGNAL_OPENTELEMETRY_PORT: {port!r} is no port")
    return AGENT.format(port)


def _address(environ: Mapping[str, str], name: str) -> str | None:
    text = environ.get(name)
    return variables.url(name, text) if text else None


def _reaching(environ: Mapping[str, str], told: Mapping[str, Any], *, local: bool) -> Reaching:
    """Return how AppSignal is reached; AppSignal's proxy is not for the agent on this machine."""
    proxy = None if local else _address(environ, "APPSIGNAL_HTTP_PROXY")
    return Reaching(
        dict(told.get("headers", {})),
        float(told.get("timeout", SECONDS)),
        certificate=environ.get("APPSIGNAL_CA_FILE_PATH") or told.get("certificate"),
        client_certificate=told.get("client_certificate"),
        client_key=told.get("client_key"),
        proxy=proxy or told.get("proxy"),
    )
