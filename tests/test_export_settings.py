"""Which exporters are on and how they are set: rules file, OTEL_* variables, and every mistake by its name."""

from __future__ import annotations

from typing import Any

import pytest

from autoinst.export.choice import chosen_names
from autoinst.export.otlp import Metrics, Traces
from autoinst.export.settings import choose
from autoinst.rules.load import load_files

pytestmark = pytest.mark.once

ADDRESS = "must be an address that begins with http:// or https://"


def settings(tmp_path, text):
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    rules, loader = load_files([str(path)])
    return rules.settings, [problem.one_line.partition("rules.yaml:")[2] for problem in loader.problems]


def test_exporters_of_the_rules_file(tmp_path):
    found, problems = settings(
        tmp_path,
        """\
version: 1
exporters:
  otlp:
    endpoint: http://collector:4318/
    protocol: http/json
    compression: none
    metrics: no
    timeout: 2.5
    headers: {X-Key: abc}
    backlog: 500
""",
    )
    assert problems == []
    assert found["exporters"] == {
        "otlp": {
            "endpoint": "http://collector:4318",
            "protocol": "http/json",
            "compression": "none",
            "metrics": False,
            "timeout": 2.5,
            "headers": {"X-Key": "abc"},
            "backlog": 500,
        }
    }
    chosen = choose({}, found)
    (feed,) = chosen.feeds
    assert (feed.name, feed.place, feed.backlog) == ("otlp/traces", "http://collector:4318/v1/traces", 500)
    assert chosen.problems == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("exporters: otlp", "2:12: 'exporters' must be a mapping, not 'otlp' (write exporters: {otlp: {}})"),
        ("exporters: {otpl: {}}", "2:13: unknown key 'otpl' in 'exporters' (did you mean 'otlp'?)"),
        ("exporters: {otlp: on}", "2:19: 'otlp' must be a mapping, not 'on'"),
        ("exporters: {otlp: {endpont: x}}", "2:20: unknown key 'endpont' in 'otlp' (did you mean 'endpoint'?)"),
        (
            "exporters: {otlp: {endpoint: 'localhost:4318'}}",
            f"2:30: 'endpoint' {ADDRESS}: write http://localhost:4318, not 'localhost:4318'",
        ),
        (
            "exporters: {otlp: {endpoint: 'ftp://localhost'}}",
            "2:30: 'endpoint' must be an address that begins with http:// or https://, not 'ftp://localhost'",
        ),
        ("exporters: {otlp: {timeout: soon}}", "2:29: 'timeout' must be a number of seconds above 0, not 'soon'"),
        (
            "exporters: {otlp: {protocol: grpc}}",
            "2:30: 'protocol' cannot be 'grpc' (it may be http/protobuf, http/json)",
        ),
        ("exporters: {otlp: {headers: x}}", "2:29: 'headers' must be a mapping, not 'x'"),
        ("exporters: {otlp: {metrics: maybe}}", "2:29: 'metrics' must be true or false, not 'maybe'"),
        ("exporters: {otlp: {backlog: 0}}", "2:29: 'backlog' must be a whole number above 0, not '0'"),
    ],
)
def test_mistakes_in_the_rules_file_are_told_with_their_place(tmp_path, text, problem):
    _, problems = settings(tmp_path, f"version: 1\n{text}\n")
    assert problems == [problem]


def test_an_exporter_without_settings_is_on(tmp_path):
    found, problems = settings(tmp_path, "version: 1\nexporters:\n  otlp:\n")
    assert problems == []
    assert [(feed.name, feed.place) for feed in choose({}, found).feeds] == [
        ("otlp/traces", "http://localhost:4318/v1/traces"),
        ("otlp/metrics", "http://localhost:4318/v1/metrics"),
    ]


def test_the_variable_says_which_are_on():
    told = {"exporters": {"otlp": {"timeout": 1.0}}}
    assert chosen_names({}, told)[0] == {"otlp": {"timeout": 1.0}}
    assert chosen_names({"AUTOINST_EXPORTERS": "none"}, told) == ({}, [])
    assert chosen_names({"AUTOINST_EXPORTERS": ""}, told) == ({}, [])
    assert chosen_names({"AUTOINST_EXPORTERS": " OTLP "}, told) == ({"otlp": {"timeout": 1.0}}, [])
    assert chosen_names({"AUTOINST_EXPORTERS": "otlp,oltp"}, {})[1] == [
        "AUTOINST_EXPORTERS: there is no exporter 'oltp'; did you mean otlp?"
    ]


def test_otel_variables_go_before_the_rules_file():
    told = {"exporters": {"otlp": {"endpoint": "http://file:4318", "headers": {"a": "1", "b": "2"}}}}
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://variable:4318/base/",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://metrics:9/own/path",
        "OTEL_EXPORTER_OTLP_HEADERS": "b=3, c=x%20y",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2500",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        "OTEL_METRIC_EXPORT_INTERVAL": "5000",
    }
    chosen = choose(environ, told)
    assert chosen.problems == []
    traces, metrics = chosen.feeds
    assert isinstance(traces, Traces)
    assert isinstance(metrics, Metrics)
    assert (traces.place, metrics.place) == ("http://variable:4318/base/v1/traces", "http://metrics:9/own/path")
    assert metrics.gather == 5.0
    assert (traces._content_type, metrics._content_type) == ("application/x-protobuf", "application/json")
    reaching = traces._endpoint._reaching
    assert (reaching.headers, reaching.seconds) == ({"a": "1", "b": "3", "c": "x y"}, 2.5)
    assert traces._endpoint.compress is False
    assert [feed.name for feed in choose({"OTEL_METRICS_EXPORTER": "none"}, told).feeds] == ["otlp/traces"]


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        (
            "ENDPOINT",
            "localhost:4318",
            "'localhost:4318' must be an address that begins with http:// or https://: write http://localhost:4318",
        ),
        ("PROTOCOL", "grpc", "'grpc' is not spoken here, http/protobuf and http/json are"),
        ("COMPRESSION", "zstd", "'zstd' is neither gzip nor none"),
        ("HEADERS", "novalue", "'novalue'... is no key=value"),
        ("TIMEOUT", "10s", "must be a number of milliseconds, not '10s'"),
    ],
)
def test_mistakes_in_otel_variables_turn_the_exporter_off_and_are_named(name, value, problem):
    variable = f"OTEL_EXPORTER_OTLP_{name}"
    chosen = choose({"AUTOINST_EXPORTERS": "otlp", variable: value}, {})
    assert chosen.feeds == []
    assert chosen.problems == [f"exporter otlp: {variable}: {problem}; it is off, and its jobs wait in the store"]


def test_a_certificate_that_cannot_be_read_is_named(tmp_path):
    missing = str(tmp_path / "ca.pem")
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://x", "OTEL_EXPORTER_OTLP_CERTIFICATE": missing}
    chosen = choose(environ | {"AUTOINST_EXPORTERS": "otlp"}, {})
    (problem,) = chosen.problems
    assert problem.startswith(f"exporter otlp: certificate {missing}: No such file or directory; it is off")


def test_proxies_of_the_environment_count(monkeypatch):
    feed: Any
    for name in ("http_proxy", "no_proxy", "HTTP_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://user:pass@proxy:3128")
    (feed, *_) = choose({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://far"}, {"exporters": {"otlp": {}}}).feeds
    assert feed._endpoint._poster._manager.proxy.host == "proxy"
    monkeypatch.setenv("no_proxy", "far")
    (feed, *_) = choose({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://far"}, {"exporters": {"otlp": {}}}).feeds
    assert feed._endpoint._poster._manager.proxy is None
