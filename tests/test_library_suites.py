"""A library's own tests see no difference with a rule on every function of it; `make transparency` runs more."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.harness import ROOT
from tests.libraries import python_of

pytestmark = [pytest.mark.once, pytest.mark.timeout(900)]


def test_jinja_passes_its_own_tests() -> None:
    python_of("suites")  # made, or the test is skipped
    command = [sys.executable, "benchmarks/library_tests.py", "jinja2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tests pass plain, 0 fail, " in done.stdout
    assert "; 0 differ, 0 unexplained" in done.stdout
