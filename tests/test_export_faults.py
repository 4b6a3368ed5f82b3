"""Every exporter against an endpoint that misbehaves: nothing lost, nothing there twice, and what came back is told."""

from __future__ import annotations

import logging
import sqlite3
import time

import pytest

from autoinst.errors import StoreError
from autoinst.export.circuit import Circuit
from autoinst.export.prometheus import Prometheus
from autoinst.export.pump import IDLE, Pump
from autoinst.export.scraping import Textfile
from autoinst.store.schema import VERSION
from autoinst.store.sqlite import Store
from tests import hostile
from tests.exporters import FEEDS, METRICS, arrived, begin, check_all_arrived, failing, feed_of
from tests.hostile import Receiver, pauses, status
from tests.servers import free_port
from tests.test_export_pump import MISDEEDS, run_dry
from tests.test_export_receivers import fill

pytestmark = pytest.mark.once

OTHERS = [name for name in FEEDS if name != "otlp/traces"]  # that one has tests of its own
EVERY = [*OTHERS, *METRICS]
JOBS = 30
JOURNAL = logging.getLogger("autoinst.tests.faults")
ONLY_OTLP = ("no OTLP at all",)


def pump_to(name, url, home, **told):
    feed = feed_of(name, url, home, timeout=0.5, **told)
    feed.batch, feed.gather = 8, 0.0
    return Pump(feed, str(home / "store.sqlite3"), JOURNAL, Circuit(0.001, 0.01))


def row_of(home, name):
    with Store(str(home / "store.sqlite3")) as store:
        row = store.feed(name)
    assert row is not None
    return row


def filled(home, pump, number=JOBS):
    fill(home, [])
    begin(str(home / "store.sqlite3"), pump.feed)
    records = [failing(each) for each in range(1, number + 1)]
    fill(home, records)
    return records


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("misdeed", [each for each in MISDEEDS if each not in ONLY_OTLP])
def test_nothing_is_lost_or_doubled(home, name, misdeed):
    with Receiver() as receiver:
        pump = pump_to(name, receiver.url, home)
        records = filled(home, pump)
        receiver.behave(*MISDEEDS[misdeed])
        run_dry(pump)
        pump.close()
        check_all_arrived(receiver, name, records)
        assert receiver.conflicts == []
        assert receiver.pending == 0
    row = row_of(home, name)
    assert (row.jobs, row.parked, row.missing, row.state) == (JOBS, 0, 0, "ok")


@pytest.mark.parametrize("name", [*FEEDS, *METRICS])
def test_a_receiver_that_is_down_for_minutes_is_asked_ever_more_seldom(home, name):
    now = [1000.0]
    with Receiver() as receiver:
        pump = pump_to(name, receiver.url, home)
        pump.circuit = Circuit(clock=lambda: now[0], chance=lambda: 1.0)
        records = filled(home, pump)
        receiver.chance = lambda: status(503) if now[0] < 1600 else None
        assert pauses(pump, now) == pytest.approx([1, 2, 4, 8, 16, 32, 64, 128, 256, 300])
        run_dry(pump)
        pump.close()
        assert receiver.requests < 30
        check_all_arrived(receiver, name, records)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://127.0.0.1:{port}", "connection refused"),
        ("http://no-such-host.invalid:4318", "its name has no address"),
        ("https://127.0.0.1:{plain}", "TLS failed"),
    ],
)
def test_an_endpoint_that_cannot_be_reached_is_named_with_the_reason(home, name, url, told):
    with Receiver() as receiver:
        pump = pump_to(name, url.format(port=free_port(), plain=receiver.port), home)
        filled(home, pump, 1)
        turn = pump.turn(all_now=True)
        assert turn.troubled
        assert told in pump.trouble
        row = row_of(home, name)
        assert (row.state, row.jobs, row.n) == ("waiting", 0, 0)
        pump.close()


@pytest.mark.parametrize("name", EVERY)
def test_a_receiver_that_asks_for_time_gets_it(home, name):
    now = [1000.0]
    with Receiver() as receiver:
        pump = pump_to(name, receiver.url, home)
        pump.circuit = Circuit(0.001, 0.01, clock=lambda: now[0])
        records = filled(home, pump)
        receiver.behave(status(429, Retry_After="17"))
        assert pump.turn(all_now=True).wait == pytest.approx(17, abs=0.1)
        now[0] += 16.5
        assert pump.turn(all_now=True).wait == pytest.approx(0.5, abs=0.1)
        assert receiver.requests == 1
        now[0] += 1
        run_dry(pump)
        pump.close()
        check_all_arrived(receiver, name, records)


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_refused_alone_is_parked_and_all_else_arrives(home, name):
    with Receiver() as receiver:
        pump = pump_to(name, receiver.url, home)
        records = filled(home, pump)
        bad = records[13]
        marks = {"webhook": "shop.Error000014", "appsignal/check_ins": bad.id}
        mark = marks[name].encode() if name in marks else bytes.fromhex(bad.id[16:])
        receiver.chance = lambda: hostile.refuse_what_has(mark)
        run_dry(pump)
        pump.close()
        receiver.chance = lambda: None
        assert sorted(arrived(receiver, name, records)) == sorted(r.id for r in records if r is not bad)
    row = row_of(home, name)
    assert (row.jobs, row.parked) == (JOBS - 1, 1)


def test_feeds_do_not_hold_each_other_up(home):
    """All in one process's threads: three hang, the fourth arrives."""
    from autoinst.export.service import Runner
    from autoinst.export.settings import choose
    from tests.exporters import RULES, variables

    with Receiver() as receiver:
        for path in ("/v1/traces", "/v1/metrics", "/appsignal/v1/traces", "/appsignal/v1/metrics", "/check_ins/json"):
            receiver.path_behaviours[path] = hostile.hang
        fill(home, [])
        settings = {"check_ins": {"nightly": RULES}, "exporters": {"appsignal": {"timeout": 60.0}}}
        environ = variables(receiver.url, OTEL_EXPORTER_OTLP_TIMEOUT="60000")
        chosen = choose(environ, settings, str(home))
        begin(str(home / "store.sqlite3"), chosen.feeds[-1])
        runner = Runner(chosen, str(home / "store.sqlite3"), JOURNAL)
        records = [failing(1)]
        fill(home, records)
        began = time.monotonic()
        runner.start()
        hostile.wait_for(lambda: arrived(receiver, "webhook", records) == [records[0].id])
        hostile.wait_for(lambda: receiver.hanging >= 4)
        assert time.monotonic() - began < 55  # the others hang for 60
        receiver.released.set()
        runner.stop(1.0)


def test_a_store_of_a_newer_version_is_left_alone_and_named(home, tmp_path):
    path = str(home / "store.sqlite3")
    told = f"{path}: written by a newer autoinst (version {VERSION + 1}, this one knows {VERSION})"
    with Receiver() as receiver:
        pumps = [pump_to(name, receiver.url, home) for name in FEEDS]
        fill(home, [failing(1)])
        with sqlite3.connect(path) as con:
            con.execute(f"PRAGMA user_version = {VERSION + 1}")
        con.close()
        for pump in pumps:
            assert pump.turn(all_now=True).troubled
            assert pump.trouble == told
            pump.close()
        assert receiver.requests == 0
    with pytest.raises(StoreError, match="written by a newer autoinst"):
        Textfile(Prometheus({}), str(tmp_path / "it.prom"), 1.0).once(path)
    assert not (tmp_path / "it.prom").exists()


def test_the_pump_waits_where_there_is_nothing(home):
    with Receiver() as receiver:
        pump = pump_to("webhook", receiver.url, home)
        assert pump.turn().wait > 0  # no store yet
        fill(home, [])
        assert pump.turn().wait == IDLE
        pump.close()
        assert receiver.requests == 0
