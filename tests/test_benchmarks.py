"""The benchmarks run, with counts too small to say anything, and docs/benchmarks.md is what is made of a stored run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import curves_page, soak
from benchmarks.peers import page
from tests.libraries import python_of

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent


def test_the_page_is_what_is_made_of_the_stored_run():
    assert page.PAGE.read_text() == page.made()


def test_the_page_says_where_others_are_ahead():
    results = json.loads(page.RESULTS.read_text())
    figures = results["figures"]
    name, figure = next(
        (name, column.figure)
        for _, columns in page.TABLES.values()
        for column in columns
        for name in figures.get(column.figure, ())
        if name not in (*page.FLOOR, page.OWN) and not column.more and not column.added
    )
    figures[figure] = {page.OWN: 100.0, name: 1.0}
    assert results["products"][name]["title"] in page.behind(results)


@pytest.mark.timeout(300)
def test_the_curves_are_measured_stored_and_shown(tmp_path: Path) -> None:
    out = tmp_path / "curves.json"
    command = [sys.executable, "-m", "benchmarks.curves", "--quick", "--json", "--out", str(out)]
    command += ["--only", "rules", "functions", "threads"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    stored = json.loads(out.read_text())
    assert json.loads(done.stdout) == stored
    assert {name: curve["sizes"] for name, curve in stored["curves"].items()} == {
        "rules": [10],
        "functions": [10],
        "threads": [1],
    }
    shown = curves_page.section(out)
    for curve in stored["curves"].values():
        for figure, values in curve["figures"].items():
            assert f"| {figure} | {curves_page.text(values[0])} |" in shown


@pytest.mark.service
@pytest.mark.timeout(900)
def test_autoinst_is_compared_with_a_bare_wrapper(tmp_path: Path) -> None:
    python_of("celery")
    out = tmp_path / "results.json"
    command = [sys.executable, "-m", "benchmarks.peers", "--quick", "--only", "wrapt", "autoinst", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(out.read_text())
    assert results["failures"] == []
    figures = results["figures"]
    for what in ("burst", "SIGTERM", "SIGKILL", "fork"):
        assert figures[f"{what}: with counted %"] == {"autoinst": 100}
    assert figures["killed half way: shown"] == {"autoinst": 1}
    assert set(figures["celery total s"]) == set(figures["rq total s"]) == {"none", "wrapt", "autoinst"}
    answers = results["transparency"]
    assert all(answers["autoinst"].values())
    assert not all(answers["wrapt"].values())
    assert "| **autoinst**" in done.stdout


@pytest.mark.parametrize(
    ("records", "wrong"),
    [
        ([("a", "ok"), ("b", "killed")], []),
        ([("a", "ok")], ["b began and is not stored"]),
        ([("b", "killed")], ["a began and is not stored"]),
        ([("b", "killed"), (None, "killed")], []),  # killed while its end was written
        ([("a", "ok"), (None, "killed")], ["b began and is not stored"]),
        ([("a", "ok"), ("a", "killed"), ("b", "killed")], ["a is stored 2 times"]),
        ([("a", "ok"), ("b", "ok")], ["b is stored as ok and did not end"]),
        ([("a", "error"), ("b", "killed")], ["a is error"]),
    ],
)
def test_the_soak_tells_what_is_wrong(records: list[tuple[str | None, str]], wrong: list[str]) -> None:
    assert soak.judged({"a", "b"}, {"a"}, records, kills=1) == wrong


@pytest.mark.service
@pytest.mark.timeout(900)
def test_half_a_minute_of_kills_edits_and_restarts_loses_no_job(tmp_path: Path) -> None:
    result = soak.soak(tmp_path, 25)
    assert result.wrong == []
    assert result.ended > 100
    assert min(result.workers_killed, result.edits, result.agents_ended) > 1
    assert result.worker_memory[3] - result.worker_memory[2] < 4  # on a busy machine it may begin to work late
