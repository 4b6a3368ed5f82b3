"""Agents that send to a real ClickHouse server: jobs arrive once whatever is killed; what is wrong is said exactly."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time

import pytest

from autoinst.config import make_private
from autoinst.demand import command
from autoinst.errors import StoreError
from autoinst.store.clickhouse import schema
from autoinst.store.clickhouse.address import chosen, parse
from autoinst.store.clickhouse.client import Client
from autoinst.store.query import JobFilter
from autoinst.store.reader import OutdatedStoreError
from autoinst.store.sqlite import Store
from tests.agents import eventually
from tests.between import Between
from tests.clickhouses import PASSWORD, Debian, read, ship
from tests.exported import job
from tests.harness import Program
from tests.hostile import status
from tests.launching import AUTOINST, environment
from tests.servers import free_port
from tests.web_pages import serving

pytestmark = [pytest.mark.once, pytest.mark.service]

KILLS = 200  # `make kill`; a few in the normal run
FORM = "clickhouse://user:password@host:8123/database"


def fill(home, records):
    make_private(str(home))
    with Store(str(home / "store.sqlite3")) as store, store.transaction():
        store.insert(records)


def autoinst(home, *arguments, **variables):
    return subprocess.run(
        [AUTOINST, *arguments],
        env=environment(home, **variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_jobs_of_a_worker_are_read_back_from_another_machine(clickhouse, home, agents, tmp_path):
    url = clickhouse.address(clickhouse.make().database)
    program = Program(tmp_path)
    program.write("rules.yaml", "version: 1\njobs: [{function: work.job}]\n")
    program.write("work.py", "def job(number):\n    if number == 7: raise ValueError('seven')\n")
    body = "import sys, work\nfor n in range(30):\n    try: work.job(n)\n    except ValueError: pass\n"
    program.write("main.py", body)
    agents.start(AUTOINST_STORE=url)
    assert program.run("main.py").status == 0
    with read(eventually_prepared(url)) as store:
        eventually(lambda: store.count() == 30 and store.totals(0, 2**62)["work#job"].jobs == 30)
    elsewhere = tmp_path / "elsewhere"
    done = autoinst(elsewhere, "jobs", "--json", "--limit", "0", AUTOINST_STORE=url)
    assert done.returncode == 0, done.stderr
    jobs = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({found["id"] for found in jobs}) == len(jobs) == 30
    (failed,) = [found for found in jobs if found["status"] == "error"]
    shown = autoinst(elsewhere, "show", failed["id"][:6] + failed["id"][-6:], AUTOINST_STORE=url)
    assert "seven" in shown.stdout
    errors = json.loads(autoinst(elsewhere, "errors", "--json", AUTOINST_STORE=url).stdout.splitlines()[0])
    resolved = autoinst(elsewhere, "errors", errors["fingerprint"], "--resolve", AUTOINST_STORE=url)
    assert resolved.returncode == 0, resolved.stderr
    with read(parse(url)) as store:
        assert store.error_states(0) == {"open": 0, "resolved": 1, "ignored": 0}
    with serving(elsewhere, AUTOINST_STORE=url) as ui:
        assert len(ui.json("/jobs", q="status:ok")["jobs"]) == 29
        assert "of this machine only" in ui.ask("/running").text


def eventually_prepared(url):
    address = parse(url)
    client = Client(address)
    eventually(lambda: schema.version(client) == schema.VERSION)
    client.close()
    return address


def test_what_a_command_drains_is_sent_before_it_is_read(clickhouse, home):
    url = clickhouse.address(clickhouse.make().database)
    fill(home, [job(1), job(2)])
    done = autoinst(home, "jobs", "--json", AUTOINST_STORE=url)
    assert len(done.stdout.splitlines()) == 2, done.stderr


def test_who_follows_is_told_once_that_nothing_can_be_sent(clickhouse, home):
    fill(home, [job(1)])
    with Between(clickhouse.port) as proxy:
        url = clickhouse.address(clickhouse.make().database).replace(f":{clickhouse.port}/", f":{proxy.port}/")
        assert autoinst(home, "jobs", AUTOINST_STORE=url).returncode == 0  # which makes the tables
        env = environment(home, AUTOINST_STORE=url, AUTOINST_AGENT="off")
        tail = subprocess.Popen([AUTOINST, "tail"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert tail.stdout is not None
        try:
            assert "shop.Mailer#perform" in tail.stdout.readline()
            proxy.chance = lambda: status(503)
            fill(home, [job(2)])
            asked = proxy.requests
            eventually(lambda: proxy.requests > asked + 20, 60)
            proxy.chance = lambda: None
            assert "shop.Mailer#perform" in tail.stdout.readline()
        finally:
            tail.send_signal(signal.SIGINT)
            told = tail.communicate(timeout=60)[1].splitlines()
        assert tail.returncode == 0
        assert len(told) == len(set(told)) == 3, told  # both feeds, and whoever asks


def test_imported_jobs_are_sent_too(clickhouse, home, tmp_path):
    url = clickhouse.address(clickhouse.make().database)
    (tmp_path / "jobs.jsonl").write_text("".join(json.dumps(job(n).to_json()) + "\n" for n in (1, 2, 3)))
    done = autoinst(home, "import", str(tmp_path / "jobs.jsonl"), AUTOINST_STORE=url)
    assert (done.returncode, done.stdout) == (0, "3 jobs imported\n"), done.stderr
    with read(parse(url)) as store:
        assert store.count() == 3
        assert sum(cell.jobs for cell in store.totals(0, 2**62).values()) == 3


def test_jobs_wait_while_the_server_is_away(home, agents):
    fill(home, [job(number) for number in range(1, 6)])
    with Debian() as clickhouse:
        address = clickhouse.make()
        url = clickhouse.address(address.database)
        agents.start(AUTOINST_STORE=url)
        with read(eventually_prepared(url)) as store:
            eventually(lambda: store.count() == 5)
        eventually(lambda: sent_by(home, address) == 5)  # and the agent knows
    fill(home, [job(number) for number in range(6, 9)])
    done = autoinst(home, "doctor", "--json", AUTOINST_STORE=url)
    told = json.loads(done.stdout)
    assert done.returncode == 1
    assert told["server"]["ok"] is False
    assert told["server"]["waiting"] == 3
    place = f"http://127.0.0.1:{clickhouse.port}/{address.database}"
    assert f"AUTOINST_STORE: {place}: connection refused; 3 job(s) wait here" in told["attention"]
    assert PASSWORD not in done.stdout
    [shown] = [row["value"] for row in told["settings"] if row["name"] == "AUTOINST_STORE"]
    assert shown == f"clickhouse://autoinst:***@127.0.0.1:{clickhouse.port}/{address.database}"


def sent_by(home, address):
    with Store(str(home / "store.sqlite3"), readonly=True) as store:
        row = store.feed(address.feed)
    return 0 if row is None else row.jobs


def test_doctor_says_what_the_server_answers(clickhouse, home):
    address = clickhouse.make()
    url = clickhouse.address(address.database)
    first = json.loads(autoinst(home, "doctor", "--json", AUTOINST_STORE=url).stdout)["server"]
    assert first["ok"] is True
    assert first["answer"] == "it has no tables yet: the first agent makes them"
    fill(home, [job(number) for number in range(1, 6)])
    assert autoinst(home, "agent", "--once", AUTOINST_STORE=url).returncode == 0
    found = json.loads(autoinst(home, "doctor", "--json", AUTOINST_STORE=url).stdout)["server"]
    assert found["answer"] == f"ClickHouse {found['server']}, tables of version {schema.VERSION}"
    assert (found["sent"], found["waiting"], found["tables"]["job"]["rows"]) == (5, 0, 5)
    assert [each["path"] for each in found["homes"]] == [str(home)]
    shown = autoinst(home, "doctor", AUTOINST_STORE=url).stdout
    assert f"tables of version {schema.VERSION}, 5 jobs" in shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("host:8123/jobs", f"AUTOINST_STORE has no scheme: write {FORM}"),
        ("mysql://h/d", f"AUTOINST_STORE: there is no store 'mysql'; write {FORM}, or clickhouses:// for TLS"),
        ("clickhouse://h:x/d", f"AUTOINST_STORE: its host or port cannot be read; write {FORM}"),
        ("clickhouse://h", f"AUTOINST_STORE names no database: write {FORM}"),
        ("clickhouse:///d", f"AUTOINST_STORE names no host: write {FORM}"),
        ("clickhouse://h/d?secure=maybe", "AUTOINST_STORE: secure='maybe' is neither 1 nor 0"),
        ("clickhouse://h/d?retention=long", "AUTOINST_STORE: retention must be a number of days"),
        ("clickhouse://h/d?tls=1", "AUTOINST_STORE: there is no option 'tls'; there are secure"),
        ("clickhouse://h/d?engine=odd", "AUTOINST_STORE: engine='odd' is unknown"),
    ],
)
def test_addresses_that_are_none(text, message):
    with pytest.raises(StoreError) as caught:
        parse(text)
    assert str(caught.value).startswith(message)


def test_addresses():
    assert chosen({}) is None
    found = parse("clickhouses://u:p%40ss@[::1]/jobs?retention=8w&rollups=0&async_insert=0")
    assert (found.url, found.user, found.password, found.database) == ("https://[::1]:8443/", "u", "p@ss", "jobs")
    assert (found.days, found.rollup_days, found.asynchronous) == (56.0, None, False)
    assert parse("clickhouse://h/d?secure=1").url == "https://h:8443/"
    assert parse("clickhouse://h/d").user == "default"


def test_what_is_wrong_is_said_exactly(clickhouse, home):
    fill(home, [job(1)])
    database = clickhouse.make().database
    place = f"http://127.0.0.1:{clickhouse.port}"
    cases = {
        clickhouse.address(database, password="wrong"): f"{place}/{database}: user 'autoinst' and that password are not"
        " known there",
        clickhouse.address(database, user="nobody"): f"{place}/{database}: user 'nobody' and that password are not"
        " known there",
        clickhouse.address("none"): f"{place}/none: there is no database 'none'; make it: CREATE DATABASE none",
        f"clickhouse://u:p@127.0.0.1:{free_port()}/x": "connection refused",
    }
    for url, text in cases.items():
        done = autoinst(home, "agent", "--once", AUTOINST_STORE=url)
        assert (done.returncode, text in done.stderr) == (1, True), done.stderr
        done = autoinst(home, "jobs", AUTOINST_STORE=url)
        assert (done.returncode, text in done.stderr) == (1, True), done.stderr
    done = autoinst(home, "agent", "--once", AUTOINST_STORE=clickhouse.address(database, user="reader"))
    assert "user 'reader' may not do that" in done.stderr
    with Store(str(home / "store.sqlite3")) as store:
        assert store.count() == 1


def test_versions_of_tables(clickhouse, tmp_path):
    address = clickhouse.make()
    with pytest.raises(OutdatedStoreError, match="it has no tables yet: they are made by the first agent"):
        read(address)
    path = str(tmp_path / "store.sqlite3")
    with Store(path) as store, store.transaction():
        store.insert([job(1)])
    ship(path, address)
    client = Client(address)
    schema.prepare(client, 1)  # by another agent at the same time
    client.insert("schema_version", [{"version": schema.VERSION + 1, "at": 2}])
    newer = rf"written by a newer autoinst \(version {schema.VERSION + 1}, this one knows {schema.VERSION}\)"
    with pytest.raises(StoreError, match=newer):
        read(address)
    with Store(path) as store, store.transaction():
        store.insert([job(2)])
    with pytest.raises(AssertionError, match="newer autoinst"):
        ship(path, address)


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(number) for number in file.read().split()]


def kill_agents(clickhouse, home, kills, seed):
    """Kill agents with their exporters at random moments; return how many jobs there are, and the address."""
    address = clickhouse.make()
    chance = random.Random(seed)
    env = environment(home, AUTOINST_STORE=clickhouse.address(address.database))
    count = 0
    for _ in range(kills):
        fill(home, [job(count + n, chance.choice(["ok", "ok", "error", "killed"])) for n in range(1, 41)])
        count += 40
        agent = subprocess.Popen(command("--foreground"), env=env, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.05, 1.5))
        for pid in [*children(agent.pid), agent.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        agent.wait()
    url = clickhouse.address(address.database)
    eventually(lambda: autoinst(home, "agent", "--once", AUTOINST_STORE=url).returncode == 0, 120)
    return count, address


def check_kills(clickhouse, home, kills, seed):
    count, address = kill_agents(clickhouse, home, kills, seed)
    with Store(str(home / "store.sqlite3"), readonly=True) as sqlite, read(address) as shared:
        expected = [record.to_json() for record in sqlite.jobs(JobFilter(limit=0))]
        assert [record.to_json() for record in shared.jobs(JobFilter(limit=0))] == expected
        assert len(expected) == shared.count() == count
        assert shared.totals(0, 2**62) == sqlite.totals(0, 2**62)
        assert [group.total for group in shared.errors()] == [group.total for group in sqlite.errors()]


def test_agents_killed_at_random_lose_and_double_nothing(clickhouse, home):
    check_kills(clickhouse, home, 5, 1)


@pytest.mark.kill
@pytest.mark.timeout(3600)
def test_agents_killed_two_hundred_times_lose_and_double_nothing(clickhouse, home):
    check_kills(clickhouse, home, KILLS, 2)


def test_two_shards_are_read_as_one(clickhouse, tmp_path):
    """Each home sends to one shard; who reads does so through tables over both (docs/scale.md)."""
    shards = [clickhouse.make(f"shard_{number}") for number in (1, 2)]
    for number, shard in enumerate(shards):
        path = str(tmp_path / f"{number}.sqlite3")
        with Store(path) as store, store.transaction():
            store.insert([job(number * 100 + n, "error") for n in range(10)])
        ship(path, shard)
    both = clickhouse.make("both_shards")
    client = Client(parse(clickhouse.address("both_shards", user="default", password="")))
    for table in schema.TABLES:
        client.run(f"CREATE TABLE {table} AS shard_1.{table} ENGINE = Distributed(shards, '', {table}, rand())")
    with read(both) as shared:
        assert len({record.id for record in shared.jobs(JobFilter(limit=0))}) == shared.count() == 20
        assert shared.totals(0, 2**62)["shop.Mailer#perform"].error == 20
        (group,) = shared.errors()
        assert group.total == 20
        assert shared.job(job(103).id) is not None
