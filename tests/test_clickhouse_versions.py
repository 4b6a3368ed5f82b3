"""Tables of an older version on ClickHouse become those of this one: no number of any chart is another one then."""

from __future__ import annotations

import time

import pytest

from autoinst.store import unsent
from autoinst.store.clickhouse import schema
from autoinst.store.clickhouse.address import parse
from autoinst.store.clickhouse.client import Client
from autoinst.store.sqlite import Store
from tests import webdata
from tests.between import Between
from tests.clickhouses import Chdb, Debian, read, ship
from tests.exported import job
from tests.webdata import HOUR, MINUTE

pytestmark = [pytest.mark.once, pytest.mark.service]

NOW = time.time_ns()
SINCE, UNTIL = NOW // HOUR * HOUR - 3 * HOUR, NOW // HOUR * HOUR + HOUR


@pytest.fixture(scope="module", params=[Chdb, Debian])
def server(request):
    with request.param() as server:
        yield server


def ship_version_1(path, address, monkeypatch):
    """Send as the version before did, which had no totals of all actions together."""
    with monkeypatch.context() as patched:
        keys = {table: key for table, key in unsent.KEYS.items() if table != unsent.OVERALL}
        patched.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
        patched.setattr(schema, "VERSION", 1)
        patched.setattr(unsent, "KEYS", keys)
        patched.setattr("autoinst.store.clickhouse.arrivals.note", lambda *_: None)
        ship(path, address)


def charts(store):
    found = [store.series(SINCE, UNTIL, step_ns=step) for step in (MINUTE, 10 * MINUTE, HOUR)]
    return [*found, store.first()]


def test_totals_of_all_actions_are_made_of_those_there_are(server, tmp_path, monkeypatch):
    paths = [str(tmp_path / f"{number}.sqlite3") for number in (1, 2)]
    address = server.make()
    for number, path in enumerate(paths, 1):
        with Store(path) as store:
            webdata.fill(store, NOW, hours=2, seed=number)
        ship_version_1(path, address, monkeypatch)
    client = Client(address)
    assert schema.version(client) == 1
    schema.prepare(client, NOW)
    schema.prepare(client, NOW)  # by another agent
    client.close()
    together = str(tmp_path / "both.sqlite3")
    with Store(together) as store:
        for number in (1, 2):
            webdata.fill(store, NOW, hours=2, seed=number)
        expected = charts(store)
    with read(address) as clickhouse:
        assert charts(clickhouse) == expected  # nobody has sent them yet
    ship(paths[0], address)
    with Store(paths[0]) as store:
        assert store.changed() == 0
    with read(address) as clickhouse:
        assert charts(clickhouse) == expected
        assert clickhouse.client.one("SELECT countIf(version > 0) AS n FROM overall FINAL") > 0
    ship(paths[1], address)
    with read(address) as clickhouse:
        assert charts(clickhouse) == expected
        assert clickhouse.client.one("SELECT countIf(version = 0) AS n FROM overall FINAL") == 0


class Slow(Between):
    """A server that takes its time to add up a day, longer than a question may take."""

    def accept(self, handler):
        if b"INSERT INTO overall SELECT" in handler.body():
            time.sleep(2.5)
        super().accept(handler)


def test_a_day_that_takes_long_to_add_up_is_waited_for(server, tmp_path, monkeypatch):
    address = server.make()
    path = str(tmp_path / "store.sqlite3")
    with Store(path) as store:
        webdata.fill(store, NOW, hours=2, seed=1)
        expected = charts(store)
    ship_version_1(path, address, monkeypatch)
    proxy = Slow(server.port)
    with proxy:
        client = Client(
            parse(server.address(address.database).replace(f":{server.port}/", f":{proxy.port}/")), seconds=1.0
        )
        schema.prepare(client, NOW)
        client.close()
    with read(address) as clickhouse:
        assert charts(clickhouse) == expected


def test_a_clock_that_began_in_1970_costs_a_day_more_and_not_decades(server, tmp_path, monkeypatch):
    address = server.make()
    path = str(tmp_path / "store.sqlite3")
    with Store(path) as store, store.transaction():
        store.insert([job(1), job(2)])
        early = job(3)
        early.started_ns = 5 * MINUTE
        store.insert([early])
    ship_version_1(path, address, monkeypatch)
    client = Client(address)
    asked = []

    def post(body, *more):
        asked.append(body)
        return Client._post(client, body, *more)

    monkeypatch.setattr(client, "_post", post)
    schema.prepare(client, NOW)
    client.close()
    assert len([body for body in asked if b"INSERT INTO overall SELECT" in body]) <= 3
    with read(address) as clickhouse:
        assert sum(cell.jobs for cell in clickhouse.series(0, 2**62, step_ns=HOUR).values()) == 3
