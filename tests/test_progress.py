"""How far long work is: shown on a terminal's standard error, and nowhere else."""

from __future__ import annotations

import re
import time

import pytest

from autoinst.cli import progress

Capture = pytest.CaptureFixture[str]


def test_a_bar_is_shown_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert list(progress.bar(range(4), 4, "jobs")) == [0, 1, 2, 3]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "STEP_SECONDS", -1)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert list(progress.bar(range(4), 4, "jobs")) == [0, 1, 2, 3]
    err = capsys.readouterr().err
    assert f"[{'#' * 15}{'.' * 15}] 2 jobs " in err
    assert err.endswith("4 jobs\n")


def test_what_takes_long_says_for_how_long(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 0.0)
    with progress.busy("storing"):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    seen = ""
    with progress.busy("storing"):
        while re.search(r"storing \.\.\. \d+ s", seen) is None:
            time.sleep(0.01)
            seen += capsys.readouterr().err
    assert capsys.readouterr().err.endswith("\r\033[K")
