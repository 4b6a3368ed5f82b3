"""The runner of the tests: what fails twice has failed, what passes when it is run again is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TESTS = """
import pathlib

FLAG = pathlib.Path(__file__).with_name("flag")


def test_good():
    pass


def test_unlucky():
    if not FLAG.exists():
        FLAG.write_text("was here")
        raise AssertionError
"""
NO_TEXT = TESTS.replace("AssertionError", 'AssertionError("\\udcff")')
BAD = """

def test_bad():
    raise AssertionError
"""
MANY = "".join(f"\n\ndef test_bad_{n}():\n    raise AssertionError\n" for n in range(6))

pytestmark = pytest.mark.once


def run(folder: Path, text: str, *more: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_some.py").write_text(text)
    command = [sys.executable, str(ROOT / "scripts" / "unsteady.py"), "--rootdir", str(folder), str(folder), *more]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_what_passes_when_it_is_run_again_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, TESTS)
    assert done.returncode == 0, done.stdout
    assert "\nunsteady: test_some.py::test_unlucky\n" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("========== 2 passed, 1 of them unsteady in ")


def test_what_fails_twice_has_failed(tmp_path: Path) -> None:
    done = run(tmp_path, TESTS + BAD, "-n0")
    assert done.returncode == 1
    assert "1 failed, 1 passed" in done.stdout.splitlines()[-1]
    assert "unsteady:" not in done.stdout


def test_what_is_no_bad_luck_is_not_run_again(tmp_path: Path) -> None:
    done = run(tmp_path, TESTS + MANY, "-n0")
    assert done.returncode == 1
    assert "Once more" not in done.stdout


@pytest.mark.parametrize("more", [("-n0",), ("-n1", "-p", "tests.conftest")])
def test_what_fails_with_bytes_that_are_no_text_is_run_again_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")  # where Python prints such bytes as they are
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "scripts"))  # for tests.conftest
    done = run(tmp_path, NO_TEXT, *more)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nunsteady: test_some.py::test_unlucky\n" in done.stdout


def test_an_error_of_the_runners_own_is_no_pass(tmp_path: Path) -> None:
    done = run(tmp_path, NO_TEXT, "-n1")  # which pytest-xdist cannot send without what tests/conftest.py does
    assert "INTERNALERROR" in done.stdout
    assert done.returncode == 3


def test_workers_that_collect_different_tests_are_told_at_once(tmp_path: Path) -> None:
    text = "import os, pytest\n\n@pytest.mark.parametrize('n', [os.getpid()])\ndef test_pid(n):\n    pass\n"
    done = run(tmp_path, text)
    assert done.returncode == 1
    assert "Different tests were collected" in done.stdout
    assert "Once more" not in done.stdout


def test_a_file_that_cannot_be_read_is_no_pass(tmp_path: Path) -> None:
    assert run(tmp_path, "import nothing_of_that_name\n", "-n0").returncode == 2
