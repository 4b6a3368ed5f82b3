"""Draining: once and nothing lost wherever it is killed; the dead are reported, the living left alone."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from autoinst.agent import drain as drain_module
from autoinst.agent import intake
from autoinst.agent.deaths import FIRST_PID_NAMESPACE, Deaths
from autoinst.agent.drain import Drain, drain_once
from autoinst.agent.filesystem import file_system
from autoinst.agent.inflight import running
from autoinst.errors import HomeError, StoreError
from autoinst.leader import told
from autoinst.spool import layout, process
from autoinst.spool.owner import Machine
from autoinst.store.query import JobFilter
from autoinst.store.sqlite import Store
from benchmarks import kill_loop
from tests.arena_builder import ArenaBuilder, dead_pid, hold_lease

SECOND = 10**9


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    (folder / "spool").mkdir(mode=0o700)
    return str(folder)


@pytest.fixture
def living():
    """A process that lives, and start time: for arenas whose lease another process holds."""
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    yield child
    child.kill()
    child.wait()


def store_of(leader: Drain) -> Store:
    assert leader.store is not None
    return leader.store


def spool(home):
    return os.path.join(home, "spool")


def dead(**fields) -> ArenaBuilder:
    return ArenaBuilder(pid=dead_pid(), start_time=1, **fields)


def alive(home, child, fill, **fields):
    """Write an arena of process `child` and let another process hold its lease; return (path, its holder)."""
    builder = ArenaBuilder(pid=child.pid, start_time=process.start_time(child.pid), **fields)
    fill(builder)
    path = builder.write(spool(home))
    ready, told = os.pipe()
    holder = os.fork()
    if not holder:
        hold_lease(path)
        os.write(told, b".")
        signal.pause()
    os.read(ready, 1)
    os.close(ready)
    os.close(told)
    return path, holder


@contextlib.contextmanager
def ended(pid):
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def jobs(home, **wanted):
    with Store(os.path.join(home, "store.sqlite3")) as store:
        return list(store.jobs(JobFilter(limit=0, **wanted)))


def problems(home):
    with Store(os.path.join(home, "store.sqlite3")) as store:
        return [(problem.kind, problem.detail) for problem in store.problems()]


# -- the dead ----------------------------------------------------------------------------------------------------------


def test_a_dead_owners_arena_is_stored_and_unlinked(home):
    builder = dead()
    done = builder.put(0)
    lost = builder.put(1, state=layout.RUNNING, status=layout.UNSET, event="query.sql")
    builder.status({"digest": "d", "rules": [["r.yaml:1", "patched", "source", 1, None]]})
    builder.overflow(0, "shop.jobs.Mail#perform", {53: 5}, {53: 2}, 700, 100)
    builder.write(spool(home))
    counts = drain_once(home)
    assert counts is not None
    assert (counts.stored, counts.killed, counts.counted, counts.unlinked, counts.arenas) == (2, 1, 7, 1, 0)
    assert os.listdir(spool(home)) == []
    found = {record.id: record for record in jobs(home)}
    assert found[done].status == "ok"
    assert found[lost].status == "killed"
    assert found[lost].to_json()["killed"] == {
        "pid": builder.header["pid"],
        "signal": None,
        "last_event": "query.sql",
    }
    with Store(os.path.join(home, "store.sqlite3")) as store:
        (seen,) = store.processes()
        assert (seen.how, seen.service) == ("killed", "shop")
        assert seen.status == {"digest": "d", "rules": [["r.yaml:1", "patched", "source", 1, None]]}
        assert store.totals(0, 2**62)["shop.jobs.Mail#perform"].counted == 7


def test_draining_the_same_arena_again_changes_nothing(home):
    builder = dead()
    builder.put(0)
    builder.put(1, state=layout.RUNNING, status=layout.UNSET)
    builder.overflow(0, "a#b", {53: 5}, {53: 2}, 700, 100)
    for _ in range(3):
        builder.write(spool(home))
        drain_once(home)
    assert sorted(record.status for record in jobs(home)) == ["killed", "ok"]
    with Store(os.path.join(home, "store.sqlite3")) as store:
        assert sum(cell.jobs for cell in store.totals(0, 2**62).values()) == 9


def test_a_job_that_lacked_only_its_state_byte_is_finished(home):
    builder = dead()
    builder.put(0, state=layout.RUNNING, status=layout.ERROR, tail={"exc": ("E", "m", [], [])})
    builder.write(spool(home))
    drain_once(home)
    (record,) = jobs(home)
    assert (record.status, record.killed) == ("error", None)


def test_done_wins_over_running_with_the_same_id(home):
    for order in (0, 1):
        one, other = dead(), dead()
        ident = one.put(0, state=layout.RUNNING, status=layout.UNSET)
        other.put(0, tail={"id": ident})
        for builder in (one, other)[:: 1 if order else -1]:
            builder.write(spool(home))
            drain_once(home)
        assert [record.status for record in jobs(home, id_prefix=ident)] == ["ok"]


def test_more_than_one_reading_is_stored_completely(home, monkeypatch):
    monkeypatch.setattr(intake, "ARENA_LIMIT", 3)
    builder = dead()
    for slot in range(10):
        builder.put(slot)
    builder.put(10, state=layout.RUNNING, status=layout.UNSET)
    builder.write(spool(home))
    with Drain(home) as leader:
        first = leader.step()
        assert (first.stored, first.more, first.killed, first.unlinked) == (3, True, 0, 0)
        rest = leader.run_dry()
    assert (rest.stored, rest.killed, rest.unlinked) == (8, 1, 1)
    assert len(jobs(home)) == 11


def test_torn_records_are_counted_and_reported(home):
    builder = dead()
    builder.put(0, crc=5)
    builder.put(1)
    builder.write(spool(home))
    counts = drain_once(home)
    assert counts is not None
    assert (counts.stored, counts.torn) == (1, 1)
    assert [kind for kind, _ in problems(home)] == ["torn"]


@pytest.mark.parametrize("queue_time", [1e308, -1e308, 5e-324])
def test_an_absurd_queue_time_does_not_stop_the_drain(home, queue_time):
    builder = dead()
    builder.put(0, queue_time=queue_time)
    builder.write(spool(home))
    counts = drain_once(home)
    assert counts is not None
    assert counts.stored == 1


def test_an_arena_whose_records_cannot_be_stored_is_put_aside_alone(home, monkeypatch):
    good, bad, last = dead(), dead(), dead()
    for builder in (good, bad, last):
        builder.put(0, action=f"{builder.name}#x")
        builder.write(spool(home))
    insert = Store.insert

    def failing(self, records, process):
        if any(record.action.startswith(bad.name) for record in records):
            raise OverflowError("an oversight")
        return insert(self, records, process)

    monkeypatch.setattr(Store, "insert", failing)
    counts = drain_once(home)
    assert counts is not None
    assert (counts.stored, counts.quarantined, counts.unlinked) == (2, 1, 2)
    assert os.listdir(spool(home)) == ["quarantine"]
    monkeypatch.undo()
    drain_once(home)
    with Store(os.path.join(home, "store.sqlite3")) as store:
        (problem,) = store.problems()
    assert bad.name in problem.detail
    assert "OverflowError: an oversight" in problem.detail


def test_absurd_counts_do_not_stop_the_drain(home):
    for _ in range(3):
        builder = dead()
        builder.put(0)
        for row in range(64):
            builder.overflow(row, f"a{row}#b", {511: 2**47 - 1}, {0: 2**47 - 1}, 2**64 - 1, 2**64 - 1)
        builder.write(spool(home))
    counts = drain_once(home)
    assert counts is not None
    assert counts.stored == 3


def test_a_restarted_machine_is_said_so(home):
    builder = ArenaBuilder(boot_id=b"another boot....")
    builder.put(0, state=layout.RUNNING, status=layout.UNSET)
    # The file's name has another pid than ours: it is not this process's own.
    builder.header["pid"] += 1
    layout.HEADER.pack_into(builder.data, 0, *builder.header.values())
    builder.write(spool(home))
    drain_once(home)
    with Store(os.path.join(home, "store.sqlite3")) as store:
        assert store.processes()[0].how == "restart"


# -- how long a killed job ran -----------------------------------------------------------------------------------------


def killed_duration(home, builder):
    path = builder.write(spool(home))
    os.utime(path, (1, 1))
    drain_once(home)
    return jobs(home, status=frozenset({"killed"}))[0].duration_ns


def test_a_killed_job_ran_until_the_last_sign_of_life(home):
    now = time.time_ns() - 100 * SECOND
    builder = dead(created=now - SECOND)
    builder.put(0, state=layout.RUNNING, status=layout.UNSET, start=now)
    builder.put(1, start=now + SECOND, duration=4 * SECOND)
    builder.put(2, start=now + 2 * SECOND, duration=SECOND)
    assert killed_duration(home, builder) == 5 * SECOND


def test_a_sign_of_life_in_another_arena_of_the_process_counts(home):
    now = time.time_ns() - 100 * SECOND
    one = dead(created=now - SECOND)
    other = dead(created=now - SECOND, process_uid=one.header["process_uid"])
    one.put(0, state=layout.RUNNING, status=layout.UNSET, start=now)
    other.put(0, start=now, duration=7 * SECOND)
    os.utime(other.write(spool(home)), (1, 1))
    assert killed_duration(home, one) == 7 * SECOND


def test_the_last_write_to_the_file_is_a_sign_of_life(home):
    now = time.time_ns() // SECOND * SECOND - 100 * SECOND
    builder = dead(created=now - SECOND)
    builder.put(0, state=layout.RUNNING, status=layout.UNSET, start=now)
    os.utime(builder.write(spool(home)), ns=(1, now + 3 * SECOND))
    drain_once(home)
    assert jobs(home)[0].duration_ns == 3 * SECOND


def test_without_a_sign_of_life_the_duration_is_unknown(home):
    now = time.time_ns() - 100 * SECOND
    builder = dead(created=now - SECOND)
    builder.put(0, state=layout.RUNNING, status=layout.UNSET, start=now)
    assert killed_duration(home, builder) is None


def test_a_sign_of_life_in_the_future_does_not_count(home):
    builder = dead()
    start = time.time_ns()
    builder.put(0, state=layout.RUNNING, status=layout.UNSET, start=start)
    builder.put(1, start=2**63 - 1, duration=2**63 - 1)
    assert 0 < killed_duration(home, builder) <= time.time_ns() - start


def test_a_job_killed_while_its_end_was_stored_keeps_its_duration(home):
    builder = dead()
    builder.put(0, state=layout.RUNNING, status=layout.OK, duration=5 * SECOND, crc=1)
    assert killed_duration(home, builder) == 5 * SECOND


# -- the living --------------------------------------------------------------------------------------------------------


def test_a_living_owners_slots_are_freed_after_they_are_stored(home, living):
    def fill(builder):
        builder.put(0)
        builder.put(1, tail={"args": ["x" * 600]}, chain=(2, 3))
        builder.put(4, state=layout.RUNNING, status=layout.UNSET)

    path, holder = alive(home, living, fill)
    with ended(holder), Drain(home) as leader:
        counts = leader.step()
        assert (counts.stored, counts.killed, counts.unlinked, counts.arenas) == (2, 0, 0, 1)
        assert leader.step().stored == 0
        with open(path, "rb") as file:
            data = file.read()
        first = layout.INTERN_OFFSET + 6144 + layout.STATE_OFFSET
        chain = [layout.CONTINUATION] * 2  # which the owner frees itself
        assert list(data[first : first + 5 * 512 : 512]) == [0, 0, *chain, layout.RUNNING]
        assert [record.status for record in running(home)] == ["running"]
        assert running(home)[0].to_json()["duration"] is None
        # Its end is seen in the next step, with the moment of noticing as the end of the job.
        living.kill()
        living.wait()
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        counts = leader.step()
        assert (counts.killed, counts.unlinked) == (1, 1)
    assert running(home) == []
    (record,) = jobs(home, status=frozenset({"killed"}))
    assert 0 < record.duration_ns <= time.time_ns() - record.started_ns


def test_an_idle_step_writes_nothing(home, living):
    _, holder = alive(home, living, lambda builder: builder.put(0))
    with ended(holder), Drain(home) as leader:
        leader.step()
        before = store_of(leader)._con.total_changes
        for _ in range(3):
            leader.step()
        assert store_of(leader)._con.total_changes == before


def test_changes_of_status_and_overflow_are_seen(home, living):
    def fill(builder):
        builder.put(0)
        builder.status({"digest": "one"})

    path, holder = alive(home, living, fill)
    with ended(holder), Drain(home) as leader:
        leader.step()
        fresh = ArenaBuilder()
        fresh.intern("shop.jobs.Mail#perform")
        fresh.status({"digest": "two"}, sequence=4)
        fresh.overflow(0, "shop.jobs.Mail#perform", {26: 4}, {26: 1}, 50, 10)
        with open(path, "r+b") as file:
            file.seek(4096)
            file.write(fresh.data[4096 : layout.INTERN_OFFSET])
        assert leader.step().counted == 5
        assert leader.step().counted == 0
        assert store_of(leader).processes()[0].status == {"digest": "two"}


def test_a_process_does_not_drain_or_disturb_itself(home):
    builder = ArenaBuilder()
    builder.put(0)
    path = builder.write(spool(home))
    fd = hold_lease(path)
    counts = drain_once(home)
    assert counts is not None
    assert (counts.stored, counts.arenas) == (0, 0)
    assert running(home) == []
    code = f"import fcntl, os; fcntl.lockf(os.open({path!r}, os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    asked = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert "BlockingIOError" in asked.stderr  # the lease was not dropped
    os.close(fd)


def test_another_machines_jobs_are_stored_but_not_judged(home):
    builder = dead(boot_id=b"b" * 16, machine_id=b"m" * 16)
    builder.put(0)
    builder.put(1, state=layout.RUNNING, status=layout.UNSET)
    builder.write(spool(home))
    counts = drain_once(home)
    assert counts is not None
    assert (counts.stored, counts.killed, counts.arenas) == (1, 0, 1)
    assert len(running(home)) == 1


def test_a_suspicion_survives_the_process_that_had_it(home, monkeypatch):
    now = [10**12]
    monkeypatch.setattr("autoinst.spool.owner.time.monotonic_ns", lambda: now[0])
    builder = dead()
    builder.put(0)
    builder.put(1, state=layout.RUNNING, status=layout.UNSET)
    builder.write(spool(home))
    elsewhere = Machine.current()._replace(pid_namespace=1)

    def look():
        with Drain(home, machine=elsewhere) as leader:
            return leader.run_dry()

    assert look().stored == 1  # which changes the arena
    assert look().killed == 0
    now[0] += 29 * SECOND
    assert look().killed == 0
    now[0] += 2 * SECOND
    assert look().killed == 1
    with Store(os.path.join(home, "store.sqlite3")) as store:
        assert store.suspects() == {}


# -- what cannot be read -----------------------------------------------------------------------------------------------


def test_unreadable_files_are_quarantined_with_a_reason(home):
    folder = spool(home)
    secret = os.path.join(home, "secret")
    with open(secret, "w") as file:
        file.write("secret")
    names = {
        "1-00000000000000aa.arena": "too short",
        "2-00000000000000aa.arena": "not an arena",
        "3-00000000000000aa.arena": "symbolic link",
        "4-00000000000000aa.arena": "Is a directory",
        "5-00000000000000aa.arena": "not a regular file",
        "nonsense.arena": "no arena has such a name",
    }
    with open(os.path.join(folder, "1-00000000000000aa.arena"), "wb") as file:
        file.write(b"AUTOINST")
    with open(os.path.join(folder, "2-00000000000000aa.arena"), "wb") as file:
        file.write(os.urandom(20_000))
    os.symlink(secret, os.path.join(folder, "3-00000000000000aa.arena"))
    os.mkdir(os.path.join(folder, "4-00000000000000aa.arena"))
    os.mkfifo(os.path.join(folder, "5-00000000000000aa.arena"))
    ArenaBuilder().write(folder, "nonsense.arena")
    good = dead()
    ident = good.put(0)
    good.write(folder)
    with Drain(home) as leader:
        counts = leader.run_dry()
        assert len(leader.notes) == len(names)
        assert leader.step().quarantined == 0
    assert (counts.quarantined, counts.stored) == (len(names), 1)
    assert [record.id for record in jobs(home)] == [ident]
    assert os.listdir(folder) == ["quarantine"]
    for name, reason in names.items():
        with open(os.path.join(folder, "quarantine", name + ".reason")) as file:
            said = file.read()
        assert reason in said or "no arena's size" in said
        assert os.path.lexists(os.path.join(folder, "quarantine", name))
    with open(secret) as file:
        assert file.read() == "secret"
    assert len(problems(home)) == len(names)


def test_an_arena_of_a_newer_version_is_left_alone_and_reported_once(home):
    path = dead(version=3).write(spool(home))
    with Drain(home) as leader:
        leader.run_dry()
        leader.step()
        assert len(leader.notes) == 1
    assert os.path.exists(path)
    assert "version 3" in problems(home)[0][1]


def test_a_file_cut_short_under_the_leader_is_quarantined(home, living):
    path, holder = alive(home, living, lambda builder: builder.put(0))
    with ended(holder), Drain(home) as leader:
        leader.step()
        os.truncate(path, 8192)
        assert leader.step().quarantined == 1


def test_other_files_in_the_spool_are_left_alone(home):
    path = os.path.join(spool(home), "README")
    with open(path, "w") as file:
        file.write("x")
    drain_once(home)
    assert os.path.exists(path)


def test_an_arena_left_half_made_is_removed_after_a_minute(home):
    builder = dead()
    old = builder.write(spool(home), builder.name + ".new")
    os.utime(old, (time.time() - 61, time.time() - 61))
    fresh = dead()
    new = fresh.write(spool(home), fresh.name + ".new")
    locked = dead()
    held = locked.write(spool(home), locked.name + ".new")
    os.utime(held, (time.time() - 61, time.time() - 61))
    ready, told = os.pipe()
    holder = os.fork()
    if not holder:
        hold_lease(held)
        os.write(told, b".")
        signal.pause()
    with ended(holder):
        os.read(ready, 1)
        os.close(ready)
        os.close(told)
        drain_once(home)
        assert [os.path.exists(path) for path in (old, new, held)] == [False, True, True]


def test_running_out_of_descriptors_loses_nothing(home, monkeypatch):
    builder = dead()
    builder.put(0)
    path = builder.write(spool(home))
    real = os.open

    def exhausted(name, *args, **kwargs):
        if str(name).endswith(".arena"):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(name, *args, **kwargs)

    with Drain(home) as leader:
        monkeypatch.setattr(os, "open", exhausted)
        assert leader.step().stored == 0
        assert os.path.exists(path)
        monkeypatch.undo()
        assert leader.step().stored == 1


def test_many_idle_arenas_are_not_all_kept_open(home, monkeypatch):
    monkeypatch.setattr(intake, "OPEN_LIMIT", 3)
    for _ in range(8):
        builder = dead(boot_id=b"b" * 16, machine_id=b"m" * 16)  # never judged, so they stay
        builder.put(0)
        builder.write(spool(home))
    with Drain(home) as leader:
        before = len(os.listdir("/proc/self/fd"))
        assert leader.step().stored == 8
        assert len(os.listdir("/proc/self/fd")) < before + 8
        assert leader.step().stored == 0
        assert len(os.listdir("/proc/self/fd")) < before + 8


def test_a_glance_looks_only_at_arenas_in_use_and_at_new_ones(home):
    builder = dead(boot_id=b"b" * 16, machine_id=b"m" * 16)  # never judged, so it stays
    builder.put(0)
    path = builder.write(spool(home))
    with Drain(home) as leader:
        assert leader.glance().stored == 1  # it is new
        assert not leader.has_many()
        builder.put(1)
        rewrite(path, builder)
        leader._intake.sources[str(path)].lively_until = float("inf")
        assert leader.glance().stored == 1  # it was in use a moment ago
        leader._intake.sources[str(path)].lively_until = 0.0
        builder.put(2)
        rewrite(path, builder)
        assert leader.glance().stored == 0
        other = dead(boot_id=b"b" * 16, machine_id=b"m" * 16)
        other.put(0)
        other.write(spool(home))
        assert leader.glance().stored == 1
        assert told(home).ended == 0  # nobody is told that everything was looked at
        assert leader.run_dry().stored == 1
        assert told(home).ended == 1
        assert leader.glance().stored == 0


def rewrite(path, builder):
    """Write what `builder` has now into its file, in place."""
    with open(path, "r+b") as file:
        file.write(builder.data)


# -- the leader, the home, the store -----------------------------------------------------------------------------------


def test_there_is_one_leader_at_a_time(home):
    with Drain(home) as first:
        second = Drain(home)
        assert second.acquire() is False
        assert second.acquire(0.1) is False
        assert drain_once(home, 0.0) is None
        with pytest.raises(HomeError, match="without having acquired"):
            second.step()
        first.close()
        assert second.acquire() is True
        second.close()


def test_a_killed_leader_makes_way(home):
    ready, told = os.pipe()
    pid = os.fork()
    if not pid:
        Drain(home).acquire()
        os.write(told, b".")
        signal.pause()
    os.read(ready, 1)
    assert drain_once(home, 0.0) is None
    with ended(pid):
        os.kill(pid, signal.SIGKILL)
        assert drain_once(home, 5.0) is not None


def test_a_home_that_is_not_there_yet_is_made(tmp_path):
    home = str(tmp_path / "a" / "b")
    assert running(home) == []
    drain_once(home)
    assert os.stat(home).st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's folder")
def test_another_users_home_is_refused(home):
    os.chown(home, 12345, 12345)
    with pytest.raises(HomeError, match="belongs to user 12345"):
        Drain(home)


def test_a_network_file_system_is_refused(home, monkeypatch):
    monkeypatch.setattr(drain_module, "file_system", lambda path: "nfs4")
    with pytest.raises(HomeError, match="nfs4 is a network file system"):
        Drain(home)


def test_the_file_system_of_a_folder(tmp_path):
    table = tmp_path / "mountinfo"
    spaced = tmp_path / "with space"
    spaced.mkdir()
    table.write_text(
        "1 0 0:1 / / rw shared:1 - ext4 /dev/a rw\n"
        f"2 1 0:2 / {tmp_path} rw - xfs /dev/b rw\n"
        f"3 1 0:3 / {str(spaced).replace(' ', chr(92) + '040')} rw master:2 - nfs4 server:/x rw\n"
        f"4 1 0:4 / {tmp_path}/wi rw - tmpfs x rw\n"
    )
    assert file_system("/nowhere", str(table)) == "ext4"
    assert file_system(str(tmp_path), str(table)) == "xfs"
    assert file_system(str(spaced / "deeper"), str(table)) == "nfs4"
    assert file_system("/", str(tmp_path / "none")) is None


@pytest.mark.parametrize("when", ["before", "between"])
def test_a_damaged_store_is_moved_aside_and_nothing_in_the_spool_is_lost(home, when):
    path = os.path.join(home, "store.sqlite3")
    builder = dead()
    builder.put(0)
    if when == "before":
        with open(path, "wb") as file:
            file.write(b"no database at all, " * 1000)
        builder.write(spool(home))
        with Drain(home) as leader:
            assert leader.step().stored == 1
            assert "damaged" in leader.notes[0]
    else:
        with Drain(home) as leader:
            leader.step()
            store_of(leader).checkpoint()
            store_of(leader)._con.execute("PRAGMA cache_size = 0")
            with open(path, "r+b") as file:
                file.write(b"no database at all, " * 1000)
            builder.write(spool(home))
            assert leader.step().stored == 1
            assert "damaged" in leader.notes[0]
    assert len(jobs(home)) == 1
    assert any(".corrupt-" in name for name in os.listdir(home))
    assert [kind for kind, _ in problems(home)] == ["store"]


def test_a_locked_store_is_an_error_that_loses_nothing(home, monkeypatch):
    monkeypatch.setattr("autoinst.store.sqlite.BUSY_SECONDS", 0.05)
    builder = dead()
    builder.put(0)
    path = builder.write(spool(home))
    with Drain(home) as leader:
        store_of(leader)._con.execute("PRAGMA busy_timeout = 50")
        other = sqlite3.connect(os.path.join(home, "store.sqlite3"), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            leader.step()
        assert os.path.exists(path)
        other.execute("ROLLBACK")
        other.close()
        assert leader.step().stored == 1


def test_a_full_disk_is_an_error_that_loses_nothing(home):
    builder = dead()
    for slot in range(32):
        builder.put(slot, tail={"args": [os.urandom(150)]})
    path = builder.write(spool(home))
    with Drain(home) as leader:
        pages = store_of(leader)._con.execute("PRAGMA page_count").fetchone()[0]
        store_of(leader)._con.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match="full"):
            leader.step()
        assert os.path.exists(path)
        store_of(leader)._con.execute("PRAGMA max_page_count = 1000000")
        assert leader.step().stored == 32
    assert len(jobs(home)) == 32


@pytest.mark.parametrize("moment", ["before the commit", "after the commit", "between two frees", "before the unlink"])
def test_a_leader_killed_at_any_moment_loses_and_doubles_nothing(home, living, moment):
    def fill(builder):
        for slot in range(4):
            builder.put(slot)
        builder.put(4, tail={"args": ["x" * 600]}, chain=(5, 6))

    _, holder = alive(home, living, fill)
    gone = dead()
    gone.put(0)
    gone.put(1, state=layout.RUNNING, status=layout.UNSET)
    gone.overflow(0, "a#b", {26: 2}, {26: 1}, 30, 10)
    gone.write(spool(home))
    with ended(holder):
        pid = os.fork()
        if not pid:
            die_at(moment)
            Drain(home).__enter__().step()
            os._exit(7)
        assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        drain_once(home)
        drain_once(home)
    found = jobs(home)
    assert sorted(record.status for record in found) == ["killed"] + ["ok"] * 6
    with Store(os.path.join(home, "store.sqlite3")) as store:
        assert sum(cell.jobs for cell in store.totals(0, 2**62).values()) == 10


def die_at(moment):
    """Make this process kill itself at `moment` of its first step."""

    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    if moment == "before the commit":
        from autoinst.store.insert import Inserter

        Inserter.flush = die  # type: ignore[method-assign]
    elif moment == "after the commit":
        Drain._give_back = die  # type: ignore[method-assign]
    elif moment == "between two frees":
        from autoinst.spool.reader import Arena

        real = Arena.free

        def some(self, slots):
            real(self, slots[:6])  # the first slot of the chained record, but not the rest of its chain
            die()

        Arena.free = some  # type: ignore[method-assign]
    else:
        os.unlink = die


# -- why it died -------------------------------------------------------------------------------------------------------


def fake_kernel(tmp_path, kills, log=b""):
    (tmp_path / "cgroup" / "app").mkdir(parents=True, exist_ok=True)
    (tmp_path / "cgroup" / "app" / "memory.events").write_text(f"low 0\noom 9\noom_kill {kills}\noom_group_kill 0\n")
    (tmp_path / "kmsg").write_bytes(log)


def test_a_risen_oom_count_explains_one_death(tmp_path):
    fake_kernel(tmp_path, 4)
    deaths = Deaths(str(tmp_path / "cgroup"), str(tmp_path / "kmsg"))
    deaths.watch("0::/app\n")
    assert deaths.cause(1, 1, "0::/app\n") is None
    fake_kernel(tmp_path, 5)
    assert deaths.cause(1, 1, "0::/app\n") == "oom"
    assert deaths.cause(2, 1, "0::/app\n") is None
    assert deaths.cause(3, 1, "/other") is None
    assert deaths.cause(3, 1, None) is None
    deaths.close()


def test_the_older_kind_of_cgroup_is_read_too(tmp_path):
    folder = tmp_path / "cgroup" / "memory" / "app"
    folder.mkdir(parents=True)
    (folder / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
    deaths = Deaths(str(tmp_path / "cgroup"), str(tmp_path / "kmsg"))
    told = "5:cpu:/x\n4:memory:/app\n0::/\n"
    deaths.watch(told)
    (folder / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert deaths.cause(1, 1, told) == "oom"


def test_the_kernels_log_explains_a_death(tmp_path):
    ticks = os.sysconf("SC_CLK_TCK")
    log = b"6,1,100000000,-;Memory cgroup out of memory: Killed process 41 (python) total-vm:1kB\n SUBSYSTEM=x\n"
    for data, pid, start, cause in (
        (log, 41, 50, "oom"),
        (log, 41, 200, None),  # an earlier process with that pid
        (log, 42, 50, None),
        (b"6,2,100000000,-;python[41]: segfault at 0 ip 00 sp 00 error 4\n", 41, 50, "SIGSEGV"),
        (b"nonsense", 41, 50, None),
        (b"6,x,y;Killed process 41", 41, 50, None),
    ):
        fake_kernel(tmp_path, 0, data)
        deaths = Deaths(str(tmp_path / "cgroup"), str(tmp_path / "kmsg"))
        assert deaths.cause(pid, start * ticks, None) == cause
        deaths.close()


def test_the_cause_is_in_the_record(home, tmp_path, living, monkeypatch):
    fake_kernel(tmp_path, 0)
    deaths = Deaths(str(tmp_path / "cgroup"), str(tmp_path / "kmsg"))

    def fill(builder):
        builder.put(0, state=layout.RUNNING, status=layout.UNSET)

    # Another pid namespace than the one the arena tells of cannot look into /proc: it takes what the process said.
    _, holder = alive(home, living, fill, description={"cgroup": "/app"})
    with ended(holder), Drain(home, deaths=deaths) as leader:
        monkeypatch.setattr(leader._intake, "_cgroup", lambda arena: arena.description()["cgroup"])
        leader.step()
        fake_kernel(tmp_path, 1)
        living.kill()
        living.wait()
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        leader.step()
    (record,) = jobs(home)
    assert record.killed is not None
    assert record.killed.signal == "oom"
    with Store(os.path.join(home, "store.sqlite3")) as store:
        assert store.processes()[0].how == "oom"


@pytest.mark.parametrize(
    ("fields", "signal_name"),
    [({"pid_namespace": FIRST_PID_NAMESPACE}, "oom"), ({"pid_namespace": 7}, None), ({"boot_id": b"b" * 16}, None)],
    ids=["here", "another namespace", "before a restart"],
)
def test_the_kernels_log_tells_of_this_boots_processes_in_the_first_namespace(home, tmp_path, fields, signal_name):
    pid = dead_pid()
    fake_kernel(tmp_path, 0, f"6,1,99999999999999,-;Memory cgroup out of memory: Killed process {pid} (x)\n".encode())
    builder = ArenaBuilder(pid=pid, start_time=1, **fields)
    builder.put(0, state=layout.RUNNING, status=layout.UNSET)
    builder.write(spool(home))
    machine = Machine.current()._replace(pid_namespace=builder.header["pid_namespace"])
    with Drain(home, machine=machine, deaths=Deaths(str(tmp_path / "cgroup"), str(tmp_path / "kmsg"))) as leader:
        leader.run_dry()
    (record,) = jobs(home)
    assert record.killed is not None
    assert record.killed.signal == signal_name


def test_a_zombies_signal_is_in_the_record(home, living):
    builder = ArenaBuilder(pid=living.pid, start_time=process.start_time(living.pid))
    builder.put(0, state=layout.RUNNING, status=layout.UNSET)
    builder.write(spool(home))
    living.send_signal(signal.SIGABRT)
    os.waitid(os.P_PID, living.pid, os.WEXITED | os.WNOWAIT)
    drain_once(home)
    (record,) = jobs(home)
    assert record.killed is not None
    assert record.killed.signal == "SIGABRT"


# -- kill loop ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5, pytest.param(100, marks=pytest.mark.kill)])
def test_killed_workers_and_drains_lose_nothing(home, size):
    result = kill_loop.run(home, workers=3 * size, agents=size, seed=int(time.time()))
    assert result.clean, result
    assert result.workers_killed == 3 * size
    assert result.agents_killed == size
    # How many jobs a worker ends before it is killed is the machine's to say, which may be busy with other things.
    assert result.completed > 0
    assert size < 100 or result.in_flight > size


def test_the_lock_is_not_left_to_a_child(home):
    with Drain(home):
        child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        with open(os.path.join(home, "drain.lock")) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        child.kill()
        child.wait()
