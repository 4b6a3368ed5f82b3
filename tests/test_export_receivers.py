"""Real receivers: what they understood of what was sent, and what `autoinst doctor` says of them."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from autoinst.config import make_private
from autoinst.store.sqlite import Store
from tests import hostile
from tests.exported import job, rich
from tests.hostile import Receiver
from tests.launching import AUTOINST, environment
from tests.libraries import python_of
from tests.receivers import attributes_of, decode, spans_of
from tests.servers import Server, Sink, free_port

pytestmark = pytest.mark.once


class Rotel(Server):
    """The OTLP collector rotel, which decodes what it gets and sends it on to `sink`."""

    def __init__(self, sink: Sink) -> None:
        super().__init__()
        [found] = Path(python_of("receivers")).parent.parent.glob("lib/python*/site-packages/rotel/rotel-agent")
        self.program = self.package = str(found)
        self._sink = sink

    @property
    def url(self) -> str:
        """Return the address it receives at."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, program: str, folder: Path) -> None:
        """Start it in the foreground."""
        receiving = ["--otlp-http-endpoint", f"127.0.0.1:{self.port}"]
        receiving += ["--otlp-grpc-endpoint", f"127.0.0.1:{free_port()}"]
        sending = ["--exporter", "otlp", "--otlp-exporter-endpoint", self._sink.url, "--otlp-exporter-protocol", "http"]
        environ = {"HOME": str(folder), "ROTEL_TELEMETRY_DISABLED": "true"}
        self.spawn(program, "start", *receiving, *sending, environ=environ)

    def answers(self, connection) -> bool:
        """Take a connection for an answer."""
        return True


def fill(home, records):
    make_private(str(home))
    with Store(str(home / "store.sqlite3")) as store, store.transaction():
        store.insert(records)


def autoinst(home, *arguments, **variables):
    return subprocess.run(
        [AUTOINST, *arguments],
        env=environment(home, AUTOINST_EXPORTERS="otlp", NO_PROXY="*", **variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("protocol", ["http/protobuf", "http/json"])
def test_rotel_understands_spans_and_metrics(home, protocol):
    fill(home, [rich(1), *(job(number) for number in range(2, 31))])
    with Sink() as sink, Rotel(sink) as rotel:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": rotel.url, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
        done = autoinst(home, "agent", "--once", **variables)
        assert done.returncode == 0, done.stderr
        assert "otlp/traces: 30 job(s) sent" in done.stderr

        def spans():
            bodies = [body for path, body in list(sink.posted) if path == "/v1/traces"]
            return [span for message in decode("traces", *bodies) for span in spans_of(message)]

        hostile.wait_for(lambda: sum(path == "/v1/traces" for path, _ in list(sink.posted)))
        hostile.wait_for(lambda: len(spans()) == 33)
        found = {span["name"]: span for span in spans()}
        root = next(span for span in spans() if span["attributes"].get("error.type"))
        assert (root["traceId"], root["parentSpanId"]) == (rich().trace_id, rich().parent_span_id)
        assert root["events"][0]["name"] == "exception"
        assert found["query.sqlite SELECT"]["parentSpanId"] == root["spanId"]
        if protocol == "http/protobuf":  # rotel 0.0.1a15 drops 64-bit numbers of metrics in JSON, which are texts there
            hostile.wait_for(lambda: any(path == "/v1/metrics" for path, _ in list(sink.posted)))
            check_metrics(decode("metrics", *[body for path, body in sink.posted if path == "/v1/metrics"]))


def check_metrics(messages):
    metrics = [
        metric
        for message in messages
        for resource in message["resourceMetrics"]
        for scope in resource["scopeMetrics"]
        for metric in scope["metrics"]
    ]
    durations = [metric["histogram"] for metric in metrics if metric["name"] == "messaging.process.duration"]
    assert sum(int(point["count"]) for histogram in durations for point in histogram["dataPoints"]) == 49
    sums = [metric["sum"] for metric in metrics if metric["name"] == "autoinst.jobs"]
    points = [point for each in sums for point in each["dataPoints"]]
    counted = {attributes_of(point)["autoinst.status"]: int(point["asInt"]) for point in points}
    assert counted == {"ok": 29, "error": 20}  # one that stands for twenty


def test_doctor_sends_a_test_and_says_what_came_back(home):
    fill(home, [job(1), job(2)])
    with Receiver() as receiver:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}
        assert autoinst(home, "agent", "--once", **variables).returncode == 0
        done = autoinst(home, "doctor", "--json", **variables)
        traces, metrics = json.loads(done.stdout)["exporters"]["feeds"]
        assert (traces["name"], traces["test"], traces["ok"]) == ("otlp/traces", "answered 200", True)
        assert (traces["sent"], traces["waiting"], traces["state"]) == (2, 0, "ok")
        assert traces["to"] == f"{receiver.url}/v1/traces"
        assert metrics["ok"] is True
        assert [span["name"] for span in receiver.spans].count("autoinst doctor") == 1
        receiver.path_behaviours["/v1/traces"] = hostile.status(401, b"who are you", Content_Type="text/plain")
        done = autoinst(home, "doctor", **variables)
        told = f"exporter otlp/traces: {receiver.url}/v1/traces: answered 401: who are you; 0 job(s) wait in the store"
        assert done.returncode == 1
        assert told in done.stdout


def test_doctor_names_a_mistake_and_what_waits(home):
    fill(home, [job(1)])
    done = autoinst(home, "doctor", "--json", OTEL_EXPORTER_OTLP_ENDPOINT="localhost:4318")
    found = json.loads(done.stdout)
    assert found["exporters"]["feeds"] == []
    (told,) = [text for text in found["attention"] if "OTEL" in text]
    assert told.startswith("exporter otlp: OTEL_EXPORTER_OTLP_ENDPOINT: 'localhost:4318' must be an address")
    assert told.endswith("it is off, and its jobs wait in the store")


class Phoenix(Server):
    """arize-phoenix, which shows spans: of the Python that AUTOINST_TESTS_PHOENIX names, for it takes 600 MB."""

    start_seconds = 240.0

    def __init__(self, python: str) -> None:
        super().__init__()
        self.program = self.package = str(Path(python).with_name("phoenix"))

    def start(self, program: str, folder: Path) -> None:
        """Start it with a store of its own."""
        ports = {"PHOENIX_PORT": str(self.port), "PHOENIX_GRPC_PORT": str(free_port()), "PHOENIX_HOST": "127.0.0.1"}
        environ = {"HOME": str(folder), "PHOENIX_WORKING_DIR": str(folder), "PHOENIX_TELEMETRY_ENABLED": "false"}
        self.spawn(program, "serve", environ=environ | ports)

    def answers(self, connection) -> bool:
        """Ask whether it is well."""
        connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        return b" 200 " in connection.recv(20)

    def spans(self) -> list[dict[str, Any]]:
        """Return what it shows of spans."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        url = f"http://127.0.0.1:{self.port}/v1/projects/default/spans?limit=100"
        with opener.open(url, timeout=30) as response:
            found: list[dict[str, Any]] = json.load(response)["data"]
        return found


@pytest.mark.timeout(600)
@pytest.mark.skipif("AUTOINST_TESTS_PHOENIX" not in os.environ, reason="AUTOINST_TESTS_PHOENIX names no Python")
def test_phoenix_shows_spans(home):
    fill(home, [rich(1), *(job(number) for number in range(2, 11))])
    with Phoenix(os.environ["AUTOINST_TESTS_PHOENIX"]) as phoenix:
        url = f"http://127.0.0.1:{phoenix.port}"
        done = autoinst(home, "agent", "--once", OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_METRICS_EXPORTER="none")
        assert done.returncode == 0, done.stderr
        hostile.wait_for(lambda: len(phoenix.spans()) == 13, 120)
        found = phoenix.spans()
    [failed] = [span for span in found if span["status_code"] == "ERROR"]
    assert (failed["name"], failed["status_message"]) == ("shop.Mailer#perform", "shop.MailError: no items")
    assert failed["events"][0]["attributes"]["exception.type"] == "shop.MailError"
    [query] = [span for span in found if span["name"] == "query.sqlite SELECT"]
    assert query["parent_id"] == failed["context"]["span_id"]
