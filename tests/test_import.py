"""`autoinst import`: what `export` wrote is in another home as if it had been recorded there, once, and exactly."""

from __future__ import annotations

import gzip
import io
import json
import os
import sqlite3
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from autoinst.cli import importing, progress
from autoinst.cli import main as cli
from autoinst.config import make_private
from autoinst.export.source import ALL_JOBS, JOBS
from autoinst.export.watch import KINDS, Watch
from autoinst.record import ExceptionInfo, Record
from autoinst.spool.layout import record_id
from autoinst.store.processes import ProcessInfo
from autoinst.store.query import JobFilter
from autoinst.store.sqlite import Store
from tests import webdata
from tests.launching import AUTOINST, environment
from tests.web_pages import serving

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once
Capture = pytest.CaptureFixture[str]
EVER = 2**62


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home with four hours of a shop's jobs, retries, a killed job, and hostile text."""
    home = tmp_path_factory.mktemp("source") / "home"
    make_private(str(home))
    now = time.time_ns()
    with Store(str(home / "store.sqlite3")) as store:
        webdata.fill(store, now, hours=4)
        webdata.retried(store, now)
        webdata.trouble(store, now)
        webdata.hostile(store, now)
        with store.transaction():  # two that began in the same microsecond, the later one stored first
            store.insert([Record(record_id(b"together", n), "ok", now + n, action="a#b") for n in (1, 0)])
    return home


@pytest.fixture(scope="module")
def exported(source: Path) -> bytes:
    done = subprocess.run([AUTOINST, "export"], env=environment(source), capture_output=True, check=True, timeout=120)
    assert done.stdout.count(b"\n") > 1000
    return done.stdout


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("AUTOINST_")]:
        monkeypatch.delenv(name)
    path = tmp_path / "home"
    monkeypatch.setenv("AUTOINST_HOME", str(path))
    monkeypatch.chdir(tmp_path)
    return path


def imported(capsys: Capture, *arguments: str, status: int = 0) -> dict[str, Any]:
    """Run `autoinst import --json` and return what it printed."""
    assert cli.main(["import", "--json", *arguments]) == status
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def line(number: int = 1, **fields: Any) -> str:
    """Return a job as JSON, with `fields` in place of its own."""
    found = Record(f"{number:032x}", "ok", time.time_ns() - number * 10**9, action="shop.Mail#perform").to_json()
    return json.dumps(found | fields) + "\n"


def totals(home: Path) -> dict[str, Any]:
    """Return all that a store adds up, by texts."""
    path = str(home / "store.sqlite3")
    with Store(path, readonly=True) as store:
        found: dict[str, Any] = {
            "actions": store.totals(0, EVER),
            "queues": store.queue_totals(0, EVER),
            "minutes": store.series(0, EVER, step_ns=60 * 10**9),
            "hours": store.series(0, EVER, step_ns=3600 * 10**9, action="shop.search.reindex_document"),
            "statements": {one.text: one._replace(id=0) for one in store.statements(0, EVER, limit=10_000)},
            "ever": {(one.action, one.queue): one.cell for one in store.all_time()},
            "releases": [store.release(revision, 0, EVER) for revision, _ in webdata.REVISIONS],
        }
        groups = store.errors(limit=0)
        found["errors"] = {one.fingerprint: (one.total, one.class_name, one.message, one.action) for one in groups}
        hours = store.all_error_hours(0)
        found["error_hours"] = {one.fingerprint: hours[one.id] for one in groups}
    return found


def test_what_was_exported_is_the_same_in_an_empty_home(
    source: Path, exported: bytes, home: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "jobs.jsonl.gz").write_bytes(gzip.compress(exported))
    found = imported(capsys, "jobs.jsonl.gz")
    assert (found["new"], found["wrong"], found["lines"]) == (exported.count(b"\n"), 0, exported.count(b"\n"))
    assert cli.main(["export"]) == 0
    assert capsys.readouterr().out.encode() == exported
    assert totals(home) == totals(source)
    # Again changes nothing, whatever the batches are.
    again = imported(capsys, "jobs.jsonl.gz")
    assert (again["new"], again["replaced"], again["known"]) == (0, 0, found["new"])
    assert totals(home) == totals(source)


def test_batches_keep_jobs_of_one_moment_together(
    exported: bytes, home: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "BATCH", 1)
    last = exported.splitlines(keepends=True)[:20]
    (tmp_path / "jobs.jsonl").write_bytes(b"".join(last))
    assert imported(capsys, "jobs.jsonl")["new"] == 20
    assert cli.main(["export"]) == 0
    assert capsys.readouterr().out.encode() == b"".join(last)


def test_pages_that_are_open_see_hours_that_have_passed_change(source: Path, exported: bytes, tmp_path: Path) -> None:
    home = tmp_path / "other"
    make_private(str(home))
    now = time.time_ns()
    with Store(str(home / "store.sqlite3")) as store:
        webdata.fill(store, now, hours=4, seed=2)
    with serving(home) as ui:
        before = ui.json("/actions", range="24h")["actions"]
        command = [AUTOINST, "import", "-"]
        done = subprocess.run(command, env=environment(home), input=exported, capture_output=True, check=True)
        assert done.stdout.endswith(b"jobs imported\n")
        assert done.stderr == b""
        after = {row["action"]: row["jobs"] for row in ui.json("/actions", range="24h")["actions"]}
        charts = ui.json("/overview", range="24h")["totals"]["jobs"]
    own, added = {row["action"]: row["jobs"] for row in before}, totals(source)["actions"]
    assert after == {name: own.get(name, 0) + (added[name].jobs if name in added else 0) for name in own | added}
    assert charts == sum(after.values())


def test_wrong_lines_are_named_and_the_rest_goes_in(home: Path, tmp_path: Path, capsys: Capture) -> None:
    deep = '{"id": "' + "0" * 32 + '", "started_at": "x", "args": ' + "[" * 300 + "]" * 300 + "}\n"
    cases = {
        "{}\n": "without an id and started_at",
        "[1]\n": "a list, where the object of a job was expected",
        '{"id": 1\n': "no JSON: Expecting ',' delimiter at column",
        '{"id": NaN}\n': "no JSON: NaN is no number",
        '{"id": "\\ud800\n': "no JSON",
        line(id="xyz"): 'id: "xyz" is not 32 hexadecimal digits',
        line(status="fine"): 'status: "fine" is none of',
        line(status=["ok"]): "status: [",
        line(started_at="yesterday"): 'started_at: "yesterday" is no RFC 3339 time',
        line(started_at="2026-01-01T00:00:00"): "no RFC 3339 time with a zone",
        line(started_at="0001-01-01T00:00:00Z"): "is not between 1970 and 2262",
        line(started_at="9999-12-31T23:59:59Z"): "is not between 1970 and 2262",
        line(started_at=None): "started_at: null",
        line(duration=-1): "duration: -1 ms is no span",
        line(duration=True): "duration: true or false, where a number was expected",
        line(duration=1e300): "duration: 1e+300 ms is no span",
        line(queue_time=1e300): "queue_time: 1e+300",
        line(attempts=1.5): "attempts: a number, where a whole number was expected",
        line(attempts=10**30): "attempts: the number is too large",
        line(queue=7): "queue: a number, where text was expected",
        line(events=[{"name": "a", "start": "x"}]): "events: start: text, where a number was expected",
        line(events={}): "events: an object, where a list was expected",
        line(exception={"backtrace": [1]}): "exception: backtrace: a number, where an object was expected",
        line(tags=[]): "tags: a list, where an object was expected",
        line(env={"PATH": 1}): "env: a number, where text was expected",
        deep: "more than 100 deep",
    }
    text = "".join(cases) + line(1) + "\n" + line(2, args=["\ud83d alone"], queue="\ud83d") + line(3, unheard_of=1)
    (tmp_path / "jobs.jsonl").write_bytes(text.encode() + b'{"id": "\xff"}\n' + line(4).encode())
    assert cli.main(["import", "jobs.jsonl"]) == 1
    out, err = capsys.readouterr()
    assert out == f"4 jobs imported, {len(cases) + 1} lines wrong and left out\n"
    said = err.splitlines()
    for number, (told, expected) in enumerate(zip(said, list(cases.values())[: importing.SHOWN], strict=False), 1):
        assert told.startswith(f"autoinst: jobs.jsonl:{number}: "), told
        assert expected in told
    assert said[importing.SHOWN :] == [f"autoinst: and {len(cases) + 1 - importing.SHOWN} more lines are wrong"]
    for text, expected in list(cases.items())[importing.SHOWN :]:
        (tmp_path / "one.jsonl").write_text(text)
        (problem,) = imported(capsys, "one.jsonl", status=1)["problems"]
        assert (problem["file"], problem["line"]) == ("one.jsonl", 1)
        assert expected in problem["reason"]
    assert cli.main(["jobs", "--json", "--limit", "0"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [int(job["id"], 16) for job in found] == [1, 2, 3, 4]
    assert found[1]["args"] == ["\\ud83d alone"]


def test_a_line_of_megabytes_is_left_out(
    home: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "MAX_LINE", 1000)
    (tmp_path / "jobs.jsonl").write_text(line(1, args=["x" * 5000]) + line(2))
    found = imported(capsys, "jobs.jsonl", status=1)
    assert (found["new"], found["lines"], found["problems"][0]["line"]) == (1, 2, 1)


def test_strict_stops_at_the_first_wrong_line(home: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "jobs.jsonl").write_text(line(1) + "{}\n" + line(2))
    assert cli.main(["import", "--strict", "jobs.jsonl"]) == 1
    out, err = capsys.readouterr()
    assert out == "1 job imported, 1 line wrong and left out\n"
    assert err.startswith("autoinst: jobs.jsonl:2: ")


def test_files_that_are_none(home: Path, tmp_path: Path, capsys: Capture) -> None:
    assert cli.main(["import", "nowhere.jsonl"]) == 2
    assert capsys.readouterr().err == "autoinst: nowhere.jsonl: there is no such file\n"
    assert not home.exists()
    (tmp_path / "jobs.csv").write_text("id,status,namespace\n")
    assert cli.main(["import", "jobs.csv"]) == 2
    assert "CSV cannot be imported" in capsys.readouterr().err
    whole = gzip.compress((line(1) + line(2) * 3000).encode())
    (tmp_path / "cut.gz").write_bytes(whole[: len(whole) // 2])
    found = imported(capsys, "cut.gz", status=1)
    assert found["new"] >= 1
    assert "the compressed file ends or is damaged here" in found["problems"][0]["reason"]
    (tmp_path / "empty.jsonl").write_text("")
    assert imported(capsys, "empty.jsonl")["lines"] == 0


def test_text_that_is_no_utf8_is_named_and_the_rest_goes_in(home: Path, tmp_path: Path, capsys: Capture) -> None:
    # Python's JSON reads half of a surrogate pair from its bytes, which no database takes.
    (tmp_path / "jobs.jsonl").write_bytes(line(1).encode() + line(2).encode().replace(b"shop", b"\xed\xa0\xbd"))
    found = imported(capsys, "jobs.jsonl", status=1)
    assert (found["new"], found["problems"][0]["line"]) == (1, 2)
    assert found["problems"][0]["reason"].startswith("no UTF-8: ")


def test_a_pipe_with_a_name_is_read_and_a_folder_is_called_one(home: Path, tmp_path: Path, capsys: Capture) -> None:
    assert cli.main(["import", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"autoinst: {tmp_path}: this is a folder\n"
    told = 'exec "$0" import --json <(printf %s "$1" | gzip)'
    done = subprocess.run(
        ["bash", "-c", told, AUTOINST, line(1)],
        env=environment(home),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["new"] == 1


def test_standard_input_that_is_closed(
    home: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # what Python makes of `<&-`
    assert cli.main(["import", "-"]) == 2
    assert capsys.readouterr().err == "autoinst: standard input is closed\n"
    assert not home.exists()


def test_an_end_that_was_seen_replaces_one_that_was_inferred(home: Path, tmp_path: Path, capsys: Capture) -> None:
    killed = {"pid": 7, "signal": "SIGKILL", "last_event": None}
    (tmp_path / "before.jsonl").write_text(line(1, status="killed", killed=killed) + line(2, status="running"))
    (tmp_path / "after.jsonl").write_text(line(1) + line(2))
    found = imported(capsys, "before.jsonl")
    assert (found["new"], found["running"]) == (1, 1)
    found = imported(capsys, "after.jsonl", "before.jsonl")
    assert (found["new"], found["replaced"], found["known"], found["running"]) == (1, 1, 1, 1)
    cell = totals(home)["actions"]["shop.Mail#perform"]
    assert (cell.ok, cell.killed) == (2, 0)


def test_what_is_beyond_retention_is_said(home: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "jobs.jsonl").write_text(line(1) + line(2, started_at="2020-01-01T00:00:00.000000Z"))
    assert cli.main(["import", "jobs.jsonl"]) == 0
    out, err = capsys.readouterr()
    assert out == "2 jobs imported\n"
    assert "1 of them are older than is kept here" in err


def test_nobody_is_told_of_imported_jobs_but_a_clickhouse(home: Path, tmp_path: Path, capsys: Capture) -> None:
    def fail(ident: bytes) -> Record:
        record = Record(record_id(ident, 1), "error", time.time_ns(), action="a#b")
        record.exception = ExceptionInfo(f"builtins.{ident.decode()}", "x")
        return record

    make_private(str(home))
    watch = Watch(KINDS, {})
    with Store(str(home / "store.sqlite3")) as store:
        watch.look(store)
        feed_at = store.last()
    (tmp_path / "jobs.jsonl").write_text(json.dumps(fail(b"imported").to_json()) + "\n")
    assert imported(capsys, "jobs.jsonl")["new"] == 1
    with Store(str(home / "store.sqlite3")) as store:
        with store.transaction():
            store.insert([fail(b"recorded")])
        watch.look(store)
        notices = store.notices_after(0, -1)
        assert [notice.data["job"] for notice in notices] == [record_id(b"recorded", 1)]
        with store.transaction():
            batch = store.fix_batch(store.add_feed("otlp/traces", feed_at), store.last())
        assert [record.id for record in JOBS.items(store, batch)] == [record_id(b"recorded", 1)]
        assert [record.id for record in ALL_JOBS.items(store, batch)] == [
            record_id(b"imported", 1),
            record_id(b"recorded", 1),
        ]


def test_tail_does_not_print_imported_jobs(home: Path, tmp_path: Path) -> None:
    make_private(str(home))
    with Store(str(home / "store.sqlite3")) as store, store.transaction():
        store.insert([Record(record_id(b"recorded", 1), "ok", time.time_ns(), action="a#b")])
    (tmp_path / "jobs.jsonl").write_text(line(1))
    command = [sys.executable, "-m", "autoinst.cli.main", "tail", "--json"]
    env = environment(home, PYTHONUNBUFFERED="1")
    tail = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert tail.stdout is not None
        assert json.loads(tail.stdout.readline())["id"] == record_id(b"recorded", 1)
        subprocess.run([AUTOINST, "import", "jobs.jsonl"], env=environment(home), cwd=tmp_path, check=True, timeout=60)
        with Store(str(home / "store.sqlite3")) as store, store.transaction():
            store.insert([Record(record_id(b"recorded", 2), "ok", time.time_ns(), action="a#b")])
        assert json.loads(tail.stdout.readline())["id"] == record_id(b"recorded", 2)
    finally:
        tail.kill()
        tail.communicate()


def test_processes_of_another_machine_are_not_said_to_live(
    exported: bytes, home: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "jobs.jsonl").write_bytes(exported)
    assert imported(capsys, "jobs.jsonl")["wrong"] == 0
    with Store(str(home / "store.sqlite3"), readonly=True) as store:
        assert store.processes(living=True) == []
        found = {(process.pid, process.how): process for process in store.processes()}
        worker = found[4078, "imported"]
        assert 0 < worker.started_ns < worker.last_seen_ns == worker.ended_ns
        assert "9b07e31" in {deploy.revision for deploy in store.deploys()}


def test_processes_of_jobs_that_are_known_are_not_told_of_again(home: Path, tmp_path: Path, capsys: Capture) -> None:
    make_private(str(home))
    now = time.time_ns()
    texts: dict[str, Any] = {"host": "worker-1", "service": "mail", "revision": "9b07e31"}
    jobs = [Record(f"{n:032x}", "ok", now + n * 1000, action="a#b", pid=4078, **texts) for n in range(4)]
    with Store(str(home / "store.sqlite3")) as store, store.transaction():
        process = store.enter_process(ProcessInfo(b"8 bytes.", 4078, now - 10**9, texts))
        store.insert(jobs[:3], process)
    (tmp_path / "jobs.jsonl").write_text("".join(json.dumps(job.to_json()) + "\n" for job in jobs))
    found = imported(capsys, "jobs.jsonl")
    assert (found["new"], found["known"]) == (1, 3)
    with Store(str(home / "store.sqlite3"), readonly=True) as store:
        assert [(one.pid, one.started_ns, one.how) for one in store.processes()] == [(4078, now - 10**9, None)]
        assert {job.host for job in store.jobs(JobFilter(limit=0))} == {"worker-1"}


def test_a_terminal_is_shown_how_far_it_is(
    exported: bytes, home: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jobs.jsonl").write_bytes(exported + b"{}\n")
    monkeypatch.setattr(progress, "STEP_SECONDS", -1)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert cli.main(["import", "jobs.jsonl"]) == 1
    err = capsys.readouterr().err
    assert f"[{'#' * 30}] " in err
    assert "\r\033[Kautoinst: jobs.jsonl:" in err
    assert f"{exported.count(bytes([10])) + 1:,} lines\n" in err
    # From a pipe nobody knows how much there is.
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(exported))))
    assert cli.main(["import", "-"]) == 0
    err = capsys.readouterr().err
    assert "#" not in err
    assert "1,000 lines " in err


def test_a_damaged_store_is_moved_aside_and_one_in_use_is_waited_for(
    home: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "jobs.jsonl").write_text(line(1))
    make_private(str(home))
    (home / "store.sqlite3").write_bytes(b"no database " * 1000)
    assert imported(capsys, "jobs.jsonl")["new"] == 1
    writer = sqlite3.connect(home / "store.sqlite3", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    command = [AUTOINST, "import", "jobs.jsonl"]
    process = subprocess.Popen(command, env=environment(home), cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    time.sleep(0.5)
    writer.execute("COMMIT")
    writer.close()
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "0 jobs imported, 1 known already\n")
