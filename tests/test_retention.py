"""Retention by age and by size: jobs go, totals by the hour and samples of errors stay."""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest

from autoinst.agent.drain import Drain
from autoinst.agent.limits import limits
from autoinst.config import parse_size
from autoinst.record import ExceptionInfo, Frame, Record
from autoinst.rules.document import Document
from autoinst.rules.load import load_files
from autoinst.rules.parse import Parser
from autoinst.spool.counted import Counted
from autoinst.store import retention
from autoinst.store.processes import ProcessInfo
from autoinst.store.query import JobFilter
from autoinst.store.retention import DAY_NS, HOUR_NS, Limits
from autoinst.store.sqlite import Store
from tests.arena_builder import ArenaBuilder, dead_pid
from tests.harness import Program
from tests.launching import AUTOINST

NOW = time.time_ns()


@pytest.fixture
def store(tmp_path):
    with Store(str(tmp_path / "store.sqlite3")) as store:
        yield store


def job(number: int, days_ago: float, error: str | None = None, **fields) -> Record:
    info = ExceptionInfo(error, "m", [Frame("/srv/a.py", 1, "f", True)]) if error else None
    return Record(
        id=f"{number:032x}",
        status="error" if error else "ok",
        started_ns=NOW - int(days_ago * DAY_NS),
        action="shop.Mail#perform",
        duration_ns=1_000_000,
        exception=info,
        **fields,
    )


def put(store: Store, *records: Record, process: int = 0) -> None:
    with store.transaction():
        store.insert(records, process)


def kept(store: Store) -> set[int]:
    return {int(record.id, 16) for record in store.jobs(JobFilter(limit=0))}


def test_old_jobs_go_and_totals_stay(store):
    put(store, *(job(n, days_ago=n) for n in range(1, 61)))
    found = store.forget(Limits(days=30.5, max_bytes=None), NOW)
    assert (found.jobs, found.more) == (30, False)
    assert kept(store) == set(range(1, 31))
    until = (NOW // HOUR_NS + 2) * HOUR_NS
    assert sum(cell.jobs for cell in store.totals(0, until).values()) == 60
    assert store.forget(Limits(days=30.5, max_bytes=None), NOW).jobs == 0


def test_the_newest_samples_of_each_error_stay(store):
    put(store, *(job(n, 40 + n / 100, "shop.A") for n in range(20)), *(job(100 + n, 50, "shop.B") for n in range(2)))
    store.forget(Limits(days=30), NOW)
    assert kept(store) == {0, 1, 2, 3, 4, 100, 101}
    assert {group.class_name: group.total for group in store.errors()} == {"shop.A": 20, "shop.B": 2}


def test_more_than_one_batch(store, monkeypatch):
    monkeypatch.setattr(retention, "BATCH", 10)
    put(store, *(job(n, 40) for n in range(35)))
    assert store.forget(Limits(), NOW, batches=2) == (20, True)
    assert store.forget(Limits(), NOW, batches=2) == (15, True)
    assert store.forget(Limits(), NOW, batches=2) == (0, False)


def test_room_is_given_back_also_where_the_last_look_removes_nothing(store, tmp_path, monkeypatch):
    monkeypatch.setattr(retention, "BATCH", 100)
    monkeypatch.setattr(retention, "VACUUM_PAGES", 4)
    put(store, *(job(n, 40, args=[os.urandom(4000).hex()]) for n in range(200)))
    store.checkpoint()
    before = os.path.getsize(tmp_path / "store.sqlite3")
    rounds = [store.forget(Limits(days=30), NOW, batches=2)]
    while rounds[-1].more:
        rounds.append(store.forget(Limits(days=30), NOW, batches=2))
    assert [found.jobs for found in rounds[:2]] == [200, 0]
    assert len(rounds) > 5  # a few pages a round: nobody is kept waiting
    store.checkpoint()
    assert os.path.getsize(tmp_path / "store.sqlite3") < before / 3


def test_a_store_that_is_too_large_loses_its_oldest_jobs(store, tmp_path, monkeypatch):
    monkeypatch.setattr(retention, "BATCH", 100)
    text = [os.urandom(1000).hex() for _ in range(10)]
    put(store, *(job(n, n / 1000, args=[text[n % 10]]) for n in range(2000)), job(5000, 20, "shop.Rare"))
    store.checkpoint()
    before = os.path.getsize(store.path)
    limit = before // 2
    assert store.forget(Limits(max_bytes=limit), NOW).jobs
    left = kept(store)
    assert 5000 in left
    assert left - {5000} == set(range(len(left) - 1))  # the newest
    store.checkpoint()
    assert limit // 2 < os.path.getsize(store.path) <= limit
    store.forget(Limits(max_bytes=1), NOW)
    assert kept(store) == set()


def test_no_limit_keeps_all(store):
    put(store, job(1, 5000))
    assert store.forget(Limits(None, None), NOW) == (0, False)
    assert kept(store) == {1}


def test_the_dead_keep_no_rule_statuses_but_the_last(store, monkeypatch):
    monkeypatch.setattr(retention, "STATUSES", 2)
    with store.transaction():
        for number in range(6):
            row = store.enter_process(ProcessInfo(bytes([number]) * 8, 10 + number, NOW, {"service": "s"}))
            store.process_status(row, {"digest": "d", "rules": []})
            if number:
                store.process_ended(row, "gone")
    store.forget(Limits(), NOW)
    told = {process.pid for process in store.processes() if process.status}
    assert len(told) == 3
    assert 10 in told
    assert len(store.processes()) == 6


def test_processes_without_jobs_go_with_them(store):
    with store.transaction():
        for number, uid in enumerate((b"a" * 8, b"b" * 8, b"c" * 8), 1):
            row = store.enter_process(ProcessInfo(uid, number, NOW, {"service": f"s{number}"}))
            if number < 3:
                store.process_ended(row, "gone")
    put(store, job(1, 0, "shop.A"), process=1)
    store.forget(Limits(days=30), NOW + 40 * DAY_NS)
    assert {process.pid for process in store.processes()} == {1, 3}
    (record,) = store.jobs(JobFilter())
    assert record.service == "s1"


def test_what_was_counted_is_forgotten_with_its_arena_only(store):
    later = NOW + 3 * DAY_NS
    for uid in (b"living..", b"gone...."):
        with store.transaction():
            store.set_counted(uid, [Counted("a#b", 5, 1, 100)])
    store.forget(Limits(), later, {b"living.."})
    with store.transaction():
        assert store.set_counted(b"living..", [Counted("a#b", 5, 1, 100)]) == 0
        assert store.set_counted(b"gone....", [Counted("a#b", 5, 1, 100)]) == 5


def test_a_drain_forgets(tmp_path):
    (tmp_path / "spool").mkdir(mode=0o700)
    builder = ArenaBuilder(pid=dead_pid(), start_time=1)
    builder.put(0, start=NOW - 40 * DAY_NS)
    new = builder.put(1)
    builder.write(tmp_path / "spool")
    with Drain(str(tmp_path)) as leader:
        leader.run_dry()
        assert leader.forget(Limits()).jobs == 1
        assert leader.store is not None
        assert [record.id for record in leader.store.jobs(JobFilter())] == [new]


def test_totals_by_the_hour_go_where_the_rules_say_so(store):
    put(store, job(1, 100, "shop.A"), job(2, 10, "shop.A"))
    (group,) = store.errors()
    until = (NOW // HOUR_NS + 2) * HOUR_NS
    store.forget(Limits(days=30, rollup_days=200), NOW)
    assert [cell.jobs for cell in store.totals(0, until).values()] == [2]
    assert sum(store.error_hours(group.id, 0).values()) == 2
    store.forget(Limits(days=30, rollup_days=50), NOW)
    assert [cell.jobs for cell in store.totals(0, until).values()] == [1]
    assert sum(store.error_hours(group.id, 0).values()) == 1


def test_as_many_samples_stay_as_asked_for(store):
    put(store, *(job(n, 40 + n / 100, "shop.A") for n in range(20)))
    store.forget(Limits(days=30, samples=2), NOW)
    assert kept(store) == {0, 1}
    store.forget(Limits(days=30, samples=0), NOW)
    assert kept(store) == set()


def rules(tmp_path, text):
    file = tmp_path / "rules.yaml"
    file.write_text(f"version: 1\n{text}\n")
    found, loader = load_files([str(file)], "none")
    return found.settings, [problem.one_line for problem in loader.problems]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{age: 14d, size: 500M, rollups: 52w, samples: 10}", Limits(14.0, 500 << 20, 364.0, 10)),
        ("{age: 36h}", Limits(1.5)),
        ("{age: 7, samples: 0}", Limits(7.0, samples=0)),
        ("{age: 0, size: 0, rollups: 0}", Limits(None, None)),
        ("{}", Limits()),
        ("{size: 5k}", Limits(max_bytes=5120)),
    ],
)
def test_the_limits_a_rules_file_sets(tmp_path, text, expected):
    settings, problems = rules(tmp_path, f"retention: {text}")
    assert problems == []
    assert limits({}, settings) == (expected, [])
    given = {"AUTOINST_RETENTION_DAYS": "3", "AUTOINST_STORE_MAX": "1G"}
    won = Limits(3.0, 1 << 30, expected.rollup_days, expected.samples)
    assert limits(given, settings) == (won, [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{age: soon}", "rules.yaml:2:18: 'age' must be a number of days, or such as 36h, 30d or 8w, not 'soon'"),
        ("{age: -1}", "rules.yaml:2:18: 'age' must be"),
        ("{age: 3y}", "rules.yaml:2:18: 'age' must be"),
        ("{size: big}", "rules.yaml:2:19: 'size' must be a size such as 500M or 2G, not 'big'"),
        ("{samples: 1.5}", "rules.yaml:2:22: 'samples' must be a whole number from 0 on, not '1.5'"),
        ("{days: 3}", "rules.yaml:2:13: unknown key 'days' in 'retention'"),
        ("30d", "rules.yaml:2:12: 'retention' must be a mapping, not '30d'"),
    ],
)
def test_wrong_limits_are_said_and_left_out(tmp_path, text, said):
    settings, problems = rules(tmp_path, f"retention: {text}")
    assert len(problems) == 1
    assert problems[0].startswith(said)
    assert limits({}, settings) == (Limits(), [])


def test_a_pack_sets_no_limits(tmp_path):
    document = Document("pack.yaml", "version: 1\nretention: {age: 1}\n")
    assert Parser(document, "pack").parse().settings == {}
    assert "may not be in a pack" in document.problems[0].message


def test_the_agent_keeps_to_the_rules_files_limits(tmp_path):
    program = Program(tmp_path)
    program.write("autoinst.yaml", "version: 1\nretention: {age: 10d}\n")
    (tmp_path / "home" / "spool").mkdir(mode=0o700, parents=True)
    builder = ArenaBuilder(pid=dead_pid(), start_time=1)
    builder.put(0, start=NOW - 20 * DAY_NS)
    builder.put(1)
    builder.write(tmp_path / "home" / "spool")
    done = subprocess.run(
        [AUTOINST, "agent", "--once"],
        cwd=tmp_path,
        env=program.environ({}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "autoinst: 2 job(s) stored\nautoinst: 1 job(s) beyond the limits removed\n"
    told = subprocess.run(
        [AUTOINST, "doctor", "--json"],
        cwd=tmp_path,
        env=program.environ({}),
        capture_output=True,
        text=True,
        check=False,
    )
    (age,) = (row for row in json.loads(told.stdout)["settings"] if row["name"] == "AUTOINST_RETENTION_DAYS")
    assert (age["value"], age["source"]) == (10.0, "rules file")


def test_the_limits_the_environment_sets():
    assert limits({}, {}) == (Limits(30.0, 2 * 1024**3), [])
    assert limits({"AUTOINST_RETENTION_DAYS": "1.5", "AUTOINST_STORE_MAX": "500M"}, {}) == (Limits(1.5, 500 << 20), [])
    assert limits({"AUTOINST_RETENTION_DAYS": "0", "AUTOINST_STORE_MAX": "0"}, {}) == (Limits(None, None), [])
    for days, size in (("soon", "big"), ("-1", "-1"), ("nan", "1.5G"), ("inf", "G")):
        found, problems = limits({"AUTOINST_RETENTION_DAYS": days, "AUTOINST_STORE_MAX": size}, {})
        assert found == Limits()
        assert len(problems) == 2


@pytest.mark.parametrize(
    ("text", "size"),
    [("5", 5), ("2K", 2048), ("2kb", 2048), (" 3MiB ", 3 << 20), ("1T", 1 << 40), ("B", None), ("", None)],
)
def test_sizes(text, size):
    assert parse_size(text) == size
