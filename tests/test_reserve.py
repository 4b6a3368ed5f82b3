"""The reserve, in which processes count that find the disk full: each has a block of its own, which is used again."""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest

from autoinst.agent.drain import Drain, drain_once
from autoinst.spool import blocks, reserve, tally
from autoinst.spool.overflow import Overflow
from autoinst.store.sqlite import Store

if TYPE_CHECKING:
    from pathlib import Path

UID = b"process."


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home with a reserve on a disk that is full, as far as the tally can tell."""
    reserve.make(str(tmp_path))
    monkeypatch.setattr(tally, "_written", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    return tmp_path


def count(home: Path, jobs: int) -> None:
    counts = Overflow()
    counts.share(str(home / "spool"), UID)
    for number in range(jobs):
        counts.add("a#run", number % 3 == 0, 1000)


def process(home: Path, jobs: int) -> int:
    """Have a process count so many jobs and wait to be killed; return its pid once it has counted them."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            count(home, jobs)
            os.write(writer, b".")
            signal.pause()
        finally:
            os._exit(1)
    os.close(writer)
    assert os.read(reader, 1) == b"."
    os.close(reader)
    return pid


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def counted(home: Path) -> int:
    drain_once(str(home))
    with Store(str(home / "store.sqlite3")) as store:
        return sum(cell.counted for cell in store.totals(0, 2**62).values())


def used(home: Path) -> int:
    data = (home / reserve.NAME).read_bytes()
    assert len(data) == reserve.SIZE
    return sum(any(data[at : at + blocks.BLOCK]) for at in range(0, len(data), blocks.BLOCK))


def test_each_process_has_a_block_until_it_is_gone_and_stored(home):
    pids = [process(home, 4) for _ in range(3)]
    assert used(home) == 3
    assert counted(home) == 12
    end(pids.pop())
    assert used(home) == 3
    assert counted(home) == 12
    assert used(home) == 2
    for pid in pids:
        end(pid)
    assert counted(home) == 12
    assert used(home) == 0
    end(process(home, 5))
    assert counted(home) == 17


def test_processes_that_come_at_once_have_different_blocks(home):
    pids = []
    for _ in range(12):
        pid = os.fork()
        if not pid:
            try:
                count(home, 10)
            finally:
                os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    assert used(home) == 12
    assert counted(home) == 120


def test_when_all_blocks_are_taken_there_is_none(home, monkeypatch):
    monkeypatch.setattr(reserve, "BLOCKS", 2)
    monkeypatch.setattr(reserve, "SIZE", 2 * blocks.BLOCK)
    os.truncate(home / reserve.NAME, reserve.SIZE)
    pids = [process(home, 1) for _ in range(2)]
    try:
        with pytest.raises(OSError, match="No space left"):
            count(home, 1)
    finally:
        for pid in pids:
            end(pid)
    assert counted(home) == 2


def test_a_leader_that_ends_beside_the_commit_counts_nothing_twice(home, monkeypatch):
    end(process(home, 4))
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", Mock(side_effect=RuntimeError))
        with pytest.raises(RuntimeError):
            drain_once(str(home))
    assert used(home) == 1
    assert counted(home) == 4
    assert used(home) == 0


def test_counts_of_the_living_are_read_again_only_when_they_change(home, monkeypatch):
    (home / "spool").mkdir()
    pid = process(home, 4)
    try:
        with Drain(str(home)) as leader:
            assert leader.step().counted == 4
            with monkeypatch.context() as patch:
                patch.setattr(Store, "set_counted", Mock(side_effect=AssertionError))
                leader.step()
    finally:
        end(pid)


@pytest.mark.parametrize("what", ["link", "folder", "noise", "short", "nothing"])
def test_anything_else_in_its_place_stops_nobody(tmp_path, monkeypatch, what):
    monkeypatch.setattr(tally, "_written", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    place = tmp_path / reserve.NAME
    if what == "link":
        (tmp_path / "target").write_bytes(bytes(reserve.SIZE))
        place.symlink_to(tmp_path / "target")
    elif what == "folder":
        place.mkdir()
    elif what != "nothing":
        place.write_bytes(os.urandom(reserve.SIZE if what == "noise" else 1000))
    with pytest.raises(OSError, match=r"No space left|Too many levels|Is a directory|damaged|No such file"):
        count(tmp_path, 1)
    for _ in range(2):
        assert counted(tmp_path) >= 0
    if what == "link":
        assert (tmp_path / "target").read_bytes() == bytes(reserve.SIZE)
        with Store(str(tmp_path / "store.sqlite3")) as store:
            assert reserve.NAME in store.problems()[0].detail
    if what != "folder":
        count(tmp_path, 1)
