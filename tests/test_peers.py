"""Other tracers in the process: each starts, sees the jobs as it does without autoinst, and none is seen twice."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.harness import Program
from tests.libraries import program_of, python_of
from tests.servers import Sink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness import Result

pytestmark = pytest.mark.once

RULES = """
version: 1
packs: [none]
jobs:
  - class: jobs.Mailer
    methods: [perform]
    payload: {queue: "${self.queue}", args: "${args}"}
"""
JOBS = """
import os
import urllib.request


class Mailer:
    queue = "mail"

    def perform(self, number):
        urllib.request.urlopen(os.environ["SINK"] + "/fetched").read()
        if number == 3:
            raise ValueError("no items")
        return number * 2
"""
WORKER = """
import jobs

for number in (1, 2, 3):
    try:
        print(jobs.Mailer().perform(number))
    except ValueError as error:
        print("failed", error)
"""
SENTRY = """
import os
import sentry_sdk
sentry_sdk.init(
    os.environ["SINK"].replace("//", "//key@") + "/1",
    traces_sample_rate=1.0,
    functions_to_trace=[{"qualified_name": "jobs.Mailer.perform"}],
)
import jobs

for number in (1, 2, 3):
    with sentry_sdk.start_transaction(name=f"work {number}"):
        try:
            print(jobs.Mailer().perform(number))
        except ValueError as error:
            sentry_sdk.capture_exception(error)
            print("failed", error)
sentry_sdk.flush()
"""
OUTPUT = "2\n4\nfailed no items\n"


@pytest.fixture
def program(tmp_path: Path) -> Program:
    program = Program(tmp_path)
    program.write("jobs.py", JOBS)
    program.write("worker.py", WORKER)
    program.write("rules.yaml", RULES)
    return program


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


def assert_recorded(result: Result, said: str = "") -> None:
    """Check that each of the three jobs was recorded once, and that nothing was said but what the peer says."""
    assert (result.stdout, result.stderr, result.status) == (OUTPUT, said, 0)
    assert [(record["action"], record["status"], record["queue"], record["args"]) for record in result.records] == [
        ("jobs.Mailer#perform", "ok", "mail", [1]),
        ("jobs.Mailer#perform", "ok", "mail", [2]),
        ("jobs.Mailer#perform", "error", "mail", [3]),
    ]
    frames = result.records[2]["exception"]["backtrace"]
    assert [frame["function"] for frame in frames if frame["file"].endswith("jobs.py")] == ["perform"]


def launch(program: Program, how: str, launcher: list[str], variables: dict[str, str]) -> Result:
    """Run the worker by `launcher` with the sitecustomize, under `autoinst run`, or as `autoinst run` inside it."""
    python, run = python_of("peers"), [program_of("peers", "autoinst"), "run"]
    command = {
        "sitecustomize": [*launcher, python, "worker.py"],
        "run": [*run, *([*launcher, python] if launcher else []), "worker.py"],
        "run inside": [*launcher, *run, "worker.py"],
    }[how]
    result = program.execute(command, variables, instrumented=how == "sitecustomize")
    result.records = program.records()
    return result


HOW = ("sitecustomize", "run", "run inside")


@pytest.mark.parametrize("how", HOW)
def test_ddtrace_run(program: Program, sink: Sink, how: str) -> None:
    variables = {
        "SINK": sink.url,
        "DD_TRACE_AGENT_URL": sink.url,
        "DD_TRACE_METHODS": "jobs:Mailer.perform",
        "DD_TRACE_API_VERSION": "v0.4",
        "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
        "DD_REMOTE_CONFIGURATION_ENABLED": "false",
        "DD_CRASHTRACKING_ENABLED": "false",
    }
    launcher = program_of("peers", "ddtrace-run")
    plain = program.execute([launcher, python_of("peers"), "worker.py"], variables, instrumented=False)
    assert (plain.stdout, plain.stderr, plain.status) == (OUTPUT, "", 0)
    spans = re.findall(rb"perform|ValueError", sink.sent("/v0.4/traces"))
    assert spans.count(b"perform") >= 3
    sink.posted.clear()
    assert_recorded(launch(program, how, [launcher], variables))
    assert re.findall(rb"perform|ValueError", sink.sent("/v0.4/traces")) == spans


@pytest.mark.parametrize("how", HOW)
def test_opentelemetry_instrument(program: Program, sink: Sink, how: str) -> None:
    variables = {
        "SINK": sink.url,
        "OTEL_EXPORTER_OTLP_ENDPOINT": sink.url,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
    }
    assert_recorded(launch(program, how, [program_of("peers", "opentelemetry-instrument")], variables))
    assert sink.sent("/v1/traces").count(b"/fetched") == 3
    # The requests bear the library's trace context; those of its exporter do not count.
    assert [path for path, _ in sink.posted].count("/fetched") == 3


@pytest.mark.parametrize("how", ["sitecustomize", "run"])
def test_sentry(program: Program, sink: Sink, how: str) -> None:
    program.write("worker.py", SENTRY)
    plain = program.execute([python_of("peers"), "worker.py"], {"SINK": sink.url}, instrumented=False)
    without_us = events_of(sink)
    sink.posted.clear()
    assert_recorded(launch(program, how, [], {"SINK": sink.url}), plain.stderr)
    with_us = events_of(sink)
    assert with_us == without_us
    assert with_us.count(("span", "jobs.Mailer.perform")) == 3
    assert [event for event in with_us if event[0] == "frames"] == [("frames", "worker.py:<module>, jobs.py:perform")]


def events_of(sink: Sink) -> list[tuple[str, str]]:
    """Return the spans and the exceptions' frames that sentry sent, in order of their kind and text."""
    found = []
    for line in sink.sent("/api/1/envelope/").splitlines():
        item = json.loads(line) if line.startswith(b"{") else {}
        found += [("span", span["description"]) for span in item.get("spans", ())]
        for error in item.get("exception", {}).get("values", ()):
            frames = error["stacktrace"]["frames"]
            found.append(("frames", ", ".join(f"{frame['filename']}:{frame['function']}" for frame in frames)))
    return sorted(found)
