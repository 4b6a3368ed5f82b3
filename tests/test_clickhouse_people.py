"""What people do where the store is ClickHouse: say what became of an error, and follow the jobs of all machines."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from autoinst.record import ExceptionInfo, Frame, Record
from autoinst.spool.layout import record_id
from autoinst.store.clickhouse import arrivals as coming
from autoinst.store.clickhouse import incidents
from autoinst.store.query import JobFilter
from autoinst.store.sqlite import Store
from tests.between import Between
from tests.clickhouses import read, ship
from tests.exported import job
from tests.hostile import status
from tests.launching import AUTOINST, environment
from tests.test_clickhouse_agent import autoinst
from tests.test_clickhouse_faults import through
from tests.test_export_receivers import fill
from tests.web_pages import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.once, pytest.mark.service]

FRAMES = [Frame("/app/jobs.py", 7, "perform", in_app=True)]


def failed(number: int, uid: bytes = b"12345678") -> Record:
    record = Record(record_id(uid, number), "error", time.time_ns(), action="a#b", duration_ns=1000)
    record.exception = ExceptionInfo("builtins.ValueError", "x", FRAMES)
    return record


def fail(home, address, number):
    fill(home, [failed(number)])
    ship(str(home / "store.sqlite3"), address)


def test_a_page_resolves_ignores_and_reopens_an_error(clickhouse, home, tmp_path):
    address = clickhouse.make()
    fail(home, address, 1)
    with serving(tmp_path / "elsewhere", AUTOINST_STORE=clickhouse.address(address.database)) as ui:
        path = f"/errors/{ui.json('/errors')['errors'][0]['fingerprint']}"
        own = {"Origin": ui.address, "Content_Type": "application/x-www-form-urlencoded"}

        def say(state: str, **more: str) -> int:
            return ui.ask(f"{path}/state", "POST", f"csrf={ui.csrf(path)}&state={state}", **(own | more)).status

        def states() -> dict[str, str]:
            return {error["fingerprint"]: error["state"] for error in ui.json("/errors", state="all")["errors"]}

        fingerprint = path.rpartition("/")[2]
        assert say("resolved", Origin="http://evil.example") == 403
        assert say("gone") == 400
        assert states() == {fingerprint: "open"}
        for state in ("resolved", "ignored", "open", "resolved"):
            assert say(state) == 303
            assert states() == {fingerprint: state}
        assert ui.json("/errors")["errors"] == []
        fail(home, address, 2)  # it comes again
        (error,) = ui.json("/errors")["errors"]
        assert (error["state"], error["reopened"], error["total"]) == ("open", True, 2)
        assert "it came back" in ui.ask(path).text


def test_who_may_only_read_is_told_so(clickhouse, home, tmp_path):
    address = clickhouse.make()
    fail(home, address, 1)
    url = clickhouse.address(address.database, user="reader")
    with serving(tmp_path / "elsewhere", AUTOINST_STORE=url) as ui:
        path = f"/errors/{ui.json('/errors')['errors'][0]['fingerprint']}"
        body = f"csrf={ui.csrf(path)}&state=resolved"
        answer = ui.ask(f"{path}/state", "POST", body, Origin=ui.address)
        assert (answer.status, "user 'reader' may not do that" in answer.text) == (403, True)
        assert "try again" not in answer.text
        done = autoinst(tmp_path / "elsewhere", "errors", path.rpartition("/")[2], "--resolve", AUTOINST_STORE=url)
        assert (done.returncode, "user 'reader' may not do that" in done.stderr) == (1, True), done.stderr
        assert ui.json("/errors")["errors"][0]["state"] == "open"


def test_commands_resolve_ignore_and_reopen_an_error(clickhouse, home, tmp_path):
    address = clickhouse.make()
    fail(home, address, 1)
    url = clickhouse.address(address.database)

    def errors(*words: str) -> list[dict[str, Any]]:
        done = autoinst(tmp_path / "elsewhere", "errors", "--json", *words, AUTOINST_STORE=url)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    (error,) = errors()
    for word, state in (("--resolve", "resolved"), ("--ignore", "ignored"), ("--reopen", "open")):
        assert errors(error["fingerprint"][:8], word)[0]["state"] == state
        assert [each["state"] for each in errors("--state", "all")] == [state]


def test_the_last_word_counts_though_the_clock_was_set_back(clickhouse, home, monkeypatch):
    address = clickhouse.make()
    fail(home, address, 1)
    with read(address) as store:
        (group,) = store.errors()
        now = time.time_ns()
        incidents.set_state(store.client, group, "ignored", now + 3600 * 10**9)
        store.set_error_state(group, "resolved")
        (group,) = store.errors(state="resolved")
        store.set_error_state(group, "open")
        assert [group.state for group in store.errors()] == ["open"]


@contextlib.contextmanager
def tail(home, *words: str, **variables: str) -> Iterator[tuple[list[dict[str, Any]], list[str]]]:
    """Run `autoinst tail`; what it has said so far, the jobs and the messages."""
    command = [AUTOINST, "tail", "--json", *words]
    env = environment(home, PYTHONUNBUFFERED="1", **variables)
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    jobs: list[dict[str, Any]] = []
    told: list[str] = []
    assert process.stdout is not None
    assert process.stderr is not None
    streams = process.stdout, process.stderr
    threads = [
        threading.Thread(target=lambda: jobs.extend(map(json.loads, streams[0]))),
        threading.Thread(target=lambda: told.extend(streams[1])),
    ]
    for thread in threads:
        thread.start()
    try:
        yield jobs, told
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        for thread in threads:
            thread.join()
        for stream in streams:
            stream.close()
    assert "Traceback" not in "".join(told)


def wait_for(what, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def test_tail_follows_the_jobs_of_all_machines(clickhouse, home, tmp_path):
    address = clickhouse.make()
    machines = [tmp_path / f"machine_{number}" for number in (1, 2)]
    for number, machine in enumerate(machines):
        fill(machine, [job(number * 100 + n) for n in range(1, 4)])
        ship(str(machine / "store.sqlite3"), address)
    url = clickhouse.address(address.database)
    with tail(home, "--limit", "2", AUTOINST_STORE=url) as (jobs, _):
        wait_for(lambda: len(jobs) == 2)
        expected = [job(102).id, job(103).id]
        for n in (4, 5):
            for number, machine in enumerate(machines):
                fill(machine, [job(number * 100 + n, "error" if n == 5 else "ok")])
                ship(str(machine / "store.sqlite3"), address)
                expected.append(job(number * 100 + n).id)
        wait_for(lambda: len(jobs) >= len(expected))
        assert sorted(found["id"] for found in jobs) == sorted(expected)
        # What this machine has recorded and no agent sends is sent by whoever follows.
        fill(home, [job(300)])
        wait_for(lambda: jobs[-1]["id"] == job(300).id)


def test_tail_goes_on_when_the_server_is_back(clickhouse, home, tmp_path):
    address = clickhouse.make()
    elsewhere = tmp_path / "elsewhere"
    fill(elsewhere, [job(1)])
    ship(str(elsewhere / "store.sqlite3"), address)
    with (
        Between(clickhouse.port) as proxy,
        tail(home, "--action", "shop.*", AUTOINST_STORE=through(proxy.port, address.database)) as (jobs, told),
    ):
        wait_for(lambda: len(jobs) == 1)
        proxy.chance = lambda: status(503)
        wait_for(lambda: told)
        fill(elsewhere, [job(2), job(3, action="other")])
        ship(str(elsewhere / "store.sqlite3"), address)
        proxy.chance = lambda: None
        wait_for(lambda: len(jobs) == 2)
        assert [found["id"] for found in jobs] == [job(1).id, job(2).id]
    assert [line for line in told if "answered 503" in line and "looking again" in line] == told[:1]


def test_what_arrives_is_told_once(clickhouse, home):
    address = clickhouse.make()
    path = str(home / "store.sqlite3")
    fill(home, [job(1)])
    ship(path, address)
    with read(address) as store:
        found = coming.Arrivals()
        found.begin(store.client)
        assert found.new(store.client) == []
        fill(home, [job(number) for number in range(2, 8)])
        ship(path, address)
        with Store(path) as sqlite, sqlite.transaction():  # the same again, as after a kill
            records = list(sqlite.jobs(JobFilter(limit=0)))
            sqlite._con.execute("UPDATE feed SET n = n - 6")
        assert len(records) == 7
        ship(path, address)
        assert [record.id for record in found.new(store.client)] == [job(number).id for number in range(2, 8)]
        assert found.new(store.client) == []
