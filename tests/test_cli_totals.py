"""The commands that sum up and follow: actions, errors, tail; searches on the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from autoinst.cli import main as cli
from autoinst.config import make_private
from autoinst.store.sqlite import Store
from tests.test_cli import RECORDS, full, home, record

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["full", "home"]  # fixtures
MAILER = "shop.jobs.Mailer#perform"
Capture = pytest.CaptureFixture[str]


def lines(capsys: Capture) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_actions_are_totals_by_action(full: Path, capsys: Capture) -> None:
    assert cli.main(["actions", "--json"]) == 0
    found = {line["action"]: line for line in lines(capsys)}
    assert set(found) == {MAILER, "shop.jobs.Report#perform"}
    mailer = found[MAILER]
    assert (mailer["jobs"], mailer["ok"], mailer["errors"], mailer["killed"]) == (4, 2, 1, 1)
    assert mailer["p95"] == pytest.approx(3.25, rel=0.05)
    assert mailer["queue_p95"] == pytest.approx(12.5, rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--since", "2h"], [(MAILER, 3), ("shop.jobs.Report#perform", 1)]),
        (["--action", "*Report*"], [("shop.jobs.Report#perform", 1)]),
        (["--limit", "1", "--sort", "jobs"], [(MAILER, 4)]),
        (["--since", "2999-01-01"], []),
    ],
)
def test_actions_filters(arguments: list[str], expected: list[tuple[str, int]], full: Path, capsys: Capture) -> None:
    assert cli.main(["actions", "--json", *arguments]) == 0
    assert [(line["action"], line["jobs"]) for line in lines(capsys)] == expected


def test_actions_table(full: Path, capsys: Capture) -> None:
    assert cli.main(["actions", "--sort", "rate"]) == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == "ACTION TREND JOBS FAILED RATE MEAN P95 MAX WAIT P95 TOTAL".split()  # noqa: SIM905
    assert first.startswith(MAILER)
    assert "50.0%" in first
    assert "█" in first
    assert "%" not in second


def test_errors_are_listed_shown_and_settled(full: Path, capsys: Capture) -> None:
    assert cli.main(["errors", "--json"]) == 0
    (error,) = lines(capsys)
    assert (error["class"], error["state"], error["total"]) == ("shop.Broken", "open", 1)
    assert error["last_job"] == RECORDS[1].id
    fingerprint = str(error["fingerprint"])

    assert cli.main(["errors"]) == 0
    out = capsys.readouterr().out
    assert fingerprint in out
    assert "shop.Broken: first line" in out
    assert "\033" not in out

    assert cli.main(["errors", fingerprint[:6]]) == 0
    out = capsys.readouterr().out
    assert "caused by KeyError" in out
    assert "/app/jobs.py:7 in perform" in out

    assert cli.main(["errors", fingerprint, "--resolve"]) == 0
    assert f"{fingerprint} is resolved now" in capsys.readouterr().err
    assert cli.main(["errors", "--json"]) == 0
    assert lines(capsys) == []
    assert cli.main(["errors", "--state", "resolved", "--json"]) == 0
    assert [line["fingerprint"] for line in lines(capsys)] == [fingerprint]

    later = record(1, id="f" * 32, status="error", exception=RECORDS[1].exception, started_ns=time.time_ns() + 10**9)
    with Store(str(full / "store.sqlite3")) as store, store.transaction():
        store.insert([later])
    assert cli.main(["errors"]) == 0
    assert "reopened" in capsys.readouterr().out


def test_errors_that_are_not_there(full: Path, capsys: Capture) -> None:
    assert cli.main(["errors", "ffff"]) == 1
    assert "no error has the fingerprint 'ffff'" in capsys.readouterr().err
    assert cli.main(["errors", "--resolve"]) == 2
    assert "say which error" in capsys.readouterr().err


def test_an_empty_home_says_what_to_do(home: Path, capsys: Capture) -> None:
    for command in (["actions"], ["errors"], ["tail", "--no-follow"]):
        assert cli.main(command) == 0
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("autoinst: no ")


def test_search(full: Path, capsys: Capture) -> None:
    assert cli.main(["jobs", "--json", "--search", "status:killed queue:media"]) == 0
    assert [line["id"] for line in lines(capsys)] == [RECORDS[2].id]
    assert cli.main(["export", "--search", 'args.1:two "first line"']) == 0
    assert [line["id"] for line in lines(capsys)] == [RECORDS[1].id]
    assert cli.main(["jobs", "--search", "queue:mail duration>soon"]) == 2
    _, shown, caret = capsys.readouterr().err.splitlines()
    assert shown[caret.index("^") :].startswith("soon")


def test_tail_prints_the_last_ones_the_latest_at_the_end(full: Path, capsys: Capture) -> None:
    assert cli.main(["tail", "--no-follow", "--json", "--limit", "2"]) == 0
    assert [line["id"] for line in lines(capsys)] == [RECORDS[1].id, RECORDS[0].id]
    assert cli.main(["tail", "--no-follow", "--status", "killed"]) == 0
    out = capsys.readouterr().out
    assert "killed" in out
    assert "process 77 killed by SIGKILL in encode.video" in out


def test_tail_follows_and_ends_at_ctrl_c(home: Path) -> None:
    make_private(str(home))
    environ = os.environ | {"PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "autoinst.cli.main", "tail", "--json", "--status", "ok"]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert process.stdout is not None
        assert "no job is recorded" in process.stderr.readline()
        with Store(str(home / "store.sqlite3")) as store, store.transaction():
            store.insert(RECORDS)
        found = {json.loads(process.stdout.readline())["id"] for _ in range(2)}
        assert found == {RECORDS[0].id, RECORDS[4].id}
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, rest, errors) == (0, "", "")


def test_a_terminal_is_told_what_runs(home: Path) -> None:
    program = "import time\ndef job():\n    time.sleep(600)\njob()\n"
    (home.parent / "worker.py").write_text(program)
    (home.parent / "rules.yaml").write_text("version: 1\njobs:\n  - function: __main__.job\n")
    autoinst = [sys.executable, "-m", "autoinst.cli.main"]
    environ = os.environ | {"AUTOINST_AGENT": "off", "TERM": "xterm", "COLUMNS": "100"}
    worker = subprocess.Popen([*autoinst, "run", "--rules", "rules.yaml", "worker.py"], env=environ, cwd=home.parent)
    typescript = ["script", "-qefc", f"{sys.executable} -m autoinst.cli.main tail", "/dev/null"]
    tail = subprocess.Popen(typescript, env=environ, cwd=home.parent, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    try:
        assert tail.stdout is not None
        seen = b""
        while b"1 running, the longest __main__#job for" not in seen:
            more = os.read(tail.stdout.fileno(), 4096)
            assert more, seen
            seen += more
    finally:
        for process in (tail, worker):
            process.terminate()
            process.communicate()
