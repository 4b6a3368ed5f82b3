"""AUTOINST_SPOOL_MAX: processes that nobody drains cannot fill a disk."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest

from autoinst.agent import tally
from autoinst.agent.drain import drain_once
from autoinst.cli.diagnosis import spool_facts
from autoinst.config import Config
from autoinst.spool import room
from autoinst.spool import tally as written
from autoinst.spool.writer import Spool
from autoinst.store.sqlite import Store
from tests.agents import eventually
from tests.harness import Program

if TYPE_CHECKING:
    from pathlib import Path

RULES = """\
    version: 1
    jobs: [{class: __main__.Job, methods: [perform]}]
    """


def test_forked_children_stop_making_arenas_and_their_jobs_run_on(tmp_path):
    program = Program(tmp_path)
    program.write("rules.yaml", RULES)
    program.write(
        "worker.py",
        """
        import os

        class Job:
            def perform(self):
                os.write(1, b".")

        for _ in range(30):
            pid = os.fork()
            if not pid:
                Job().perform()
                os._exit(0)
            os.waitpid(pid, 0)
        spool = os.environ["AUTOINST_HOME"] + "/spool"
        print(sum(os.stat(f"{spool}/{name}").st_size for name in os.listdir(spool) if name != "tally") <= 300_000)
        """,
    )
    result = program.run("worker.py", AUTOINST_PACKS="none", AUTOINST_SPOOL_MAX="300000")
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout == "." * 30 + "True\n"
    assert 5 < len(result.records) < 30
    assert counted(program.home)["__main__.Job#perform"][0] == 30 - len(result.records)
    attention: list[str] = []
    spool_facts(Config({"AUTOINST_HOME": str(program.home)}, "/"), attention)
    assert "the spool was full" in attention[0]
    program.write("worker.py", "class Job:\n    def perform(self): pass\nJob().perform()\n")
    assert (
        len(program.run("worker.py", AUTOINST_PACKS="none").records) == len(result.records) + 1
    )  # drained: room again


def test_a_process_that_may_not_grow_counts(tmp_path):
    spool = Spool(str(tmp_path / "spool"), dict, limit=50_000)
    assert spool.open()
    head = ("A#b", None, 0, "background_job", "perform_job.python", None, None)
    slots = [spool.begin(number, 1, 0.0, head, b"") for number in range(1, 41)]
    assert [slot is None for slot in slots] == [False] * 20 + [True] * 20
    assert "SpoolFullError" in (spool.problem or "")
    assert len(os.listdir(tmp_path / "spool")) == 2  # one arena, and the mark


def test_what_the_spool_takes_is_reckoned_from_some(tmp_path):
    assert room.used(str(tmp_path)) == 0
    for number in range(1000):
        (tmp_path / f"{number}.arena").write_bytes(b"x" * 100)
    (tmp_path / "other").write_bytes(b"x" * 10_000)
    assert room.used(str(tmp_path)) == 100_000
    room.check(str(tmp_path), 50, 100_050)
    room.check(str(tmp_path), 50, 0)
    with pytest.raises(room.SpoolFullError, match="100000 of 100049"):
        room.check(str(tmp_path), 50, 100_049)


@pytest.mark.parametrize(("text", "limit"), [("", 1 << 30), ("5M", 5 << 20), ("0", 0), ("much", 1 << 30)])
def test_the_limit(text, limit):
    assert Config({"AUTOINST_HOME": "/h", "AUTOINST_SPOOL_MAX": text}, "/").spool_limit == limit


HEAD = ("shop.Mail#perform", None, 1, "background_job", "perform_job.python", None, None)


def count(folder: str, jobs: dict[str, int], *, end: str = "exit") -> int:
    """Have a process that may make no arena run `jobs` (action to number, every third failed); return its pid."""
    pid = os.fork()
    if not pid:
        try:
            spool = Spool(folder, dict, limit=1)
            number = 0
            for action, times in jobs.items():
                for _ in range(times):
                    number += 1
                    assert spool.begin(number, 1, 0.0, (action, *HEAD[1:]), b"") is None
                    spool.overflow.add(action, number % 3 == 0, 10)
            if end == "daemon":
                os.closerange(3, 4096)
                spool.overflow.add(next(iter(jobs)), failed=False, duration_ns=10)
            if end != "exit":
                signal.pause()
        finally:
            os._exit(0)
    if end == "exit":
        os.waitpid(pid, 0)
    return pid


def counted(home: Path) -> dict[str | None, tuple[int, int, int]]:
    """Drain and return what the store has of jobs that were only counted."""
    drain_once(str(home))
    with Store(str(home / "store.sqlite3")) as store:
        cells = store.totals(0, 2**62).items()
        return {action: (cell.counted, cell.counted_errors, cell.sum_ns) for action, cell in cells}


def test_processes_without_an_arena_are_counted_together(tmp_path):
    folder = str(tmp_path / "spool")
    for _ in range(20):
        count(folder, {"a.Job#run": 1})
    count(folder, {"a.Job#run": 3, "b.Job#run": 2, "c.Job#run": 1})
    count(folder, {"x" * 200: 1})
    assert os.stat(tmp_path / "spool" / "tally").st_size == 22 * 256
    wanted = {"a.Job#run": (23, 1, 230), None: (3, 1, 30), "x" * 87: (1, 0, 10)}
    assert counted(tmp_path) == wanted
    assert os.listdir(folder) == ["full"]
    assert counted(tmp_path) == wanted
    count(folder, {"a.Job#run": 1})
    assert counted(tmp_path)["a.Job#run"] == (24, 1, 240)


@pytest.mark.parametrize(("end", "jobs"), [("waits", 4), ("daemon", 3)])
def test_who_still_counts_keeps_the_tally(tmp_path, end, jobs):
    folder = str(tmp_path / "spool")
    pid = count(folder, {"a.Job#run": jobs}, end=end)
    try:
        eventually(lambda: counted(tmp_path) == {"a.Job#run": (4, 1, 40)})
        count(folder, {"a.Job#run": 1})
        assert counted(tmp_path) == {"a.Job#run": (5, 1, 50)}
        assert "tally" in os.listdir(folder)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert counted(tmp_path) == {"a.Job#run": (5, 1, 50)}
    assert os.listdir(folder) == ["full"]


@pytest.mark.parametrize(("owner", "method"), [(Store, "set_counted"), (tally.Told, "close")])
def test_a_leader_that_ends_beside_the_commit_counts_nothing_twice(tmp_path, monkeypatch, owner, method):
    folder = str(tmp_path / "spool")
    count(folder, {"a.Job#run": 2})
    with monkeypatch.context() as patch:
        patch.setattr(owner, method, Mock(side_effect=RuntimeError))
        with pytest.raises(RuntimeError):
            counted(tmp_path)
    assert "tally.taken" in os.listdir(folder)
    count(folder, {"a.Job#run": 1})
    counted(tmp_path)
    assert counted(tmp_path) == {"a.Job#run": (3, 0, 30)}
    assert os.listdir(folder) == ["full"]


@pytest.mark.parametrize("what", ["link", "folder", "noise"])
def test_a_tally_of_anything_else_is_put_aside(tmp_path, what):
    place = tmp_path / "spool" / "tally"
    place.parent.mkdir()
    if what == "link":
        place.symlink_to("/etc/passwd")
    elif what == "folder":
        place.mkdir()
    else:
        place.write_bytes(os.urandom(1000))
    count(str(tmp_path / "spool"), {"a.Job#run": 1})  # has nowhere to count
    totals = counted(tmp_path)
    if what != "noise":
        assert totals == {}
        with Store(str(tmp_path / "store.sqlite3")) as store:
            assert "tally" in store.problems()[0].detail
    counted(tmp_path)
    count(str(tmp_path / "spool"), {"a.Job#run": 1})
    assert counted(tmp_path)["a.Job#run"] == (1, 0, 10)


def test_a_tally_does_not_grow_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(written, "MAX_BYTES", 1024)
    for _ in range(6):
        count(str(tmp_path / "spool"), {"a.Job#run": 1})
    assert os.stat(tmp_path / "spool" / "tally").st_size == 1024
    assert counted(tmp_path) == {"a.Job#run": (4, 0, 40)}


def test_in_a_large_folder_one_process_in_so_many_looks(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "LARGE_FOLDER", 0)
    folder = str(tmp_path)
    (tmp_path / "1.arena").write_bytes(b"x" * 100)
    monkeypatch.setattr(os, "getpid", lambda: 17)
    room.check(folder, 100, 150)
    monkeypatch.setattr(os, "getpid", lambda: 16)
    for pid in (16, 17):
        monkeypatch.setattr(os, "getpid", lambda pid=pid: pid)
        with pytest.raises(room.SpoolFullError):
            room.check(folder, 100, 150)
    os.utime(tmp_path / room.FULL_NAME, (1, 1))
    room.check(folder, 100, 150)
    with pytest.raises(room.SpoolFullError):
        room.check(folder, 100_000, 150)  # a larger arena is always looked at
