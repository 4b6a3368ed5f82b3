"""Records as OTLP has them: protobuf decoded by OpenTelemetry's own messages, and JSON that says the same."""

from __future__ import annotations

import json
import math
import struct

import pytest

from autoinst.export import metrics, otlp_json, protobuf, spans
from autoinst.export.signals import Resource
from tests.exported import FAILURE, START_NS, job, rich
from tests.receivers import attributes_of, decode, spans_of

pytestmark = pytest.mark.once


def traced(records):
    return [
        Resource(spans.resource_of(group[0]), tuple(span for record in group for span in spans.of_record(record)))
        for group in spans.by_resource(records).values()
    ]


def measured(records):
    return [Resource(spans.resource_of(records[0]), (), metrics.of_records(records), START_NS, START_NS + 10**10)]


def test_spans_say_the_same_as_protobuf_and_as_json():
    resources = traced([rich(), job(2), job(3, "killed"), job(4, pid=43, service=None)])
    (message,) = decode("traces", protobuf.traces(resources))
    assert message == json.loads(otlp_json.traces(resources))
    assert [len(spans_of({"resourceSpans": [part]})) for part in message["resourceSpans"]] == [6, 1]
    assert attributes_of(message["resourceSpans"][1]["resource"])["service.name"] == "unknown_service:python"


def test_metrics_say_the_same_as_protobuf_and_as_json():
    resources = measured([rich(), job(2), job(3, "killed", duration_ns=None), job(4, "error")])
    (message,) = decode("metrics", protobuf.metrics(resources))
    assert message == json.loads(otlp_json.metrics(resources))


def test_hard_numbers_say_the_same_as_protobuf_and_as_json():
    tags = {"nan": math.nan, "inf": math.inf, "least": -(2**63), "most": 2**63 - 1, "yes": True, "none": None}
    resources = traced([job(1, tags=tags, started_ns=1, duration_ns=None, action="\ud800\0")])
    (message,) = decode("traces", protobuf.traces(resources))
    assert message == json.loads(otlp_json.traces(resources))


def test_a_job_is_a_span_with_events_as_children():
    record = rich()
    root, query, request, render = spans_of(decode("traces", protobuf.traces(traced([record])))[0])
    assert (root["traceId"], root["parentSpanId"]) == (record.trace_id, record.parent_span_id)
    assert root["links"] == [{"traceId": record.trace_id, "spanId": record.parent_span_id}]
    assert (root["name"], root["kind"]) == ("shop.Mailer#perform", 5)
    assert int(root["endTimeUnixNano"]) - int(root["startTimeUnixNano"]) == record.duration_ns
    assert root["status"] == {"code": 2, "message": "shop.MailError: no items"}
    assert root["droppedEventsCount"] == 4
    wanted = {
        "messaging.system": "rq",
        "messaging.operation.type": "process",
        "messaging.destination.name": "mail",
        "messaging.message.id": "6e0c",
        "code.function.name": "shop.Mailer.perform",
        "error.type": "shop.MailError",
        "autoinst.queue_time": 12.5,
        "autoinst.args": '[13, {"a": null}]',
        "autoinst.tag.tenant": "acme",
        "autoinst.tag.size": 3,
        "autoinst.tag.big": str(2**70),
        "autoinst.tag.list": "[1, 2]",
        "autoinst.tag.odd": "\\ud800",
        "autoinst.adjusted_count": 20.0,
    }
    assert {name: root["attributes"].get(name) for name in wanted} == wanted
    assert query["parentSpanId"] == request["parentSpanId"] == root["spanId"]
    assert render["parentSpanId"] == request["spanId"]
    assert len({root["spanId"], query["spanId"], request["spanId"], render["spanId"]}) == 4
    assert (query["kind"], query["name"]) == (3, "query.sqlite SELECT")
    assert query["attributes"] == {
        "autoinst.name": "query.sqlite",
        "autoinst.title": "SELECT",
        "db.system.name": "sqlite",
        "db.operation.name": "SELECT",
        "db.query.text": "SELECT * FROM orders WHERE id = ?",
    }
    assert request["attributes"]["http.request.method"] == "GET"
    assert request["attributes"]["url.full"] == "https://api.example/orders?page=1"
    assert int(query["startTimeUnixNano"]) == record.started_ns + 1_000_000
    assert render["endTimeUnixNano"] == root["endTimeUnixNano"]


def test_an_exception_is_an_event_with_its_causes():
    (root, *_) = spans_of(decode("traces", protobuf.traces(traced([rich()])))[0])
    (event,) = root["events"]
    found = attributes_of(event)
    assert (event["name"], found["exception.type"], found["exception.message"]) == (
        "exception",
        "shop.MailError",
        "no items",
    )
    trace = found["exception.stacktrace"]
    assert trace.index("socket.timeout: timed out") < trace.index('File "/app/jobs.py", line 17, in perform')
    assert trace.endswith("shop.MailError: no items\n")


def test_an_ignored_exception_is_no_error():
    (root,) = spans_of(decode("traces", protobuf.traces(traced([job(1, "ignored", exception=FAILURE)])))[0])
    assert "status" not in root
    assert root["events"][0]["name"] == "exception"


def test_a_killed_job_is_an_error_without_an_exception():
    (root,) = spans_of(decode("traces", protobuf.traces(traced([job(1, "killed")])))[0])
    assert root["status"] == {"code": 2, "message": "process 42 killed by SIGKILL in query.sqlite"}
    assert root["attributes"]["error.type"] == "killed"


def test_the_job_an_outer_job_began_is_its_child():
    outer, inner = job(1), job(2)
    inner.trace_id, inner.parent_span_id = outer.id, outer.id[16:]
    first, second = spans_of(decode("traces", protobuf.traces(traced([outer, inner])))[0])
    assert (second["traceId"], second["parentSpanId"]) == (first["traceId"], first["spanId"])


def test_metrics_count_each_job_once_and_samples_for_what_they_stand_for():
    records = [job(1), job(2, duration_ns=60_000_000), job(3, "killed", duration_ns=None), job(4, adjusted_count=20.0)]
    (message,) = decode("metrics", protobuf.metrics(measured(records)))
    (scope,) = message["resourceMetrics"][0]["scopeMetrics"]
    found = {metric["name"]: metric for metric in scope["metrics"]}
    duration = found["messaging.process.duration"]
    assert (duration["unit"], duration["histogram"]["aggregationTemporality"]) == ("s", 1)
    (point,) = duration["histogram"]["dataPoints"]
    assert (point["count"], point["sum"], point["min"], point["max"]) == ("22", pytest.approx(0.585), 0.025, 0.06)
    counts = [int(number) for number in point["bucketCounts"]]
    assert {bound: count for bound, count in zip([*point["explicitBounds"], "+"], counts, strict=True) if count} == {
        0.025: 21,
        0.075: 1,
    }
    assert len(counts) == len(point["explicitBounds"]) + 1
    jobs = {
        attributes_of(point)["autoinst.status"]: int(point["asInt"])
        for point in found["autoinst.jobs"]["sum"]["dataPoints"]
    }
    assert jobs == {"ok": 22, "killed": 1}
    assert found["autoinst.jobs"]["sum"]["isMonotonic"] is True
    assert sum(int(p["count"]) for p in found["autoinst.job.queue_time"]["histogram"]["dataPoints"]) == 23


def test_the_number_of_actions_in_one_batch_of_metrics_is_bounded():
    records = [job(number, action=f"shop.Job{number}#perform") for number in range(metrics.MAX_ACTIONS + 50)]
    duration, *_ = metrics.of_records(records)
    assert len(duration.points) == metrics.MAX_ACTIONS + 1
    assert duration.points[-1].attributes["autoinst.action"] == metrics.OTHER
    assert duration.points[-1].number == 50


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**32, 2**64 - 1])
def test_varints_read_back(value):
    assert list(protobuf.fields(protobuf.number(1, value))) == [(1, value)]


def test_answers_are_read():
    part = protobuf.number(1, 7) + protobuf.text(2, "too old")
    assert protobuf.partial_success(protobuf.sized(1, part)) == (7, "too old")
    assert protobuf.partial_success(b"") == (0, "")
    assert protobuf.status_message(protobuf.number(1, 3) + protobuf.text(2, "bad data")) == "bad data"
    assert otlp_json.partial_success(b'{"partialSuccess": {"rejectedSpans": "7", "errorMessage": "old"}}') == (7, "old")
    assert otlp_json.partial_success(b"") == otlp_json.partial_success(b"{}") == (0, "")


@pytest.mark.parametrize("data", [b"<html>", b"\x0a\x7f", b"\x80" * 20, b"\x0f\x01", struct.pack("<Q", 2**63)])
def test_what_is_no_message_is_told(data):
    with pytest.raises(ValueError, match="not a message"):
        protobuf.partial_success(data)
