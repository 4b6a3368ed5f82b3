"""Damaged and hostile files in the spool: the reader and the drain neither fail nor take memory for them."""

from __future__ import annotations

import subprocess
import sys

from tests.harness import ROOT


def test_damaged_files_neither_fail_nor_take_memory() -> None:
    # In a process of its own, whose memory is bounded.
    command = [sys.executable, "-m", "benchmarks.fuzz_spool", "--rounds", "3000", "--seed", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "arenas 3000" in done.stdout
