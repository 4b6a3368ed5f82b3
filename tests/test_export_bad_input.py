"""What is wrong with what exporters and the store were told is said by doctor and in the log; nothing is lost."""

from __future__ import annotations

import json
import sqlite3
import time

import pytest

from autoinst.export.changes import Changes, ChangesPump
from autoinst.export.clickhouse import Connection
from autoinst.store.query import JobFilter
from autoinst.store.schema import VERSION
from autoinst.store.sqlite import Store
from tests import hostile
from tests.clickhouses import QUIET, Debian, read, ship
from tests.exported import job
from tests.exporters import variables
from tests.hostile import Receiver, status
from tests.test_clickhouse_agent import autoinst
from tests.test_export_receivers import fill

pytestmark = pytest.mark.once

SCHEME = "must be an address that begins with http:// or https://"
MEANT = "http://collector:4318"
FORM = "clickhouse://user:password@host:8123/database"


def line_of(agent, told):
    """Return the first line of an agent's log that has `told` in it."""
    while told not in (line := agent.stderr.readline()):
        assert line, f"the agent ended and did not say: {told}"
    return line


def check(home, agents, told, **wrong):
    """Assert that agent and doctor say what is wrong, and that the jobs are where they were."""
    agent = agents.start(**wrong)
    line_of(agent, told)
    agent.terminate()
    assert agent.wait(60) == 0
    found = autoinst(home, "doctor", "--json", **wrong)
    assert found.returncode == 1
    attention = json.loads(found.stdout)["attention"]
    assert any(told in text for text in attention), attention
    with Store(str(home / "store.sqlite3"), readonly=True) as store:
        assert store.count() == 3
        assert [row for row in store.feeds() if row.parked or row.left_out or row.n] == []
    return attention


@pytest.fixture
def filled(home):
    fill(home, [job(number) for number in range(1, 4)])


BAD_KEYS = {
    "otlp": ("/v1/traces", "answered 401: unknown key"),
    "appsignal": ("/appsignal/v1/traces", "answered 401: unknown key"),
}


@pytest.mark.parametrize("exporter", ["otlp", "appsignal"])
def test_a_wrong_key(home, agents, filled, exporter):
    path, told = BAD_KEYS[exporter]
    with Receiver() as receiver:
        wrong = variables(receiver.url, AUTOINST_EXPORTERS=exporter)
        receiver.chance = lambda: status(401, b"unknown key", Content_Type="text/plain")
        told = f"{receiver.url}{path}: {told}"
        attention = check(home, agents, told, **wrong)
        assert any(text.endswith("3 job(s) wait in the store") for text in attention)
        receiver.chance = lambda: None
        assert autoinst(home, "agent", "--once", **wrong).returncode == 0
        if exporter == "otlp":
            assert sorted(receiver.jobs) == sorted(job(number).id for number in range(1, 4))


@pytest.mark.parametrize(
    ("name", "exporter", "told"),
    [
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "otlp",
            f"exporter otlp: OTEL_EXPORTER_OTLP_ENDPOINT: 'collector:4318' {SCHEME}: write {MEANT}; it is off, and",
        ),
        (
            "APPSIGNAL_COLLECTOR_ENDPOINT",
            "appsignal",
            f"exporter appsignal: APPSIGNAL_COLLECTOR_ENDPOINT: 'collector:4318' {SCHEME}: write {MEANT}; it is off",
        ),
        ("AUTOINST_WEBHOOK_URL", "webhook", f"exporter webhook: AUTOINST_WEBHOOK_URL: {SCHEME}"),
    ],
)
def test_an_endpoint_without_a_scheme(home, agents, filled, name, exporter, told):
    check(
        home,
        agents,
        told,
        **variables("http://127.0.0.1:9", **{"AUTOINST_EXPORTERS": exporter, name: "collector:4318"}),
    )


def test_a_store_without_a_scheme(home, agents, filled):
    wrong = {"AUTOINST_STORE": "clickhouse.example:8123/autoinst"}
    check(home, agents, f"AUTOINST_STORE has no scheme: write {FORM}", **wrong)


def test_a_store_of_an_unknown_version(home, agents, filled):
    path = str(home / "store.sqlite3")
    with Receiver() as receiver:
        told = f"{path}: written by a newer autoinst (version {VERSION + 1}, this one knows {VERSION})"
        version(path, VERSION + 1)
        agent = agents.launch(**variables(receiver.url))  # which does not keep the lead
        line_of(agent, told)
        found = autoinst(home, "doctor", "--json", **variables(receiver.url))
        assert found.returncode == 1
        assert any(told in text for text in json.loads(found.stdout)["attention"])
        agent.terminate()
        agent.wait(60)
        assert receiver.jobs == []
        version(path, VERSION)
        assert autoinst(home, "agent", "--once", **variables(receiver.url)).returncode == 0
        hostile.wait_for(lambda: len(receiver.jobs) == 3)


def version(path, number):
    with sqlite3.connect(path) as con:
        con.execute(f"PRAGMA user_version = {number}")
    con.close()


@pytest.mark.service
def test_a_clock_that_steps_loses_and_doubles_nothing_on_clickhouse(home, monkeypatch):
    now = [time.time_ns()]
    monkeypatch.setattr(time, "time_ns", lambda: now[0])
    path = str(home / "store.sqlite3")
    with Debian() as server:
        address = server.make()
        for step, first in ((0, 1), (-3600, 11), (7200, 21), (-7200, 31)):
            now[0] += step * 10**9
            fill(home, [job(number, "error") for number in range(first, first + 5)])
            ship(path, address)
            with Store(path, readonly=True) as here, read(address) as there:
                expected = [record.to_json() for record in here.jobs(JobFilter(limit=0))]
                assert [record.to_json() for record in there.jobs(JobFilter(limit=0))] == expected
                assert there.totals(0, 2**62) == here.totals(0, 2**62)
                assert [group.total for group in there.errors()] == [len(expected)]
                (told,) = there.homes()
                assert told["waiting"] == 0
        with Store(path) as here, here.transaction():
            here.insert([job(99)])
            row = here.feed(address.feed)
        assert row is not None
        pump = ChangesPump(Changes(Connection(address, path)), path, QUIET)
        pump.turn(all_now=True)
        pump.close()
        with read(address) as there:
            assert [told["waiting"] for told in there.homes()] == [1]  # what was said last, by a clock that went back
