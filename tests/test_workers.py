"""What tests of job libraries are helped by: no process of a worker outlives its test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workers import Worker, wait_until

pytestmark = pytest.mark.once

PROGRAM = """
import os, signal, subprocess, sys
from notes import note

child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
note(child.pid)
note("main")
signal.pause()
"""


def test_what_a_worker_has_started_ends_with_it(tmp_path: Path) -> None:
    worker = Worker(tmp_path / "program", "queues", {"shop.py": PROGRAM}, {}, instrumented=False)
    worker.start("python", "shop.py")
    wait_until(lambda: "main" in worker.runs())
    child = worker.runs()[0]
    worker.stop_after([child, "main"])
    wait_until(lambda: has_ended(child))


def has_ended(pid: str) -> bool:
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
