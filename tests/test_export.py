"""`autoinst export`: every job asked for, as JSON Lines or CSV."""

from __future__ import annotations

import csv
import io
import json
import os
import time

import pytest

from autoinst.cli import main as cli
from autoinst.config import make_private
from autoinst.record import CSV_COLUMNS, ExceptionInfo, Record, rfc3339
from autoinst.store.sqlite import Store

NOW = time.time_ns()


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("AUTOINST_")]:
        monkeypatch.delenv(name)
    path = make_private(str(tmp_path / "home"))
    monkeypatch.setenv("AUTOINST_HOME", path)
    with Store(os.path.join(path, "store.sqlite3")) as store, store.transaction():
        store.insert([job(number) for number in range(200)])
    return path


def job(number: int) -> Record:
    failed = number % 10 == 0
    return Record(
        id=f"{number:032x}",
        status="error" if failed else "ok",
        started_ns=NOW - number * 60 * 10**9,
        action="shop.Mail#perform",
        queue="a,b" if number % 2 else None,
        args=[number, 'a "quoted"\nline'],
        exception=ExceptionInfo("E", "line one\nline, two") if failed else None,
    )


def test_json_lines_are_those_of_jobs(home, capsys):
    assert cli.main(["export"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert [int(json.loads(line)["id"], 16) for line in out.splitlines()] == list(range(200))
    cli.main(["jobs", "--json", "--limit", "0"])
    assert capsys.readouterr().out == out


def test_csv_reads_back(home, capsys):
    since = rfc3339(NOW - 65 * 60 * 10**9)  # a span would count from now, which may be minutes after NOW
    assert since is not None
    assert cli.main(["export", "--format", "csv", "--status", "error", "--since", since]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert [int(row["id"], 16) for row in rows] == [0, 10, 20, 30, 40, 50, 60]
    assert (rows[0]["exception_class"], rows[0]["exception_message"]) == ("E", "line one\nline, two")
    assert json.loads(rows[1]["args"]) == [10, 'a "quoted"\nline']
    assert rows[0]["queue"] == ""


def test_filters(home, capsys):
    cli.main(["export", "--queue", "a,b", "--limit", "3"])
    assert [int(json.loads(line)["id"], 16) for line in capsys.readouterr().out.splitlines()] == [1, 3, 5]
    assert cli.main(["export", "--since", "yesterday"]) == 2
    assert capsys.readouterr().err.startswith("autoinst: --since: 'yesterday'")


def test_nothing_recorded_is_an_empty_export(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AUTOINST_HOME", str(tmp_path / "none"))
    assert cli.main(["export", "--format", "csv"]) == 0
    assert capsys.readouterr() == (",".join(CSV_COLUMNS) + "\n", "")
