"""The run book of docs/scale.md: each of its statements is run as it stands there, and does what it is there for."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path

import pytest

from autoinst.store.clickhouse import schema
from autoinst.store.clickhouse.address import parse
from autoinst.store.clickhouse.client import Client, literal
from autoinst.store.query import JobFilter
from autoinst.store.sqlite import Store
from tests.agents import eventually
from tests.clickhouses import Chdb, Debian, read, ship
from tests.exported import job

pytestmark = [pytest.mark.once, pytest.mark.service]

BOOK = (Path(__file__).parent.parent / "docs" / "scale.md").read_text().partition("## Run book")[2]
BLOCKS = [block.strip() for block in re.findall(r"```sql\n(.*?)```", BOOK, re.DOTALL)]
INSTALL, AGES, SHARD = BLOCKS


def statements(block):
    plain = re.sub(r"^--.*$", "", block, flags=re.MULTILINE)
    return [each.strip() for each in plain.split(";") if each.strip()]


def inline(begin):
    """Return the one statement within a line of the book that begins so."""
    [found] = {" ".join(each.split()) for each in re.findall(rf"`({begin}[^`]*)`", BOOK)}
    return found


@pytest.fixture(scope="module")
def server():
    with Chdb() as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    found = Client(parse(server.address("autoinst")), seconds=120)
    made = Client(parse(server.address("default")))
    made.run(statements(INSTALL)[0])  # CREATE DATABASE autoinst
    made.close()
    yield found
    found.close()


def home(tmp_path, name, numbers):
    path = str(tmp_path / f"{name}.sqlite3")
    with Store(path) as store, store.transaction():
        store.insert([job(number, "error" if number % 3 else "ok") for number in numbers])
    return path


def the_same(paths, address):
    with contextlib.ExitStack() as stack:
        here = [stack.enter_context(Store(path, readonly=True)) for path in paths]
        server = stack.enter_context(read(address))
        expected = sorted(record.id for store in here for record in store.jobs(JobFilter(limit=0)))
        assert sorted(record.id for record in server.jobs(JobFilter(limit=0))) == expected
        number = sum(cell.jobs for store in here for cell in store.totals(0, 2**62).values())
        assert sum(cell.jobs for cell in server.totals(0, 2**62).values()) == number
        assert sum(cell.jobs for cell in server.series(0, 2**61, step_ns=3600 * 10**9).values()) == number
        errors = sum(group.total for store in here for group in store.errors())
        assert sum(group.total for group in server.errors()) == errors


def test_every_statement_is_one_to_the_current_server(client):
    """Users can be made on a server only, not within chdb: of these it is told that they can be read."""
    for block in BLOCKS:
        for statement in statements(block):
            assert client.one(f"SELECT formatQuery({literal(statement)}) AS query")


def test_ages(client, server, tmp_path):
    ship(home(tmp_path, "ages", range(1, 4)), parse(server.address("autoinst")))
    for statement in statements(AGES):
        client.run(statement)
    for table in ("job", "total", "overall"):
        made = client.one(f"SELECT create_table_query AS text FROM system.tables WHERE name = '{table}'")
        assert "toIntervalDay(90)" in made


def test_tables_over_all_shards(client, server, tmp_path):
    path = home(tmp_path, "shards", range(11, 20))
    ship(path, parse(server.address("autoinst")))
    make, table = statements(SHARD)
    listed = re.search(r"for each of (.*?):", SHARD, re.DOTALL)
    assert listed is not None
    names = re.sub(r"\s+(-- )?", " ", listed[1]).split(", ")
    assert sorted(names) == sorted(schema.TABLES)
    client.run(make)
    for name in names:
        client.run(re.sub(r"\bjob\b", name, table))
    with read(parse(server.address("everywhere"))) as everywhere, read(parse(server.address("autoinst"))) as one:
        ids = [record.id for record in one.jobs(JobFilter(limit=0))]
        assert job(12).id in ids
        assert [record.id for record in everywhere.jobs(JobFilter(limit=0))] == ids
        assert everywhere.totals(0, 2**62) == one.totals(0, 2**62)
        assert [group.total for group in everywhere.errors()] == [group.total for group in one.errors()]


@pytest.mark.parametrize("kind", [Chdb, Debian])
def test_a_home_that_has_moved_is_removed(kind, server, tmp_path):
    with contextlib.ExitStack() as stack:
        at = server if kind is Chdb else stack.enter_context(kind())
        address = at.make()
        stays, moves = home(tmp_path, "stays", range(21, 25)), home(tmp_path, "moves", range(31, 39))
        ship(stays, address)
        ship(moves, address)
        with Store(moves, readonly=True) as store:
            sender = store.sender()
        assert sender is not None
        client = Client(address)
        known = {row["home"] for row in client.rows("SELECT home FROM home FINAL")}
        assert sender.home in known
        statement = inline("ALTER TABLE job DELETE").replace("17", str(sender.home))
        with_home = [table for table in schema.TABLES if table not in ("incident", "schema_version")]
        for table in with_home:
            client.run(statement.replace("TABLE job", f"TABLE {table}"))

        def left():
            counts = [client.one(f"SELECT count() AS n FROM {table} WHERE home = {sender.home}") for table in with_home]
            return sum(counts)

        eventually(lambda: left() == 0, 120)
        client.close()
        the_same([stays], address)


def test_a_backup_and_what_came_after_it(client, server, tmp_path):
    address = parse(server.address("autoinst"))
    whole = Client(parse(server.address("default")), seconds=120)
    whole.run("DROP DATABASE autoinst")  # with what other tests have sent
    whole.run(statements(INSTALL)[0])
    path = home(tmp_path, "backup", range(41, 50))
    ship(path, address)
    whole.run(inline("BACKUP DATABASE"))
    with Store(path) as store, store.transaction():
        store.insert([job(number) for number in range(50, 56)])
    ship(path, address)
    whole.run("DROP DATABASE autoinst")
    whole.run(inline("RESTORE DATABASE"))
    whole.close()
    with read(address) as restored:
        assert restored.count() == 9
    command = inline("sqlite3 store.sqlite3")
    [script] = re.findall(r'"(.*)"', command)
    with sqlite3.connect(path) as con:
        con.executescript(script)
    con.close()
    ship(path, address)
    the_same([path], address)


def test_replicated_tables_are_made(server):
    """By the keeper that ClickHouse has for tests; more than make them is not possible within chdb."""
    server.make("replicated")
    client = Client(parse(server.address("replicated", "?engine=replicated")))
    words = schema._words(client.version(), client.address)
    for version in schema.MIGRATIONS:
        for statement in version:
            client.run(statement.format(**words))
    client.run(schema.VERSIONS.format(**words))
    found = client.rows("SELECT name, engine FROM system.tables WHERE database = 'replicated'")
    assert {row["name"]: row["engine"] for row in found} == dict.fromkeys(schema.TABLES, "ReplicatedReplacingMergeTree")
    client.close()
