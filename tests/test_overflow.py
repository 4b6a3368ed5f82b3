"""Jobs that could only be counted: number, errors and durations per action are exact, wherever they are counted."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import struct
import sys
import threading
import time
from collections import Counter
from operator import add
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoinst.agent import tally
from autoinst.agent.drain import drain_once
from autoinst.spool import layout, overflow
from autoinst.spool.counted import Counted
from autoinst.spool.reader import Arena
from autoinst.spool.writer import Spool
from autoinst.store import histogram, schema
from autoinst.store.sqlite import Store
from tests.arena_builder import ArenaBuilder, dead_pid

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

    from _typeshed import TraceFunction

    from autoinst.spool.overflow import Overflow

THREADS, EACH = 8, 2_000
POWERS = [2**power for power in range(45)]


def spool_with_arena(folder: Path) -> Spool:
    spool = Spool(str(folder / "spool"), dict, limit=50_000)
    assert spool.open()
    return spool


def table(spool: Spool) -> dict[str | None, Counted]:
    """Read the first arena's overflow table as the reading half does."""
    arena = spool.arenas[0]
    return {row.action: row for row in Arena(bytes(arena.mm), arena.path).overflow()}


def of_tally(folder: Path) -> dict[str | None, Counted]:
    told = tally.read(str(folder / "spool" / "tally"), None)
    assert told is not None
    told.close()
    return {row.action: row for row in told.rows}


def shared(folder: Path) -> Overflow:
    """Return the counts of a process that has a tally and no arena."""
    (folder / "spool").mkdir()
    counts = overflow.Overflow()
    counts.share(str(folder / "spool"), os.urandom(8))
    return counts


@given(st.integers(-10, 2**45) | st.integers(0, 2000) | st.builds(add, st.sampled_from(POWERS), st.integers(-2, 2)))
def test_the_worker_has_the_stores_buckets(duration):
    assert overflow.bucket(duration) == histogram.bucket(duration)


@given(st.integers(2**45, 2**63))
def test_of_half_a_day_and_more_the_bucket_is_the_same_or_the_next(duration):
    assert abs(overflow.bucket(duration) - histogram.bucket(duration)) <= 1


@pytest.mark.parametrize("where", ["arena", "tally"])
def test_durations_are_counted_exactly(tmp_path, where):
    counts = spool_with_arena(tmp_path).overflow if where == "arena" else shared(tmp_path)
    chance = random.Random(7)
    jobs: list[tuple[str | None, bool, int]]
    jobs = [(chance.choice("abc"), chance.random() < 0.2, int(chance.lognormvariate(16, 1))) for _ in range(5_000)]
    if where == "tally":  # which tells the first action apart from all others
        jobs = [(name if name == jobs[0][0] else None, failed, duration) for name, failed, duration in jobs]
    for action, failed, duration in jobs:
        counts.add(action, failed, duration)
    found = table_of(counts) if where == "arena" else of_tally(tmp_path)
    for name in {action for action, _, _ in jobs}:
        mine = [(failed, duration) for action, failed, duration in jobs if action == name]
        durations = [duration for _, duration in mine]
        assert found[name] == Counted(
            name,
            len(mine),
            sum(failed for failed, _ in mine),
            sum(durations),
            max(durations),
            Counter(map(histogram.bucket, durations)),
        )


def table_of(counts: Overflow) -> dict[str | None, Counted]:
    arena = counts._arena
    assert arena is not None
    return {row.action: row for row in Arena(bytes(arena.mm), arena.path).overflow()}


@pytest.mark.parametrize("where", ["arena", "tally"])
def test_with_too_many_durations_the_nearest_counts(tmp_path, where, monkeypatch):
    spool = None
    if where == "arena":
        spool = spool_with_arena(tmp_path)
        counts = spool.overflow
    else:
        counts = shared(tmp_path)
        monkeypatch.setattr("autoinst.spool.tally.WIDE", 2)
    kinds = 70 if where == "arena" else 2
    for step in range(0, 400, 2):
        duration = int(histogram.middle(step)) + 1
        for number in range(kinds):
            counts.add(f"job{number}", step % 3 == 0, duration)
    found = table_of(counts) if where == "arena" else of_tally(tmp_path)
    assert sum(row.jobs for row in found.values()) == 200 * kinds
    assert sum(row.errors for row in found.values()) == 67 * kinds
    assert all(sum(row.durations.values()) == row.jobs for row in found.values())
    assert len(found) == (64 if where == "arena" else 2)


def test_a_process_whose_cells_are_used_up_gets_more_once(tmp_path):
    counts = shared(tmp_path)
    for step in range(300):
        counts.add("a", failed=False, duration_ns=int(histogram.middle(step)) + 1)
    assert os.stat(tmp_path / "spool" / "tally").st_size == 17 * 256
    (row,) = of_tally(tmp_path).values()
    assert (row.jobs, len(row.durations)) == (
        300,
        len({histogram.bucket(int(histogram.middle(n)) + 1) for n in range(300)}),
    )


def test_threads_and_signal_handlers_wait_for_nobody_and_lose_nothing(tmp_path):
    spool = spool_with_arena(tmp_path)
    counts = spool.overflow
    handled = 0

    def handler(*_: object) -> None:
        nonlocal handled
        handled += 1
        counts.add("signal", failed=True, duration_ns=5)

    def work() -> None:
        for number in range(EACH):
            counts.add("thread", failed=number % 2 == 0, duration_ns=number)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        work()
        for thread in threads:
            thread.join()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    found = table(spool)
    jobs = (THREADS + 1) * EACH
    assert (found["thread"].jobs, found["thread"].errors) == (jobs, jobs // 2)
    assert found["thread"].sum_ns == (THREADS + 1) * EACH * (EACH - 1) // 2
    assert sum(found["thread"].durations.values()) == jobs
    assert found.get("signal", Counted(None, 0, 0, 0)).jobs == handled


def test_a_signal_handlers_job_is_counted_by_the_one_it_interrupted(tmp_path):
    spool = spool_with_arena(tmp_path)
    counts = spool.overflow
    with counts._lock:
        counts._busy.add(threading.get_ident())  # as a handler finds it whose own thread is counting
        counts.add("a", failed=False, duration_ns=1)
        assert table(spool) == {}
        counts._busy.clear()
    counts.add("a", failed=False, duration_ns=1)
    assert table(spool)["a"].jobs == 2


def test_a_tracer_that_is_a_job_itself_lets_the_counting_end(tmp_path):
    """Each line run to count one of its jobs is another of them."""
    spool = spool_with_arena(tmp_path)
    counts = spool.overflow
    most = 20_000
    traced = 0

    def trace(_frame: FrameType, _event: str, _arg: object) -> TraceFunction:
        nonlocal traced
        if traced < most:
            traced += 1
            counts.add("tracer", failed=False, duration_ns=traced)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        counts.add("job", failed=True, duration_ns=1)
    finally:
        sys.settrace(before)
    assert 10 < traced < most
    counts.add("job", failed=True, duration_ns=1)
    found = table(spool)
    assert (found["job"].jobs, found["job"].errors) == (2, 2)
    assert (found["tracer"].jobs, found["tracer"].errors) == (traced, 0)
    assert (found["tracer"].sum_ns, found["tracer"].max_ns) == (traced * (traced + 1) // 2, traced)


def test_a_thread_has_its_job_counted_before_it_goes_on(tmp_path):
    """A queue dies with the process, and grows where one thread counts slower than the others end jobs."""
    spool = spool_with_arena(tmp_path)
    taken = threading.Event()

    def count() -> None:
        with spool.overflow._lock:
            taken.set()
            time.sleep(0.02)

    other = threading.Thread(target=count)
    other.start()
    assert taken.wait(30)
    spool.overflow.add("a", failed=False, duration_ns=1)
    found = table(spool)
    other.join()
    assert found["a"].jobs == 1


def test_a_kill_at_any_moment_counts_each_job_wholly_or_not(tmp_path):
    spool_folder = str(tmp_path / "spool")
    for round_ in range(20):
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                spool = Spool(spool_folder, dict, limit=0)
                spool.open()
                for number in range(10**9):
                    spool.overflow.add(f"a{number % 5}", number % 3 == 0, number % 4096)
                    os.write(writer, b".")
            finally:
                os._exit(1)
        os.close(writer)
        told = len(os.read(reader, 1))
        time.sleep(random.Random(round_).random() / 50)  # any moment will do
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        while data := os.read(reader, 65536):
            told += len(data)
        os.close(reader)
        (name,) = [name for name in os.listdir(spool_folder) if name.startswith(f"{pid}-")]
        arena = Arena.open(os.path.join(spool_folder, name))
        try:
            rows = arena.overflow()
        finally:
            arena.close()
        assert sum(row.jobs for row in rows) in (told, told + 1)
        assert all(sum(row.durations.values()) == row.jobs for row in rows)


# -- in the store ------------------------------------------------------------------------------------------------------


def test_percentiles_have_the_jobs_that_were_only_counted(tmp_path):
    pid = os.fork()
    if not pid:
        try:
            spool = spool_with_arena(tmp_path)
            for number in range(1, 1001):
                spool.overflow.add("a#b", number > 990, number * 1_000_000)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    for _ in range(2):
        drain_once(str(tmp_path))
        with Store(str(tmp_path / "store.sqlite3")) as store:
            cell = store.totals(0, 2**62)["a#b"]
        assert (cell.counted, cell.counted_errors, cell.sum_ns, cell.max_ns) == (1000, 10, 500_500_000_000, 10**9)
        for share in (0.5, 0.95, 0.99):
            assert cell.percentile_ns(share) == pytest.approx(share * 10**9, rel=0.05)


def test_only_what_is_new_is_added_to_a_histogram(tmp_path):
    with Store(str(tmp_path / "store.sqlite3")) as store:
        with store.transaction():
            store.set_counted(b"a" * 8, [Counted("a", 5, 0, 500, 400, {53: 4, 60: 1})])
        with store.transaction():
            assert store.set_counted(b"a" * 8, [Counted("a", 7, 1, 700, 400, {53: 3, 60: 2, 61: 1})]) == 2
        cell = store.totals(0, 2**62)["a"]
        assert (cell.counted, cell.durations) == (7, {53: 4, 60: 2, 61: 1})


def test_a_store_of_the_version_before_is_brought_up_to_date(tmp_path, monkeypatch):
    path = str(tmp_path / "store.sqlite3")
    with monkeypatch.context() as patch:
        before = next(i for i, script in enumerate(schema.MIGRATIONS) if "overflow ADD COLUMN durations" in script)
        patch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:before])
        patch.setattr(schema, "VERSION", before)
        Store(path).close()
        con = sqlite3.connect(path)
        with con:
            con.execute("INSERT INTO name(id, text) VALUES(1, 'a')")
            con.execute(
                "INSERT INTO overflow(arena, action, count, errors, sum, seen) VALUES(?,1,5,1,50,1)", (b"a" * 8,)
            )
        con.close()
    with Store(path) as store, store.transaction():
        assert store.set_counted(b"a" * 8, [Counted("a", 7, 1, 70, 10, {26: 2})]) == 2


# -- what the version before wrote -------------------------------------------------------------------------------------


class OldArena(ArenaBuilder):
    """An arena of version 1: the intern table at 10240, and count, errors and sum in the overflow table."""

    def __init__(self) -> None:
        super().__init__(version=1, pid=dead_pid(), start_time=1, slots_offset=10240 + 6144)
        self.put(0, action="old#run", tail={"args": [1]})

    def old_file(self) -> None:
        number = self.intern("old#run")
        overflow_table = struct.pack("<HHIQQQ", number, 0, 0, 7, 2, 700).ljust(64 * 32, b"\0")
        self.data = self.data[:8192] + overflow_table + self.data[layout.INTERN_OFFSET :]


def test_an_arena_of_version_1_is_stored(tmp_path):
    (tmp_path / "spool").mkdir(mode=0o700)
    old = OldArena()
    old.old_file()
    old.write(tmp_path / "spool")
    counts = drain_once(str(tmp_path))
    assert counts is not None
    assert (counts.stored, counts.counted, counts.quarantined) == (1, 7, 0)
    with Store(str(tmp_path / "store.sqlite3")) as store:
        cell = store.totals(0, 2**62)["old#run"]
    assert (cell.ok, cell.counted, cell.counted_errors, cell.sum_ns) == (1, 7, 2, 700 + 3_250_000)


def test_a_tally_of_version_1_is_stored(tmp_path):
    (tmp_path / "spool").mkdir(mode=0o700)
    row = struct.Struct("<QQQB87s")
    owner = struct.pack("<8sI4xQQ", b"tally..1", dead_pid(), 1, 0)
    block = owner + row.pack(7, 2, 700, 5, b"a#run") + row.pack(3, 0, 30, 0, b"")
    (tmp_path / "spool" / "tally").write_bytes(block)
    counts = overflow.Overflow()
    counts.share(str(tmp_path / "spool"), b"tally..2")
    counts.add("a#run", failed=False, duration_ns=10)
    assert of_tally(tmp_path) == {
        "a#run": Counted("a#run", 8, 2, 710, 10, {26: 1}),
        None: Counted(None, 3, 0, 30),
    }
