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


def watched(folder: Path) -> Program:
    """Return a program that runs as many jobs as it is told on its standard input."""
    program = Program(folder)
    program.write("rules.yaml", "version: 1\njobs: [{function: work.job}]\n")
    program.write("work.py", "def job(n):\n    return n\n")
    program.write("worker.py", WORKER)
    return program


def begin(program: Program, environ: dict[str, str]) -> subprocess.Popen[str]:
    """Start that program, which runs one job."""
    pipe = subprocess.PIPE
    worker = subprocess.Popen(
        [sys.executable, "worker.py"],
        cwd=program.folder,
        env=environ,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "begun\n"
    return worker


def tell(worker: subprocess.Popen[str], jobs: int) -> None:
    """Have it run so many jobs."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(f"{jobs}\n")
    worker.stdin.flush()
    assert worker.stdout.readline() == "done\n"


def counted(home: Path) -> int:
    """Return of how many jobs the store knows no more than that they were."""
    with Store(str(home / "store.sqlite3")) as store:
        return store.totals(0, 2**62)["work#job"].counted


def stored(home: Path) -> list[str]:
    """Drain and return the statuses of what is stored."""
    drain_once(str(home))
    with Store(str(home / "store.sqlite3")) as store:
        return [record.status for record in store.jobs(JobFilter(limit=0))]


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_full_disk_stops_nobody_and_loses_nothing(tmp_path: Path, kind: str) -> None:
    program = watched(tmp_path)
    with small_disk(kind, tmp_path) as home:
        program.home = home
        environ = program.environ({"AUTOINST_PACKS": "none"})
        worker = begin(program, environ)
        others: list[subprocess.Popen[str]] = []
        try:
            filler = fill(home)
            tell(worker, JOBS)  # one slot for the job before: no other arena is needed, nor could one be had
            others = [begin(program, environ) for _ in range(3)]
            for other in others:
                tell(other, 5)
            others[0].kill()
            others[0].wait()
            assert "No space left on device" in others[1].communicate()[1]
            assert others[1].returncode == 0
            with pytest.raises(StoreError, match="full"):
                drain_once(str(home))
            tell(worker, 20)  # the arena is full after two of them, the others are counted in it
            filler.unlink()
            for _ in range(2):
                assert stored(home) == ["ok"] * SLOTS
                assert counted(home) == 1 + JOBS + 20 - SLOTS + 3 * (1 + 5)
                worker.kill()
                worker.wait()
            tell(others[2], 2)  # counts where it has begun to
            stored(home)
            assert counted(home) == 1 + JOBS + 20 - SLOTS + 3 * (1 + 5) + 2
        finally:
            for process in (worker, *others):
                process.kill()
                process.communicate()


def test_what_a_disk_without_any_reserve_leaves_in_memory_is_handed_over_at_the_end(tmp_path: Path) -> None:
    program = watched(tmp_path)
    with small_disk("tmpfs", tmp_path) as home:
        program.home = home
        filler = fill(home)
        worker = begin(program, program.environ({"AUTOINST_PACKS": "none"}))
        try:
            tell(worker, 5)
            filler.unlink()
            worker.communicate()
        finally:
            worker.kill()
        assert stored(home) == []
        assert counted(home) == 6


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
