"""`keep:` leaves out the records of most jobs that end well; what is counted stays exact, whoever is killed when."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from autoinst.agent import intake
from autoinst.agent.drain import Drain, drain_once
from autoinst.rules.load import load_files
from autoinst.spool import layout
from autoinst.store import histogram, schema
from autoinst.store.query import JobFilter
from autoinst.store.retention import Limits
from autoinst.store.rollups import Cell
from autoinst.store.sqlite import Store
from autoinst.trace.sampling import Sampler, keeps
from tests.arena_builder import ArenaBuilder, dead_pid
from tests.harness import Program
from tests.launching import AUTOINST

if TYPE_CHECKING:
    from pathlib import Path

SECOND = 10**9

JOBS = """
import os, threading, time

def job(n, fails=False, ignored=False, seconds=0.0):
    if seconds:
        time.sleep(seconds)
    if fails:
        raise ValueError(n)
    if ignored:
        raise KeyError(n)

def quiet(**how):
    try:
        job(1, **how)
    except Exception:
        pass
"""


@pytest.fixture
def program(tmp_path: Path) -> Program:
    made = Program(tmp_path)
    made.write("jobs.py", JOBS)
    return made


def run(program: Program, keep: str, code: str, more: str = "") -> None:
    program.write(
        "rules.yaml",
        f"version: 1\npacks: [none]\n{more}\njobs:\n"
        f"  - {{function: jobs.job, payload: {{queue: q}}, ignore_exceptions: [KeyError], {keep}}}\n",
    )
    program.write("worker.py", "import os, signal, threading, time, jobs\n" + code)
    program.run("worker.py")


def totals(home: object) -> Cell:
    with Store(os.path.join(str(home), "store.sqlite3")) as store:
        found = store.totals(0, 2**62)
    total = Cell()
    for cell in found.values():
        total.add(cell)
    return total


def stored(home: object) -> list[Any]:
    with Store(os.path.join(str(home), "store.sqlite3")) as store:
        return list(store.jobs(JobFilter(limit=0)))


# -- the rules file ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "keep"),
    [
        ("{ok: 1/20, slower_than: 500}", (0.05, 1.0, 500_000_000)),
        ("{ok: 0.25}", (0.25, 1.0, None)),
        ("{ok: 0}", (0.0, 1.0, None)),
        ("{ok: 1 / 3, ignored: .5, slower_than: 0.5}", (1 / 3, 0.5, 500_000)),
        ("{ignored: 0}", (1.0, 0.0, None)),
        ("{ok: 1}", None),
        ("{ok: 20/20, slower_than: 1}", None),
    ],
)
def test_what_is_kept(tmp_path: Path, text: str, keep: object) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(f"version: 1\njobs:\n  - {{function: a.f, keep: {text}}}\n")
    rules, loader = load_files([str(file)], "none")
    assert loader.problems == []
    assert rules.rules[0].keep == keep


@pytest.mark.parametrize(
    ("text", "column", "said"),
    [
        ("{ok: 2}", 5, "'ok' must be a share from 0 to 1, such as 0.05 or 1/20, not '2'"),
        ("{ok: -1}", 5, "'ok' must be a share"),
        ("{ok: 1/0}", 5, "'ok' must be a share"),
        ("{ok: 5%}", 5, "'ok' must be a share"),
        ("{ok: nan}", 5, "'ok' must be a share"),
        ("{ok: 3/2}", 5, "'ok' must be a share"),
        ("{ok: [1]}", 5, "'ok' must be a text, not a list"),
        ("{ok: 0.5, slower_than: 1s}", 23, "'slower_than' must be a number of milliseconds, not '1s'"),
        ("{slower_than: 500}", 0, "'keep' needs the share of jobs to keep (write {ok: 1/20})"),
        ("{}", 0, "'keep' needs the share"),
        ("1/20", 0, "'keep' must be a mapping, not '1/20'"),
        ("{okay: 1}", 1, "unknown key 'okay' in 'keep'"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, column: int, said: str) -> None:
    file = tmp_path / "rules.yaml"
    before = "  - {function: a.f, keep: "
    file.write_text(f"version: 1\njobs:\n{before}{text}}}\n  - {{function: a.g}}\n")
    rules, loader = load_files([str(file)], "none")
    assert loader.problems[0].one_line.startswith(f"rules.yaml:3:{len(before) + column + 1}: {said}")
    assert [rule.where for rule in rules.rules] == ["rules.yaml:4"]


def test_defaults_are_for_all_jobs_that_say_nothing_themselves(tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text("version: 1\ndefaults: {keep: {ok: 0.5}}\njobs: [{function: b.f}]\n")
    file = tmp_path / "rules.yaml"
    file.write_text(
        "version: 1\ninclude: [more.yaml]\ndefaults: {keep: {ok: 1/4}}\n"
        "jobs: [{function: a.f}, {function: a.g, keep: {ok: 1}}, {function: a.h, keep: {ok: 0}}]\n"
        "events: [{function: a.i}]\n"
    )
    rules, loader = load_files([str(file)], "rq")
    assert loader.problems == []
    assert [rule.keep for rule in rules.rules if rule.kind == "job"][:4] == [
        (0.25, 1.0, None),
        None,
        (0.0, 1.0, None),
        (0.5, 1.0, None),
    ]
    assert {rule.keep for rule in rules.rules if rule.kind == "job" and rule.pack} == {(0.25, 1.0, None)}
    assert {rule.keep for rule in rules.rules if rule.kind != "job"} == {None}
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("version: 1\ndefaults: {keep: {ok: 5}}\n")
    assert load_files([str(wrong)], "none")[1].problems[0].one_line.startswith("wrong.yaml:2:23: 'ok' must be a share")


def test_events_cannot_be_left_out(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("version: 1\nevents:\n  - {function: a.f, keep: {ok: 0}}\n")
    assert "unknown key 'keep'" in load_files([str(file)], "none")[1].problems[0].one_line


# -- which jobs --------------------------------------------------------------------------------------------------------


class FakeSpool:
    def __init__(self) -> None:
        self.uid = os.urandom(8)


@pytest.mark.parametrize("share", [0.0, 0.001, 1 / 20, 1 / 3, 0.5, 0.95])
@pytest.mark.parametrize("step", [1, 2, 7, 20, 55])
def test_any_stretch_of_jobs_has_its_share_kept(share: float, step: int) -> None:
    spool: Any = FakeSpool()
    count = 20_000
    found = [keeps(spool, seq, share) for seq in range(1, count * step, step)]
    assert abs(sum(found) - share * count) <= 60
    for start in range(0, count, 4000):
        assert abs(sum(found[start : start + 4000]) - share * 4000) <= 60


def test_processes_that_run_one_job_each_keep_their_share() -> None:
    found = sum(keeps(FakeSpool(), 1, 0.25) for _ in range(20_000))  # type: ignore[arg-type]
    assert 4_600 < found < 5_400  # six standard deviations


def test_errors_and_slow_jobs_are_always_kept() -> None:
    sampler = Sampler((0.1, 0.2, 5))
    assert [sampler.share(status, 4) for status in (layout.OK, layout.IGNORED, layout.ERROR)] == [0.1, 0.2, 1.0]
    assert [sampler.share(status, 5) for status in (layout.OK, layout.IGNORED, layout.ERROR)] == [1.0, 1.0, 1.0]


# -- real workers ------------------------------------------------------------------------------------------------------


def test_totals_stay_exact_and_records_become_few(program: Program) -> None:
    code = """
def work():
    for n in range(500):
        jobs.quiet(fails=n % 10 == 1, ignored=n % 10 == 2, seconds=0.03 if n == 250 else 0)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    run(program, "keep: {ok: 1/20, slower_than: 25}", code)
    cell = totals(program.home)
    assert (cell.ok, cell.error, cell.ignored, cell.killed, cell.counted) == (1600, 200, 200, 0, 0)
    assert (sum(cell.durations.values()), sum(cell.queue_times.values())) == (2000, 0)
    assert cell.max_ns >= 30_000_000
    records = stored(program.home)
    by_status = {status: [r for r in records if r.status == status] for status in ("ok", "error", "ignored")}
    assert (len(by_status["error"]), len(by_status["ignored"])) == (200, 200)
    slow = [record for record in by_status["ok"] if (record.duration_ns or 0) >= 25_000_000]
    assert len(slow) >= 4
    fast = len(by_status["ok"]) - len(slow)
    assert 50 < fast < 110  # 80 of 1600, evenly spread
    assert cell.left_out == 2000 - len(records)
    assert {record.adjusted_count for record in by_status["ok"] if record not in slow} == {20.0}
    assert {record.adjusted_count for record in (*slow, *by_status["error"], *by_status["ignored"])} == {1.0}
    assert {record.queue for record in records} == {"q"}
    done = subprocess.run(
        [AUTOINST, "jobs", "--json", "--limit", "0", "--status", "ok"],
        env=program.environ({}),
        capture_output=True,
        text=True,
        check=True,
    )
    told = [json.loads(line).get("adjusted_count") for line in done.stdout.splitlines()]
    assert (told.count(20.0), told.count(None)) == (fast, len(slow))


def test_queues_and_queue_times_of_what_is_left_out_count_too(program: Program) -> None:
    program.write("jobs.py", JOBS + "\nclass Job:\n    at = time.time() - 2\n    def perform(self): pass\n")
    run(
        program,
        "keep: {ok: 1}",
        "for n in range(100): jobs.Job().perform()\n",
        more="defaults: {keep: {ok: 0}}\nenrich: []",
    )
    assert stored(program.home) == []
    program.write(
        "rules.yaml",
        "version: 1\npacks: [none]\ndefaults: {keep: {ok: 0}}\njobs:\n"
        '  - {class: jobs.Job, methods: [perform], payload: {queue: mail, enqueued_at: "${self.at}"}}\n',
    )
    program.run("worker.py")
    assert stored(program.home) == []
    with Store(str(program.home / "store.sqlite3")) as store:
        cell = store.queue_totals(0, 2**62)["mail"]
        assert (cell.ok, cell.left_out, sum(cell.queue_times.values())) == (100, 100, 100)
        assert 1.9e9 < (cell.queue_percentile_ns(0.5) or 0) < 10e9
        assert list(store.totals(0, 2**62)) == ["jobs.Job#perform"]


def test_a_killed_job_is_reported_though_the_rule_keeps_none(program: Program) -> None:
    code = """
import types
for n in range(50): jobs.job(n)
jobs.time = types.SimpleNamespace(sleep=lambda seconds: os.kill(os.getpid(), signal.SIGKILL))
jobs.job(50, seconds=30)
"""
    run(program, "keep: {ok: 0}", code)
    assert [record.status for record in stored(program.home)] == ["killed"]
    cell = totals(program.home)
    assert (cell.ok, cell.left_out, cell.killed) == (50, 50, 1)


def test_forked_children_are_counted_each(program: Program) -> None:
    code = """
for n in range(60):
    child = os.fork()
    if not child:
        jobs.job(n)
        os._exit(0) if n % 2 else os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
"""
    run(program, "keep: {ok: 1/2}", code)
    cell = totals(program.home)
    assert (cell.ok, cell.killed) == (60, 0)
    assert cell.left_out == 60 - len(stored(program.home))
    assert 5 < cell.left_out < 55


def test_more_names_than_an_arena_has_room_for(program: Program) -> None:
    names = 3000
    source = "".join(f"def job_{n}_{'x' * 60}(): pass\n" for n in range(names))
    program.write("many.py", source)
    program.write(
        "rules.yaml",
        "version: 1\npacks: [none]\ndefaults: {keep: {ok: 0}}\njobs: [{module: many, functions: ['*']}]\n",
    )
    program.write("worker.py", "import many\nfor name in dir(many):\n    if name[0] == 'j': getattr(many, name)()\n")
    program.run("worker.py")
    with Store(str(program.home / "store.sqlite3")) as store:
        found = store.totals(0, 2**62)
    assert stored(program.home) == []
    assert len(found) == names
    assert {(cell.jobs, cell.left_out) for cell in found.values()} == {(1, 1)}


def test_rules_without_keep_pay_nothing(program: Program) -> None:
    run(program, "nested: new", "jobs.job(1)\nimport sys\nprint('autoinst.trace.sampling' in sys.modules)\n")
    assert program.run("worker.py").stdout == "False\n"


# -- counted once ------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> str:
    (tmp_path / "home" / "spool").mkdir(mode=0o700, parents=True)
    (tmp_path / "home").chmod(0o700)
    return str(tmp_path / "home")


def left_out(builder: ArenaBuilder, slots: range, **fields: Any) -> list[str]:
    return [builder.put(slot, flags=layout.FLAG_LEFT_OUT, **fields) for slot in slots]


def test_what_is_offered_again_is_not_counted_again(home: str) -> None:
    builder = ArenaBuilder(pid=dead_pid(), start_time=1)
    left_out(builder, range(5), duration=7 * SECOND)
    for _ in range(3):
        builder.write(os.path.join(home, "spool"))
        drain_once(home)
    left_out(builder, range(5, 8))
    builder.write(os.path.join(home, "spool"))
    counts = drain_once(home)
    assert counts is not None
    assert (counts.left_out, counts.stored) == (3, 0)
    cell = totals(home)
    assert (cell.ok, cell.left_out) == (8, 8)
    assert cell.durations[histogram.bucket(7 * SECOND)] == 5


def test_a_leader_killed_before_it_frees_has_nothing_counted_twice(home: str) -> None:
    # Another machine's arena is never judged, so it stays and its slots are freed one batch after the other.
    builder = ArenaBuilder(slots=64, pid=dead_pid(), start_time=1, boot_id=b"b" * 16, machine_id=b"m" * 16)
    left_out(builder, range(40))
    builder.put(40)
    path = builder.write(os.path.join(home, "spool"))
    for limit in (7, 4096):
        pid = os.fork()
        if not pid:
            die_before_freeing(home, limit)
        assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    with Drain(home) as leader:
        leader.run_dry()
        assert leader.run_dry().left_out == 0
    cell = totals(home)
    assert (cell.ok, cell.left_out, len(stored(home))) == (41, 40, 1)
    with Drain(home) as leader:
        leader.run_dry()
        more = ArenaBuilder(slots=64, **{key: builder.header[key] for key in ("uid", "process_uid", "pid")})
        more.seq = builder.seq
        left_out(more, range(10))
        with open(path, "r+b") as file:
            for slot in range(10):
                file.seek(builder.at(slot))
                file.write(more.data[more.at(slot) : more.at(slot + 1)])
        assert leader.run_dry().left_out == 10
        assert leader.store is not None
        (row,) = leader.store._con.execute("SELECT length(ids) FROM left_out").fetchall()
        assert row[0] == 10 * 8  # the ids of what is free again are forgotten


def die_before_freeing(home: str, limit: int) -> None:
    intake.ARENA_LIMIT = limit
    Drain._give_back = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
    Drain(home).__enter__().step()
    os._exit(7)


def test_a_job_said_to_be_killed_that_ends_after_all_is_counted_as_ended(home: str) -> None:
    lost = ArenaBuilder(pid=dead_pid(), start_time=1)
    lost.put(0, state=layout.RUNNING, status=layout.UNSET, start=5 * SECOND)
    lost.put(1, state=layout.RUNNING, status=layout.UNSET, start=6 * SECOND)
    lost.write(os.path.join(home, "spool"))
    drain_once(home)
    assert (totals(home).killed, totals(home).ok) == (2, 0)
    lost.seq = 0
    lost.put(0, flags=layout.FLAG_LEFT_OUT, start=5 * SECOND)
    lost.data[lost.at(1) + layout.STATE_OFFSET] = layout.FREE
    lost.write(os.path.join(home, "spool"))
    drain_once(home)
    assert (totals(home).killed, totals(home).ok, len(stored(home))) == (1, 1, 1)


def test_a_process_killed_while_its_job_was_left_out_has_it_counted(home: str) -> None:
    builder = ArenaBuilder(pid=dead_pid(), start_time=1)
    left_out(builder, range(1), state=layout.RUNNING)
    builder.write(os.path.join(home, "spool"))
    counts = drain_once(home)
    assert counts is not None
    assert (counts.left_out, counts.killed) == (1, 0)
    assert (totals(home).ok, stored(home)) == (1, [])


def test_the_ids_of_arenas_that_are_gone_are_forgotten_after_a_day(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    builder = ArenaBuilder(pid=dead_pid(), start_time=1)
    left_out(builder, range(2))
    builder.write(os.path.join(home, "spool"))
    drain_once(home)
    with Drain(home) as leader:
        assert leader.store is not None
        leader.forget(Limits())
        assert leader.store._con.execute("SELECT count(*) FROM left_out").fetchone() == (1,)
        leader.store._con.execute("UPDATE left_out SET seen = seen - 90000000000000")
        leader.forget(Limits())
        assert leader.store._con.execute("SELECT count(*) FROM left_out").fetchone() == (0,)


def test_a_store_of_the_version_before_is_brought_to_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "store.sqlite3")
    monkeypatch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
    monkeypatch.setattr(schema, "VERSION", 1)
    with Store(path) as store:
        store._con.execute("INSERT INTO minute VALUES(1,0,0,3,0,0,0,0,0,0,0,x'',0,x'')")
    monkeypatch.undo()
    with Store(path) as store:
        (cell,) = store.totals(0, 10**12).values()
        assert (cell.ok, cell.left_out) == (3, 0)
