"""A ClickHouse server behind what misbehaves: nothing lost, nothing there twice, and what came back is told."""

from __future__ import annotations

import logging
import time

import pytest

from autoinst.export.changes import Changes, ChangesPump
from autoinst.export.circuit import Circuit
from autoinst.export.clickhouse import Connection, Jobs
from autoinst.export.pump import IDLE, Pump
from autoinst.store.clickhouse.address import parse
from autoinst.store.clickhouse.client import Client
from autoinst.store.query import JobFilter
from autoinst.store.sqlite import Store
from tests import hostile
from tests.agents import Agents, eventually
from tests.between import Between
from tests.clickhouses import PASSWORD, USER, read, ship
from tests.exported import job
from tests.harness import Program
from tests.hostile import Receiver, pauses, status
from tests.servers import free_port
from tests.test_export_pump import MISDEEDS, run_dry
from tests.test_export_receivers import fill

pytestmark = [pytest.mark.once, pytest.mark.service]

JOBS = 30
SECONDS = 1.5  # a request may take; the hanging ones do
JOURNAL = logging.getLogger("autoinst.tests.clickhouse")
FAULTS = [name for name in MISDEEDS if name != "no OTLP at all"]
INSERTS = {"jobs": "INSERT+INTO+job", "totals": "INSERT+INTO+total"}


def through(port, database, scheme="clickhouse"):
    return f"{scheme}://{USER}:{PASSWORD.replace('&', '%26').replace(' ', '%20')}@127.0.0.1:{port}/{database}"


def pump_to(kind, url, home, circuit=None):
    path = str(home / "store.sqlite3")
    connection = Connection(parse(url), path)
    connection.client.close()
    connection.client = Client(connection.address, seconds=SECONDS)
    circuit = circuit or Circuit(0.001, 0.01)
    if kind == "totals":
        return ChangesPump(Changes(connection), path, JOURNAL, circuit)
    feed = Jobs(connection)
    feed.batch, feed.gather = 8, 0.0
    return Pump(feed, path, JOURNAL, circuit)


def records(number=JOBS):
    return [job(n, "error" if n % 5 == 0 else "ok") for n in range(1, number + 1)]


def same(home, address, number=JOBS):
    """Compare what the server has with what this machine has; return the latter's jobs."""
    with Store(str(home / "store.sqlite3"), readonly=True) as sqlite, read(address) as clickhouse:
        expected = [record.to_json() for record in sqlite.jobs(JobFilter(limit=0))]
        assert len(expected) == clickhouse.count() == number
        assert [record.to_json() for record in clickhouse.jobs(JobFilter(limit=0))] == expected
        assert clickhouse.totals(0, 2**62) == sqlite.totals(0, 2**62)
        assert [group.total for group in clickhouse.errors()] == [group.total for group in sqlite.errors()]


@pytest.mark.parametrize("kind", INSERTS)
@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_lost_or_doubled(clickhouse, home, kind, fault):
    address = clickhouse.make()
    fill(home, records())
    with Between(clickhouse.port) as proxy:
        proxy.only = INSERTS[kind]
        proxy.behave(*MISDEEDS[fault])
        pump = pump_to(kind, through(proxy.port, address.database), home)
        run_dry(pump)
        pump.close()
        assert proxy.pending == 0
        assert pump.trouble == ""
    ship(str(home / "store.sqlite3"), address)  # what the other feed sends
    same(home, address)
    with Store(str(home / "store.sqlite3")) as store:
        assert store.changed() == 0
        assert [(row.jobs, row.parked, row.missing, row.state) for row in store.feeds()][-1] == (JOBS, 0, 0, "ok")


@pytest.mark.parametrize("kind", INSERTS)
def test_a_server_that_misbehaves_from_the_first_question_on(clickhouse, home, kind):
    """The tables are not even made when it begins."""
    address = clickhouse.make()
    fill(home, records())
    with Between(clickhouse.port) as proxy:
        proxy.behave(*[each for fault in FAULTS for each in MISDEEDS[fault]])
        pump = pump_to(kind, through(proxy.port, address.database), home)
        run_dry(pump)
        pump.close()
        assert proxy.pending == 0
    ship(str(home / "store.sqlite3"), address)
    same(home, address)


@pytest.mark.parametrize("kind", INSERTS)
def test_a_server_that_is_down_for_minutes_is_asked_ever_more_seldom(clickhouse, home, kind):
    now = [1000.0]
    address = clickhouse.make()
    fill(home, records())
    with Between(clickhouse.port) as proxy:
        circuit = Circuit(clock=lambda: now[0], chance=lambda: 1.0)
        pump = pump_to(kind, through(proxy.port, address.database), home, circuit)
        proxy.chance = lambda: status(503) if now[0] < 1600 else None
        assert pauses(pump, now) == pytest.approx([1, 2, 4, 8, 16, 32, 64, 128, 256, 300])
        run_dry(pump)
        pump.close()
    ship(str(home / "store.sqlite3"), address)
    same(home, address)


@pytest.mark.parametrize("kind", INSERTS)
def test_a_server_that_asks_for_time_gets_it(clickhouse, home, kind):
    now = [1000.0]
    address = clickhouse.make()
    fill(home, records(3))
    with Between(clickhouse.port) as proxy:
        circuit = Circuit(0.001, 0.01, clock=lambda: now[0])
        pump = pump_to(kind, through(proxy.port, address.database), home, circuit)
        proxy.only = INSERTS[kind]
        proxy.behave(status(429, Retry_After="17"))
        assert pump.turn(all_now=True).wait == pytest.approx(17, abs=0.1)
        asked = proxy.requests
        now[0] += 16.5
        assert pump.turn(all_now=True).wait == pytest.approx(0.5, abs=0.1)
        assert proxy.requests == asked
        now[0] += 1
        run_dry(pump)
        pump.close()
    ship(str(home / "store.sqlite3"), address)
    same(home, address, 3)


class Refusing(Between):
    """Takes no rows of totals that have `word` in them, as a server does with a value that it cannot read."""

    word = b""

    def accept(self, handler):
        if INSERTS["totals"] in handler.path and self.word in handler.body():
            handler.reply(400, b"Code: 27, e.displayText() = DB::Exception: Cannot parse input")
        else:
            super().accept(handler)


def test_a_row_of_totals_that_is_refused_for_good_holds_up_no_other(clickhouse, home):
    address = clickhouse.make()
    jobs = records()
    jobs[7].action = "shop.Odd#perform"
    fill(home, jobs)
    proxy = Refusing(clickhouse.port)
    with proxy:
        proxy.word = b"shop.Odd"
        pump = pump_to("totals", through(proxy.port, address.database), home)
        run_dry(pump)
        assert pump.trouble == ""
        with read(address) as shared, Store(str(home / "store.sqlite3")) as store:
            expected = store.totals(0, 2**62)
            assert expected.pop("shop.Odd#perform").jobs == 1
            assert shared.totals(0, 2**62) == expected
            (problem,) = store.problems()
            # The same job's minute, ten minutes and hour, each once.
            assert (problem.kind, problem.times) == ("clickhouse", 3)
            assert problem.detail.endswith(": a row of total was left out: Cannot parse input")
        # What becomes of it later is sent again.
        odd = job(JOBS + 1)
        odd.action = "shop.Odd#perform"
        fill(home, [odd])
        proxy.word = b"no row has this"
        run_dry(pump)
        pump.close()
    ship(str(home / "store.sqlite3"), address)
    same(home, address, JOBS + 1)


def test_totals_wait_where_one_row_after_the_other_is_refused(clickhouse, home):
    address = clickhouse.make()
    jobs = records()
    for number, one in enumerate(jobs):
        one.action = f"shop.Job{number}#perform"
    fill(home, jobs)
    proxy = Refusing(clickhouse.port)
    with proxy:
        pump = pump_to("totals", through(proxy.port, address.database), home)
        deadline = time.monotonic() + 60
        while not pump.turn(all_now=True).troubled:
            assert time.monotonic() < deadline
        assert "refuses one row after the other: Cannot parse input" in pump.trouble
        pump.close()
    with Store(str(home / "store.sqlite3")) as store:
        (problem,) = store.problems()
        assert problem.times == 20
        assert store.changed() > 0


@pytest.mark.parametrize("kind", INSERTS)
@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("clickhouse://u:p@127.0.0.1:{closed}/shop", "http://127.0.0.1:{closed}/shop: connection refused"),
        (
            "clickhouse://u:p@no-such-host.invalid/shop",
            "http://no-such-host.invalid:8123/shop: its name has no address",
        ),
        ("clickhouses://u:p@127.0.0.1:{plain}/shop", "https://127.0.0.1:{plain}/shop: TLS failed: "),
        ("clickhouse://u:p@127.0.0.1:{silent}/shop", "http://127.0.0.1:{silent}/shop: no answer within 1.5 s"),
        (
            "clickhouse://u:p@127.0.0.1:{moved}/shop",
            "http://127.0.0.1:{moved}/shop: answered 302, a redirection to https://b.example/db: set AUTOINST_STORE",
        ),
        (
            "clickhouse://u:p@127.0.0.1:{page}/shop",
            "http://127.0.0.1:{page}/shop: answered 200, which is not ClickHouse's HTTP interface",
        ),
    ],
    ids=["refused", "no name", "no TLS", "silent", "redirect", "a web page"],
)
def test_what_is_wrong_is_named_and_the_jobs_wait(home, kind, url, told):
    fill(home, records(2))
    with Receiver() as plain, Receiver() as silent, Receiver() as moved, Receiver() as page:
        silent.chance = lambda: hostile.hang
        moved.chance = lambda: status(302, Location="https://b.example/db")
        page.chance = lambda: status(200, b"<html>please log in</html>", Content_Type="text/html")
        ports = {"plain": plain.port, "silent": silent.port, "moved": moved.port, "page": page.port}
        ports["closed"] = free_port()
        pump = pump_to(kind, url.format(**ports), home)
        assert pump.turn(all_now=True).troubled
        assert pump.trouble.startswith(told.format(**ports))
        pump.close()
    with Store(str(home / "store.sqlite3")) as store:
        assert store.count() == 2
        assert all((row.jobs, row.n) == (0, 0) for row in store.feeds())


def test_a_request_has_a_limit_in_all_however_its_answer_trickles():
    with Receiver() as receiver:
        receiver.chance = lambda: hostile.trickle
        client = Client(parse(through(receiver.port, "shop")))
        began = time.monotonic()
        with client.limited(1.0), pytest.raises(Exception, match=r"no answer within (1|0\.\d+) s"):
            client.rows("SELECT 1")
        client.close()
        assert time.monotonic() - began < 60  # it trickles for half an hour


def test_a_worker_does_not_wait_for_a_server_that_never_answers(home, tmp_path):
    program = Program(tmp_path)
    program.write("rules.yaml", "version: 1\njobs: [{function: work.job}]\n")
    program.write("work.py", "def job(number):\n    return number\n")
    program.write("main.py", "import work\nfor number in range(20):\n    work.job(number)\n")
    agents = Agents(home)
    with Receiver() as receiver:
        receiver.chance = lambda: hostile.hang
        url = {"AUTOINST_STORE": through(receiver.port, "shop")}
        try:
            agent = agents.start(**url)
            program.run("main.py", environ=url)
            hostile.wait_for(lambda: receiver.hanging)
            began = time.monotonic()
            found = program.run("main.py", environ=url)
            assert found.status == 0, found.stderr
            assert time.monotonic() - began < 25  # a request hangs for 30
            eventually(lambda: len(stored(home)) == 40)
            agent.terminate()
            assert agent.wait(25) == 0
        finally:
            agents.end()
            receiver.released.set()


def stored(home):
    with Store(str(home / "store.sqlite3"), readonly=True) as store:
        return list(store.jobs(JobFilter(limit=0)))


def test_idle_where_there_is_nothing_to_send(clickhouse, home):
    address = clickhouse.make()
    fill(home, [])
    for kind in INSERTS:
        pump = pump_to(kind, through(clickhouse.port, address.database), home)
        run_dry(pump)
        assert pump.turn(all_now=True).wait == IDLE
        pump.close()
