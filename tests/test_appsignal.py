"""AppSignal: what its agent made of jobs, what its collector reads, check-ins, and every variable by its name."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from autoinst.export import appsignal, protobuf
from autoinst.export.appsignal import App
from autoinst.export.check_ins import running
from autoinst.export.settings import choose
from autoinst.store.sqlite import Store
from tests import hostile
from tests.appsignal_agent import AppSignalAgent
from tests.exported import CAUSE, FAILURE, job, rich
from tests.harness import Program
from tests.hostile import Receiver, status
from tests.launching import AUTOINST, environment
from tests.receivers import attributes_of, decode, spans_of
from tests.servers import Sink, free_port
from tests.test_export_receivers import fill
from tests.test_export_settings import ADDRESS

pytestmark = pytest.mark.once

KEY = {"APPSIGNAL_PUSH_API_KEY": "00-key"}
CRON_RULES = """\
version: 1
jobs:
  - {function: work.job, check_in: {identifier: nightly, schedule: 30 3 * * *}}
  - {function: work.beat, check_in: {identifier: alive, type: heartbeat, every: 5m}}
"""


def autoinst(home, *arguments, **variables):
    return subprocess.run(
        [AUTOINST, *arguments],
        env=environment(home, AUTOINST_EXPORTERS="appsignal", **{"NO_PROXY": "*"} | variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def spans_sent(app: App, *records) -> dict[str, dict[str, Any]]:
    [message] = decode("traces", protobuf.traces(appsignal.resources_of(app, records)))
    return {
        span["name"]: span | {"resource": attributes_of(message["resourceSpans"][0]["resource"])}
        for span in spans_of(message)
    }


def test_appsignals_agent_takes_action_events_error_tags_and_queue_time(home):
    fill(
        home,
        [
            rich(1),
            job(2),
            job(3, "killed", action="shop.Killed#perform"),
            job(4, action="shop.Nested#perform", trace_id=job(2).id, parent_span_id=job(2).id[16:]),
        ],
    )
    with AppSignalAgent() as agent:
        done = autoinst(home, "agent", "--once", **agent.environ)
        assert done.returncode == 0, done.stderr
        assert "appsignal/traces: 4 job(s) sent" in done.stderr
        found = agent.pushed()
    for text in ("shop.Mailer#perform", "shop.Killed#perform", "shop.Nested#perform", "background", "abc123"):
        assert text in found
    assert {"query.sqlite", "request.urllib3", "render.pdf", "SELECT", "invoice"} <= set(found)
    assert "SELECT * FROM orders WHERE id = ?" in found
    assert {"shop.MailError", "no items", 'File "/app/jobs.py", line 17, in perform'} <= set(found)
    assert {"autoinst.Killed", "process 42 killed by SIGKILL in query.sqlite"} <= set(found)
    assert {"tenant", "acme", "queue", "mail"} <= set(found)
    assert '{"args": [13, {"a": null}], "kwargs": {"fast": true}}' in found
    assert '{"__name__":"transaction_queue_duration","hostname":"box","namespace":"background"}' in found


def test_both_columns_are_sent():
    record = rich()
    record.exception = FAILURE
    app = App("00-key", name="shop", revision="unused")
    found = spans_sent(app, record)
    root = found["shop.Mailer#perform"]
    attributes = root["attributes"]
    assert (
        root["resource"].items()
        >= {
            "appsignal.config.name": "shop",
            "appsignal.config.environment": "production",
            "appsignal.config.push_api_key": "00-key",
            "appsignal.config.revision": "abc123",
            "appsignal.config.language_integration": "python",
            "service.name": "shop",
            "host.name": "box",
        }.items()
    )
    assert root["kind"] == 5
    assert attributes["appsignal.root_name"] == attributes["appsignal.action_name"] == "shop.Mailer#perform"
    assert attributes["appsignal.namespace"] == "background"
    parameters = {"args": [13, {"a": None}], "kwargs": {"fast": True}}
    assert json.loads(attributes["appsignal.request.parameters"]) == parameters
    assert json.loads(attributes["appsignal.function.parameters"]) == parameters
    assert attributes["appsignal.tag.tenant"] == "acme"
    assert json.loads(attributes["appsignal.custom_data"])["transaction_id"] == record.id
    assert (root["traceId"], root.get("parentSpanId", "")) == (record.id, "")
    assert [(link["traceId"], link["spanId"]) for link in root["links"]] == [(record.trace_id, record.parent_span_id)]
    queued, error = root["events"]
    assert queued["name"] == "appsignal.queue_start"
    assert int(root["startTimeUnixNano"]) - int(queued["timeUnixNano"]) == 12_500_000
    told = attributes_of(error)
    assert (told["exception.type"], told["exception.message"]) == ("shop.MailError", "no items")
    assert told["appsignal.alert_this_error"] is True
    assert json.loads(told["appsignal.error_causes"]) == [
        {"name": CAUSE.class_name, "message": CAUSE.message, "lines": ['File "/app/net.py", line 3, in call']}
    ]
    query = found["query.sqlite (SELECT)"]["attributes"]
    assert (query["appsignal.name"], query["appsignal.category"]) == ("SELECT", "query.sqlite")
    assert (query["db.system.name"], query["db.query.text"]) == ("sqlite", "SELECT * FROM orders WHERE id = ?")
    request = found["request.urllib3"]["attributes"]
    assert request["appsignal.body"] == "GET https://api.example/orders?page=1"


def test_children_come_before_their_root():
    [resource] = appsignal.resources_of(App("k"), [rich()])
    assert [span.parent is None for span in resource.spans] == [False, False, False, True]


@pytest.mark.parametrize(
    ("report", "record", "reported"),
    [
        ("all", job(1, "error", tags={"retries_left": 2}), True),
        ("last_attempt", job(1, "error", tags={"retries_left": 2}), False),
        ("last_attempt", job(1, "error", tags={"retries_left": 0}), True),
        ("last_attempt", job(1, "error"), True),
        ("last_attempt", job(1, "killed", tags={"retries_left": 2}), True),
        ("none", job(1, "error"), False),
        ("none", job(1, "killed"), False),
        ("all", job(1, "ignored", exception=FAILURE), False),
        ("all", job(1), False),
    ],
)
def test_which_errors_are_reported(report, record, reported):
    *_, root = appsignal.of_record(App("k", report=report), record)
    assert [event.name for event in root.events if event.name == "exception"] == ["exception"] * reported
    assert (root.status == 2) is reported


def test_arguments_stay_here_where_they_are_not_wanted():
    *_, root = appsignal.of_record(App("k", arguments=False), rich())
    assert not [name for name in root.attributes if "param" in name or "args" in name]


def test_arguments_that_are_too_long_are_cut_to_what_is_still_json():
    *_, root = appsignal.of_record(App("k"), job(1, args=["x" * 100_000]))
    found = json.loads(root.attributes["appsignal.request.parameters"])
    assert found["truncated"].startswith('{"args": ["xxx')


def app_of(**variables):
    chosen = choose({"AUTOINST_EXPORTERS": "appsignal", **variables}, {"check_ins": {"nightly": {}}}, "/nowhere")
    return chosen.feeds, chosen.problems


def test_the_variables_of_appsignal_are_honoured():
    feeds, problems = app_of(**KEY)
    assert problems == []
    assert [(feed.name, feed.place) for feed in feeds] == [
        ("appsignal/traces", "http://127.0.0.1:8099/v1/traces"),
        ("appsignal/metrics", "http://127.0.0.1:8099/v1/metrics"),
        ("appsignal/check_ins", "https://appsignal-endpoint.net/check_ins/json"),
    ]
    feeds, _ = app_of(**KEY, APPSIGNAL_COLLECTOR_ENDPOINT="https://collector:8099/")
    assert feeds[0].place == "https://collector:8099/v1/traces"
    feeds, _ = app_of(**KEY, APPSIGNAL_OPENTELEMETRY_PORT="9099", APPSIGNAL_LOGGING_ENDPOINT="http://logs")
    assert [feed.place for feed in feeds] == [
        "http://127.0.0.1:9099/v1/traces",
        "http://127.0.0.1:9099/v1/metrics",
        "http://logs/check_ins/json",
    ]
    assert app_of(**KEY, APPSIGNAL_ACTIVE="false") == ([], [])


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, "APPSIGNAL_PUSH_API_KEY is not set, nor push_api_key of the rules file"),
        (KEY | {"APPSIGNAL_OPENTELEMETRY_PORT": "http"}, "APPSIGNAL_OPENTELEMETRY_PORT: 'http' is no port"),
        (
            KEY | {"APPSIGNAL_COLLECTOR_ENDPOINT": "collector:8099"},
            f"APPSIGNAL_COLLECTOR_ENDPOINT: 'collector:8099' {ADDRESS}: write http://collector:8099",
        ),
        (KEY | {"APPSIGNAL_ACTIVE": "maybe"}, "APPSIGNAL_ACTIVE: must be true or false, not 'maybe'"),
        (
            KEY | {"APPSIGNAL_CA_FILE_PATH": "/no/such", "APPSIGNAL_COLLECTOR_ENDPOINT": "https://collector"},
            "certificate /no/such: No such file or directory",
        ),
    ],
)
def test_what_is_wrong_with_a_variable_is_told(variables, told):
    feeds, problems = app_of(**variables)
    assert feeds == []
    assert problems == [f"exporter appsignal: {told}; it is off, and its jobs wait in the store"]


@pytest.fixture
def program(tmp_path):
    found = Program(tmp_path)
    found.write("rules.yaml", CRON_RULES)
    found.write(
        "work.py",
        """\
        def job(what):
            if what == "fail":
                raise OSError(what)
            if what == "wait":
                print("in it", flush=True)
                input()

        def beat():
            pass
        """,
    )
    found.write(
        "main.py",
        """\
        import sys, work
        try:
            work.job(sys.argv[1])
        except OSError:
            pass
        for _ in range(3):
            work.beat()
        """,
    )
    return found


def once(program, sink_url, **variables):
    port = free_port()
    more = KEY | {"APPSIGNAL_LOGGING_ENDPOINT": sink_url, "APPSIGNAL_APP_NAME": "shop", "APPSIGNAL_HOSTNAME": "box"}
    more |= {"APPSIGNAL_APP_ENV": "production", "APPSIGNAL_OPENTELEMETRY_PORT": str(port)}
    return autoinst(
        program.home, "agent", "--once", AUTOINST_RULES=str(program.folder / "rules.yaml"), **more, **variables
    )


def events(sink):
    return [json.loads(line) for _, body in sink.posted for line in body.decode().splitlines()]


def test_check_ins_of_a_worker(program):
    with Sink() as sink:
        assert program.run("main.py", "well").status == 0
        program.run("main.py", "fail")
        done = once(program, sink.url)
        assert "appsignal/check_ins: 8 job(s) sent" in done.stderr
        [(path, _)] = sink.posted
        assert urlsplit(path).path == "/check_ins/json"
        query = {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}
        assert query == {"api_key": "00-key", "name": "shop", "environment": "production", "hostname": "box"}
        start, finish, failed = [event for event in events(sink) if event["check_in_type"] == "cron"]
        [beat] = [event for event in events(sink) if event["check_in_type"] == "heartbeat"]
    well, *_ = [record for record in program.records() if record["action"] == "work#job"]
    assert start == {
        "identifier": "nightly",
        "digest": well["id"],
        "check_in_type": "cron",
        "kind": "start",
        "timestamp": start["timestamp"],
    }
    assert finish == start | {"kind": "finish", "timestamp": finish["timestamp"]}
    assert (failed["kind"], failed["digest"] == well["id"]) == ("start", False)
    assert beat == {"identifier": "alive", "timestamp": beat["timestamp"], "check_in_type": "heartbeat"}
    assert 0 <= finish["timestamp"] - start["timestamp"] <= 60


def test_the_start_of_a_job_is_told_while_it_runs(program):
    worker = subprocess.Popen(
        [sys.executable, "main.py", "wait"],
        cwd=program.folder,
        env=program.environ({}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "in it\n"
    with Sink() as sink:
        program.records()
        [record] = running(str(program.home / "spool"))
        once(program, sink.url)
        [start] = events(sink)
        assert (start["kind"], start["digest"], start["identifier"]) == ("start", record.id, "nightly")
        worker.communicate("\n", timeout=60)
        once(program, sink.url)  # a new process, which does not know that the start was told: with the same digest
        again = [(event["kind"], event["digest"]) for event in events(sink)[1:] if event["check_in_type"] == "cron"]
        assert again == [("start", record.id), ("finish", record.id)]


def test_a_killed_job_has_a_start_and_no_finish(program):
    worker = subprocess.Popen(
        [sys.executable, "main.py", "wait"],
        cwd=program.folder,
        env=program.environ({}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout is not None
    worker.stdout.readline()
    worker.kill()
    worker.communicate()
    with Sink() as sink:
        once(program, sink.url)
        assert [(event["identifier"], event["kind"]) for event in events(sink)] == [("nightly", "start")]


def test_check_ins_that_are_refused_wait_and_the_key_is_not_told(program):
    program.run("main.py", "well")
    with Receiver() as receiver:
        receiver.path_behaviours = {}
        receiver.chance = lambda: status(401, b"no such key: 00-key", Content_Type="text/plain")
        done = once(program, receiver.url)
        assert done.returncode == 1
        told = f"0 job(s) sent, 4 wait: {receiver.url}/check_ins/json: answered 401: no such key: (the key)"
        assert f"appsignal/check_ins: {told}" in done.stderr
        assert "00-key" not in done.stderr
    with Store(str(program.home / "store.sqlite3")) as store:
        row = store.feed("appsignal/check_ins")
    assert row is not None
    assert (row.n, row.state) == (0, "refused")
    with Sink() as sink:
        once(program, sink.url)
        hostile.wait_for(lambda: len(events(sink)) == 3)


def test_doctor_asks_whether_the_key_is_known_and_tests_the_rest(program):
    with Sink() as sink, AppSignalAgent() as agent:
        variables = agent.environ | {"APPSIGNAL_PUSH_API_ENDPOINT": sink.url}
        rules = str(program.folder / "rules.yaml")
        done = autoinst(program.home, "doctor", "--json", AUTOINST_RULES=rules, **variables)
        feeds = {feed["name"]: feed for feed in json.loads(done.stdout)["exporters"]["feeds"]}
        assert {name: feed["ok"] for name, feed in feeds.items()} == {
            "appsignal/traces": True,
            "appsignal/metrics": True,
            "appsignal/check_ins": True,
        }
        assert feeds["appsignal/check_ins"]["test"] == f"the key is known, says {sink.url}/1/auth"
        assert sink.posted[0][0].startswith("/1/auth?api_key=00-key&name=autoinst")
