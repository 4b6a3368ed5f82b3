"""Feeds against a receiver that misbehaves: nothing is lost, and nothing is there twice after the token."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

import pytest

from autoinst.export.circuit import Circuit
from autoinst.export.endpoint import Endpoint, Reaching
from autoinst.export.otlp import JSON, Metrics, Traces, resources_of
from autoinst.export.pump import IDLE, PARKED_IN_A_ROW, Pump
from autoinst.store.sqlite import Store
from tests import hostile
from tests.exported import job
from tests.hostile import Receiver, status
from tests.servers import free_port

if TYPE_CHECKING:
    from tests.hostile import Behaviour

pytestmark = pytest.mark.once

JOBS = 40


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "store.sqlite3")


@pytest.fixture
def journal(caplog):
    logger = logging.getLogger("autoinst.tests.export")
    logger.setLevel(logging.INFO)
    return logger


def fill(path, records):
    with Store(path) as store, store.transaction():
        store.insert(records)


def pump_to(url, path, journal, *, seconds=5.0, batch=16, backlog=1_000_000, **reaching):
    endpoint = Endpoint(f"{url}/v1/traces", Reaching(seconds=seconds, **reaching))
    feed = Traces(endpoint, JSON, backlog=backlog)
    feed.batch = batch
    return Pump(feed, path, journal, Circuit(0.001, 0.01))


def run_dry(pump, seconds=60.0):
    """Turn until there is nothing more to send."""
    deadline = time.monotonic() + seconds
    while (turn := pump.turn(all_now=True)).wait != IDLE:
        assert time.monotonic() < deadline, pump.trouble
        time.sleep(min(turn.wait, 0.02))


def row_of(path):
    with Store(path) as store:
        row = store.feed("otlp/traces")
    assert row is not None
    return row


MISDEEDS: dict[str, list[Behaviour]] = {
    "reset": [hostile.reset],
    "reset after it was taken": [hostile.taken_then(hostile.reset)],
    "half an answer": [hostile.half_an_answer],
    "5xx for a while": [status(500), status(502), status(503, b"busy", Content_Type="text/plain"), status(504)],
    "5xx after it was taken": [hostile.taken_then(status(503))],
    "429": [status(429, Retry_After="0")],
    "wrong content type": [status(200, b"<html>hello</html>", Content_Type="text/html")],
    "no OTLP at all": [status(200, b"\xff\xff\xff", Content_Type="application/x-protobuf")],
    "redirect": [status(302, Location="http://127.0.0.1:1/elsewhere")],
    "unauthorized": [status(401), status(403)],
    "not found": [status(404)],
    "too large": [status(413), status(413)],
    "hangs": [hostile.hang],
    "slow loris": [hostile.trickle],
    "slow loris after it was taken": [hostile.taken_then(hostile.trickle)],
}


@pytest.mark.parametrize("name", MISDEEDS)
def test_nothing_is_lost_or_doubled(path, journal, name):
    records = [job(number) for number in range(1, JOBS + 1)]
    fill(path, records)
    with Receiver() as receiver:
        receiver.behave(*MISDEEDS[name])
        pump = pump_to(receiver.url, path, journal, seconds=0.5)
        run_dry(pump)
        pump.close()
        assert sorted(receiver.jobs) == sorted(record.id for record in records)
        assert receiver.conflicts == []
        assert receiver.pending == 0
    row = row_of(path)
    assert (row.jobs, row.parked, row.missing, row.state) == (JOBS, 0, 0, "ok")


def test_what_came_back_is_told_while_it_lasts(path, journal, caplog):
    fill(path, [job(1)])
    with Receiver() as receiver:
        receiver.behave(status(503, b"down for repair", Content_Type="text/plain"))
        pump = pump_to(receiver.url, path, journal)
        turn = pump.turn(all_now=True)
        assert turn.troubled
        told = f"{receiver.url}/v1/traces: answered 503: down for repair"
        row = row_of(path)
        assert (row.state, row.detail) == ("waiting", told)
        assert f"otlp/traces: {told}; nothing is lost, trying again" in caplog.messages
        run_dry(pump)
        assert (row_of(path).state, row_of(path).detail) == ("ok", None)
        assert f"otlp/traces: {receiver.url}/v1/traces takes jobs again" in caplog.messages
        pump.close()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://127.0.0.1:{port}", "connection refused"),
        ("http://no-such-host.invalid:4318", "its name has no address"),
        ("https://127.0.0.1:{plain}", "TLS failed"),
    ],
)
def test_an_endpoint_that_cannot_be_reached_is_named_with_the_reason(path, journal, url, told):
    fill(path, [job(1)])
    with Receiver() as receiver:
        pump = pump_to(url.format(port=free_port(), plain=receiver.port), path, journal)
        assert pump.turn(all_now=True).troubled
        assert told in pump.trouble
        assert row_of(path).state == "waiting"
        pump.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    context, trusted = hostile.certificate(tmp_path_factory.mktemp("tls"))
    return context, str(trusted)


def test_a_certificate_that_is_not_trusted_is_told_and_one_that_is_named_is_trusted(path, journal, certificate):
    context, trusted = certificate
    fill(path, [job(1)])
    with Receiver(context) as receiver:
        pump = pump_to(receiver.url, path, journal)
        assert pump.turn(all_now=True).troubled
        assert "its certificate is not trusted: self-signed certificate" in pump.trouble
        pump.close()
        pump = pump_to(receiver.url, path, journal, certificate=trusted)
        run_dry(pump)
        pump.close()
        assert receiver.jobs == [job(1).id]


def test_a_receiver_that_asks_for_time_gets_it(path, journal):
    fill(path, [job(1)])
    now = [1000.0]
    with Receiver() as receiver:
        receiver.behave(status(429, Retry_After="17"), status(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"))
        pump = pump_to(receiver.url, path, journal)
        pump.circuit = Circuit(0.001, 0.01, clock=lambda: now[0])
        assert pump.turn(all_now=True).wait == pytest.approx(17, abs=0.1)
        now[0] += 16.9
        assert pump.turn(all_now=True).wait == pytest.approx(0.1, abs=0.01)
        assert receiver.requests == 1
        now[0] += 0.2
        assert 0 < pump.turn(all_now=True).wait < 0.02  # a date that is past asks for nothing
        assert receiver.requests == 2
        now[0] += 1
        run_dry(pump)
        pump.close()
        assert receiver.jobs == [job(1).id]


def test_pauses_double_up_to_the_longest_and_are_left_to_chance():
    shares = iter([0.0, 1.0] * 20)
    circuit = Circuit(1.0, 60.0, clock=lambda: 0.0, chance=lambda: next(shares))
    assert [circuit.failed() for _ in range(8)] == [0.5, 2.0, 2.0, 8.0, 8.0, 32.0, 30.0, 60.0]
    assert circuit.wait() == 60.0
    circuit.succeeded()
    assert circuit.wait() == 0.0
    assert circuit.failed(wrong=True) == 30.0  # settings do not mend themselves within a second


@pytest.mark.parametrize("code", [400, 413, 422])
def test_the_one_job_that_is_refused_is_parked_and_all_others_arrive(path, journal, code):
    records = [job(number) for number in range(1, JOBS + 1)]
    bad = records[13].id
    fill(path, records)
    with Receiver() as receiver:
        receiver.behave(*hostile.repeated(hostile.refuse_jobs(bad, code=code), 1000))
        pump = pump_to(receiver.url, path, journal)
        run_dry(pump)
        pump.close()
        assert sorted(receiver.jobs) == sorted(record.id for record in records if record.id != bad)
    with Store(path) as store:
        (parked,) = store.parked()
    row = row_of(path)
    assert (parked.job, parked.reason) == (bad, f"job {bad}: answered {code}: bad span")
    assert (row.jobs, row.parked, row.missing) == (JOBS - 1, 1, 0)


def test_a_job_that_cannot_be_encoded_is_parked_and_all_others_arrive(path, journal):
    records = [job(number) for number in range(1, JOBS + 1)]
    records[7].tags = {"size": 1}
    fill(path, records)

    def resources(batch):
        if any(record.tags for record in batch):
            raise TypeError("a tag")
        return resources_of(batch)

    with Receiver() as receiver:
        pump = Pump(Traces(Endpoint(f"{receiver.url}/v1/traces", Reaching()), JSON, resources=resources), path, journal)
        run_dry(pump)
        pump.close()
        assert sorted(receiver.jobs) == sorted(record.id for record in records if not record.tags)
    with Store(path) as store:
        (parked,) = store.parked()
    assert parked.reason == f"job {records[7].id}: cannot be encoded: TypeError: a tag"


def test_a_batch_stays_whole_though_batches_are_smaller_now(path, journal):
    records = [job(number) for number in range(1, JOBS + 1)]
    fill(path, records)
    with Receiver() as receiver:
        receiver.behave(hostile.reset)
        pump = pump_to(receiver.url, path, journal, batch=JOBS)
        assert pump.turn(all_now=True).troubled
        pump.close()
        pump = pump_to(receiver.url, path, journal, batch=4)
        run_dry(pump)
        pump.close()
        assert receiver.jobs == [record.id for record in records]
    assert row_of(path).missing == 0


def test_a_receiver_that_refuses_everything_does_not_have_all_parked(path, journal):
    fill(path, [job(number) for number in range(1, 60)])
    with Receiver() as receiver:
        receiver.behave(*hostile.repeated(status(400), 1000))
        pump = pump_to(receiver.url, path, journal)
        while not (turn := pump.turn(all_now=True)).troubled:
            assert turn.wait == 0
        pump.close()
    row = row_of(path)
    assert (row.parked, row.state) == (PARKED_IN_A_ROW, "refused")
    assert "refuses one job after the other: answered 400" in row.detail


def test_what_a_receiver_drops_of_what_it_took_is_counted_and_not_sent_again(path, journal):
    fill(path, [job(1), job(2)])
    answer = b'{"partialSuccess": {"rejectedSpans": "1", "errorMessage": "too old"}}'
    with Receiver() as receiver:
        receiver.behave(hostile.taken_then(status(200, answer, Content_Type="application/json")))
        pump = pump_to(receiver.url, path, journal)
        run_dry(pump)
        pump.close()
        assert receiver.requests == 1
    row = row_of(path)
    assert (row.jobs, row.rejected, row.state) == (2, 1, "ok")
    assert row.detail.endswith("rejected 1 of what it took: too old")


def test_beyond_the_backlog_the_oldest_are_left_out_and_counted(path, journal, caplog):
    records = [job(number) for number in range(1, 31)]
    fill(path, records)
    with Receiver() as receiver:
        pump = pump_to(receiver.url, path, journal, backlog=10)
        run_dry(pump)
        pump.close()
        assert receiver.jobs == [record.id for record in records[20:]]
    assert row_of(path).left_out == 20
    assert "otlp/traces: more than 10 jobs wait; the oldest 20 are left out" in caplog.messages


def test_jobs_that_came_while_a_batch_was_under_way_are_not_in_it_when_it_is_sent_again(path, journal):
    fill(path, [job(1), job(2)])
    with Receiver() as receiver:
        receiver.behave(hostile.taken_then(hostile.reset))
        pump = pump_to(receiver.url, path, journal)
        assert pump.turn(all_now=True).troubled
        pump.close()
        fill(path, [job(3)])
        pump = pump_to(receiver.url, path, journal)  # as the next process would
        run_dry(pump)
        pump.close()
        assert receiver.jobs == [job(number).id for number in (1, 2, 3)]
        first, again, other = receiver.tokens
        assert first == again != other


def test_a_killed_job_that_had_ended_after_all_is_sent_again_with_the_same_ids(path, journal):
    fill(path, [job(1, "killed")])
    with Receiver() as receiver:
        pump = pump_to(receiver.url, path, journal)
        run_dry(pump)
        fill(path, [job(1)])
        run_dry(pump)
        pump.close()
        first, second = receiver.spans
        assert (first["traceId"], first["spanId"]) == (second["traceId"], second["spanId"])
        assert ("status" in first, "status" in second) == (True, False)


def test_a_store_that_was_moved_aside_is_left_for_the_new_one(path, journal):
    fill(path, [job(1)])
    with Receiver() as receiver:
        pump = pump_to(receiver.url, path, journal)
        run_dry(pump)
        for name in (path, f"{path}-wal", f"{path}-shm"):
            if os.path.exists(name):
                os.rename(name, f"{name}.corrupt")
        assert pump.turn(all_now=True).wait not in (0, IDLE)
        fill(path, [job(2)])
        run_dry(pump)
        pump.close()
        assert receiver.jobs == [job(1).id, job(2).id]


def test_a_clock_that_steps_back_gives_metrics_times_in_order(path, journal, monkeypatch):
    now = [2_000_000_000_000_000_000]
    monkeypatch.setattr(time, "time_ns", lambda: now[0])
    fill(path, [job(1)])
    with Receiver() as receiver:
        feed = Metrics(Endpoint(f"{receiver.url}/v1/metrics", Reaching()), JSON)
        pump = Pump(feed, path, journal, Circuit(0.001, 0.01))
        run_dry(pump)
        now[0] -= 3600 * 10**9
        fill(path, [job(2)])
        run_dry(pump)
        pump.close()
        points = [
            metric["sum"]["dataPoints"][0]
            for body in receiver.bodies.values()
            for metric in body["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]
            if "sum" in metric
        ]
    first, second = ((int(point["startTimeUnixNano"]), int(point["timeUnixNano"])) for point in points)
    assert first[0] < first[1] == second[0] < second[1]


def test_what_is_sent_is_compressed_and_has_the_headers_asked_for(path, journal):
    fill(path, [job(1)])
    with Receiver() as receiver:
        pump = pump_to(receiver.url, path, journal, headers={"X-Key": "secret"})
        run_dry(pump)
        pump.close()
        (headers,) = receiver.headers
    assert (headers["X-Key"], headers["Content-Encoding"]) == ("secret", "gzip")
    assert headers["User-Agent"].startswith("autoinst/")
    assert int(headers["Content-Length"]) == row_of(path).bytes
