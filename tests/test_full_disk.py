"""A disk that is full, on tmpfs and on ext4: who has an arena goes on in it, and what was recorded waits for room."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from autoinst.agent.drain import drain_once
from autoinst.errors import StoreError
from autoinst.spool.layout import SEGMENTS
from autoinst.store.query import JobFilter
from autoinst.store.sqlite import Store
from tests.harness import Program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MEGABYTES = 6
JOBS = 17  # fewer than a first arena has slots
SLOTS = SEGMENTS[0]
WORKER = """
import sys
import work

work.job("before")
print("begun", flush=True)
for line in sys.stdin:
    for n in range(int(line)):
        work.job(n)
    print("done", flush=True)
"""


def mounted(command: list[str], point: Path) -> None:
    """Mount with `command`; skips where that is not permitted."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        pytest.skip(f"there is no {error.filename} program")
    if done.returncode:
        pytest.skip(f"{point.name}: {' '.join(command[:3])} is not permitted: {done.stderr.strip()}")


@contextlib.contextmanager
def small_disk(kind: str, folder: Path) -> Iterator[Path]:
    """Mount a file system of a few megabytes and yield a private folder in it."""
    point = folder / "disk"
    point.mkdir()
    if kind == "tmpfs":
        mounted(["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(point)], point)
    else:
        image = folder / "disk.img"
        image.write_bytes(bytes(MEGABYTES * 2**20))
        mounted(["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], point)
        mounted(["mount", "-o", "loop", str(image), str(point)], point)
    try:
        home = point / "home"
        home.mkdir(mode=0o700)
        yield home
    finally:
        subprocess.run(["umount", str(point)], check=True)


def fill(folder: Path) -> Path:
    """Take all room that is left where `folder` is; return the file that holds it."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    return path


def stored(home: Path) -> list[str]:
    """Drain and return the statuses of what is stored."""
    drain_once(str(home))
    with Store(str(home / "store.sqlite3")) as store:
        return [record.status for record in store.jobs(JobFilter(limit=0))]


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_full_disk_stops_nobody_and_loses_nothing(tmp_path: Path, kind: str) -> None:
    program = Program(tmp_path)
    program.write("rules.yaml", "version: 1\njobs: [{function: work.job}]\n")
    program.write("work.py", "def job(n):\n    return n\n")
    program.write("worker.py", WORKER)
    with small_disk(kind, tmp_path) as home:
        program.home = home
        environ = program.environ({"AUTOINST_PACKS": "none"})
        worker = subprocess.Popen(
            [sys.executable, "worker.py"],
            cwd=tmp_path,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            assert worker.stdout.readline() == "begun\n"
            filler = fill(home)
            # One slot for the job before: no other arena is needed for these, nor could one be had.
            worker.stdin.write(f"{JOBS}\n")
            worker.stdin.flush()
            assert worker.stdout.readline() == "done\n"
            other = subprocess.run(
                [sys.executable, "worker.py"],
                check=False,
                cwd=tmp_path,
                env=environ,
                input="5\n",
                capture_output=True,
                text=True,
            )
            assert (other.returncode, other.stdout) == (0, "begun\ndone\n")
            assert "No space left on device" in other.stderr
            with pytest.raises(StoreError, match="full"):
                drain_once(str(home))
            worker.stdin.write("20\n")  # the arena is full after two of them, the others are counted in it
            worker.stdin.flush()
            assert worker.stdout.readline() == "done\n"
            filler.unlink()
            assert stored(home) == ["ok"] * SLOTS
            with Store(str(home / "store.sqlite3")) as store:
                assert store.totals(0, 2**62)["work#job"].counted == 1 + JOBS + 20 - SLOTS
            worker.kill()
            worker.wait()
            assert stored(home) == ["ok"] * SLOTS
        finally:
            worker.kill()
            worker.communicate()


def test_a_store_that_was_cut_short_is_moved_aside(tmp_path: Path) -> None:
    program = Program(tmp_path)
    program.write("rules.yaml", "version: 1\njobs: [{function: work.job}]\n")
    program.write("work.py", "def job(n):\n    return n\n")
    program.write("worker.py", "import work\nfor n in range(200): work.job(n)\n")
    path = program.home / "store.sqlite3"
    assert len(program.run("worker.py", AUTOINST_PACKS="none").records) == 200
    whole = path.read_bytes()
    for size in (len(whole) // 2, 8192, 100):
        for name in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
            name.unlink(missing_ok=True)
        path.write_bytes(whole[:size])
        assert len(program.run("worker.py", AUTOINST_PACKS="none").records) == 200
        (aside,) = program.home.glob("*.corrupt-*")
        assert aside.read_bytes() == whole[:size]
        aside.unlink()
