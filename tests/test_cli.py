"""The commands that read: jobs, show, check, doctor, path."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from autoinst.cli import main as cli
from autoinst.cli import reading
from autoinst.cli.jobs import print_table
from autoinst.cli.options import COMMANDS
from autoinst.cli.output import Output, display_width
from autoinst.config import make_private
from autoinst.record import Event, ExceptionInfo, Frame, Killed, Record
from autoinst.spool.counted import Counted
from autoinst.store.sqlite import Store
from autoinst.wording import bytes_text

NOW = time.time_ns()
SECOND = 10**9


def record(number: int, **fields: object) -> Record:
    values: dict[str, object] = {
        "id": f"{number:016x}{number * 0x1234567:016x}",
        "status": "ok",
        "started_ns": NOW - number * 10 * SECOND,
        "action": "shop.jobs.Mailer#perform",
        "class_name": "shop.jobs.Mailer",
        "method": "perform",
        "queue": "mail",
        "queue_time_ms": 12.5,
        "duration_ns": 3_250_000,
        "pid": 77,
        "rule": "rules.yaml:3",
    }
    return Record(**(values | fields))  # type: ignore[arg-type]


RECORDS = [
    record(1),
    record(
        2,
        status="error",
        attempts=2,
        job_id="library-id",
        exception=ExceptionInfo(
            "shop.Broken",
            "first line\nsecond line \033[31m<script>",
            [
                Frame("/app/jobs.py", 7, "perform", True),
                Frame("/lib/a.py", 8, "call", False),
                Frame("/lib/b.py", 9, "call", False),
            ],
            [ExceptionInfo("KeyError", "'x'", [Frame("/app/low.py", 1, "low", True)])],
        ),
        events=[
            Event("render.pdf", "invoice", None, 100_000, 2_000_000, None),
            Event("query.sqlite", "SELECT", "SELECT * FROM t\n WHERE id = ?", 200_000, 500_000, 0),
            Event("query.sqlite", "SELECT", "SELECT * FROM t\n WHERE id = ?", 900_000, 500_000, 0),
            Event("request.http", None, None, 2_500_000, None, None),
        ],
        args=[1, "two", float("nan")],
    ),
    record(3, status="killed", queue="media", killed=Killed(77, "SIGKILL", "encode.video")),
    record(4, status="ignored", action="shop.jobs.Report#perform", queue=None, queue_time_ms=None),
    record(400, started_ns=NOW - 3 * 3600 * SECOND),
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("AUTOINST_")]:
        monkeypatch.delenv(name)
    path = tmp_path / "home"
    monkeypatch.setenv("AUTOINST_HOME", str(path))
    monkeypatch.chdir(tmp_path)
    return path


@pytest.fixture
def full(home: Path) -> Path:
    make_private(str(home))
    with Store(str(home / "store.sqlite3")) as store, store.transaction():
        store.insert(RECORDS)
    return home


def ids(text: str) -> list[str]:
    return [json.loads(line)["id"] for line in text.splitlines()]


def test_jobs_json_is_the_contract_newest_first(full: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["jobs", "--json"]) == 0
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["id"] for line in lines] == [record.id for record in RECORDS]
    assert lines[0]["queue_time"] == 12.5
    assert lines[0]["duration"] == 3.25
    assert lines[0]["class"] == "shop.jobs.Mailer"
    assert lines[1]["exception"]["class"] == "shop.Broken"
    assert lines[2]["killed"] == {"pid": 77, "signal": "SIGKILL", "last_event": "encode.video"}
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--limit", "2"], [0, 1]),
        (["--limit", "0"], [0, 1, 2, 3, 4]),
        (["--status", "error"], [1]),
        (["--status", "error,killed"], [1, 2]),
        (["--since", "2h"], [0, 1, 2, 3]),
        (["--since", "4h"], [0, 1, 2, 3, 4]),
        (["--since", "2999-01-01"], []),
        (["--queue", "media"], [2]),
        (["--action", "shop.jobs.Report#perform"], [3]),
        (["--action", "shop.jobs.*"], [0, 1, 2, 3, 4]),
        (["--action", "*Mailer*", "--limit", "1"], [0]),
        (["--action", "nothing"], []),
        (["--queue", "mail", "--status", "ok", "--since", "2h"], [0]),
    ],
)
def test_jobs_filters(
    arguments: list[str], expected: list[int], full: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["jobs", "--json", *arguments]) == 0
    assert ids(capsys.readouterr().out) == [RECORDS[index].id for index in expected]


def test_jobs_table(full: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["jobs"]) == 0
    out, _ = capsys.readouterr()
    head, *rows = out.splitlines()
    assert head.split() == ["STARTED", "AGO", "STATUS", "ACTION", "QUEUE", "WAITED", "TOOK", "TRY", "ID", "ERROR"]
    assert len(rows) == len(RECORDS)
    assert "\033" not in out
    assert "shop.Broken: first line" in rows[1]
    assert "process 77 killed by SIGKILL in encode.video" in rows[2]
    column = head.index("ACTION")
    assert all(row[column:].startswith("shop.jobs.") for row in rows)


def test_jobs_of_another_day_fit_a_terminal_too() -> None:
    then = NOW - 48 * 3600 * SECOND
    found = [replace(each, attempts=2, duration_ns=310_000_000, started_ns=then) for each in RECORDS]
    for width in (80, 100, 120, 200):
        out = Output(stream := io.StringIO())
        out.width = width
        print_table(out, found)
        lines = stream.getvalue().splitlines()
        assert max(map(display_width, lines)) <= width
        head = lines[0].split()
        assert {"STARTED", "STATUS", "ACTION", "TOOK", "ID", "ERROR"} <= set(head)
        assert ("QUEUE" in head, "TRY" in head) == (width > 80, width > 120)


def test_jobs_says_what_to_do_when_there_are_none(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["jobs"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "autoinst demo" in err
    assert not home.exists()
    assert cli.main(["jobs", "--json"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "given",
    [
        "0" * 15 + "2",
        RECORDS[1].id,
        RECORDS[1].id[-8:],
        RECORDS[1].id[:6] + RECORDS[1].id[-6:],
        "library-id",
        RECORDS[1].id.upper(),
    ],
)
def test_show_finds_by_id_digits_and_library_id(given: str, full: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", given, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == RECORDS[1].id


@pytest.mark.parametrize(
    ("given", "message"), [("ffff", "no job 'ffff'"), ("0" * 14, "more than one job"), ("", "no job")]
)
def test_show_needs_one_job(given: str, message: str, full: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", given]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err


def test_a_running_job_is_found_by_its_digits_too(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flying = replace(RECORDS[1], id="abcdef" + "1" * 20 + "fedcba", status="running", job_id=None)
    monkeypatch.setattr(reading, "running", lambda _: [flying])
    for given in (flying.id, "ABCD", "abcdef-fedcba", "11fedcba"):
        assert cli.main(["show", given, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["id"] == flying.id
    assert cli.main(["show", "abcdef111111"]) == 0


def test_show_text(full: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", "library-id"]) == 0
    out, _ = capsys.readouterr()
    assert "\033" not in out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0].endswith("error shop.jobs.Mailer#perform")
    assert "attempt 2" in lines
    assert [line for line in lines if line.startswith("render.pdf invoice 2.00 ms")]
    assert [line for line in lines if line.startswith("query.sqlite SELECT (2 times) 1.00 ms")]
    assert [line for line in lines if line.startswith("request.http unfinished")]
    assert "SELECT * FROM t WHERE id = ?" in lines
    assert lines[lines.index("shop.Broken: first line") :] == [
        "shop.Broken: first line",
        "second line ?[31m<script>",
        "/app/jobs.py:7 in perform",
        "(2 frames of libraries, --full shows them)",
        "",
        "caused by KeyError: 'x'",
        "/app/low.py:1 in low",
    ]
    assert cli.main(["show", "library-id", "--full"]) == 0
    whole = capsys.readouterr().out
    assert "/lib/b.py:9 in call" in whole
    assert "(2 times)" not in whole


def test_colour_only_on_a_terminal_and_without_no_color(full: Path) -> None:
    command = f"{sys.executable} -m autoinst.cli.main jobs"
    typescript = ["script", "-qec", command, "/dev/null"]
    kept = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm"}
    colored = subprocess.run(typescript, env=kept, capture_output=True, check=True, stdin=subprocess.DEVNULL).stdout
    assert b"\033[31m" in colored
    # Empty is as good as not set, says no-color.org.
    empty = subprocess.run(
        typescript, env=kept | {"NO_COLOR": ""}, capture_output=True, check=True, stdin=subprocess.DEVNULL
    ).stdout
    assert b"\033[31m" in empty
    plain = subprocess.run(
        typescript, env=kept | {"NO_COLOR": "1"}, capture_output=True, check=True, stdin=subprocess.DEVNULL
    ).stdout
    assert b"\033[" not in plain
    assert b"shop.jobs." in plain


def test_a_closed_pipe_is_no_error(full: Path) -> None:
    command = f"set -o pipefail; {sys.executable} -m autoinst.cli.main jobs --json --limit 0 | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=True)
    assert done.stdout == b"{"
    assert done.stderr == b""


def test_check(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("def send(): ...\n")
    (tmp_path / "shop" / "jobs.py").write_text("class Mailer:\n    def perform(self): ...\n")
    good = tmp_path / "good.yaml"
    good.write_text("version: 1\njobs:\n  - class: shop.jobs.Mailer\n    methods: [perform]\n")
    bad = tmp_path / "bad.yaml"
    bad.write_text(
        "version: 1\njbos: []\njobs:\n  - class: shop.jobs.Mailer\n    metods: [perform]\n"
        "  - function: shop.send\n    nme: x\n"
    )
    assert cli.main(["check", str(good)]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert f"nothing wrong in {good}" in err
    assert cli.main(["check", str(good), str(bad), str(tmp_path / "missing.yaml")]) == 1
    out, err = capsys.readouterr()
    assert f"{bad}:2:1: error: " in out
    assert "did you mean 'jobs'?" in out
    assert f"{bad}:5:5: error: " in out
    assert "did you mean 'methods'?" in out
    assert f"{bad}:7:5: error: " in out
    assert f"{tmp_path}/missing.yaml: error: no such file" in out
    assert "\n    5 |     metods: [perform]\n      |     ^" in out
    assert cli.main(["check", "--json", str(bad)]) == 1
    problems = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [problem["line"] for problem in problems] == sorted(problem["line"] for problem in problems)
    assert {problem["line"] for problem in problems} >= {2, 5, 7}
    good.write_text("version: 1\njobs:\n  - class: shop.jobs.Mailer\n    methods: [perfrom]\n")
    assert cli.main(["check", str(good)]) == 1
    assert "did you mean 'perform'?" in capsys.readouterr().out
    assert cli.main(["check", "--path", "/nowhere", str(good)]) == 1
    assert "no module 'shop" in capsys.readouterr().out


def test_doctor(
    full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = tmp_path / "autoinst.yaml"
    rules.write_text("version: 1\nservice: from-file\njobs:\n  - function: shop.send\n")
    monkeypatch.setenv("AUTOINST_REVISION", "r9")
    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["home"] | {"file_system": ""} == {
        "path": str(full),
        "exists": True,
        "writable": True,
        "file_system": "",
    }
    assert found["store"]["jobs"] == len(RECORDS)
    values = {row["name"]: (row["value"], row["source"]) for row in found["settings"]}
    assert values["AUTOINST_HOME"] == (str(full), "environment")
    assert values["AUTOINST_RULES"] == (str(rules), "working directory")
    assert values["AUTOINST_SERVICE"] == ("from-file", "rules file")
    assert values["AUTOINST_REVISION"] == ("r9", "environment")
    assert values["AUTOINST_PACKS"] == ("default", "default")
    assert found["rules"]["own"] == 1
    (rq,) = [pack for pack in found["rules"]["packs"] if pack["name"] == "rq"]
    assert rq["on"] is True
    assert rq["version"]
    assert cli.main(["doctor"]) == 0
    assert "Nothing needs attention." in capsys.readouterr().out


def test_doctor_tells_the_size_of_a_store_that_is_being_written(full: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store(str(full / "store.sqlite3")) as store:  # its log stays while it is open
        with store.transaction():
            store.note_problem("torn", "something torn")
        log = (full / "store.sqlite3-wal").stat().st_size
        assert log
        cli.main(["doctor", "--json"])
        found = json.loads(capsys.readouterr().out)["store"]
        assert found["bytes"] >= (full / "store.sqlite3").stat().st_size + log
        cli.main(["doctor"])
        assert bytes_text(found["bytes"]) in capsys.readouterr().out


def test_doctor_names_what_needs_attention(
    full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "autoinst.yaml").write_text("version: 1\njbos: []\n")
    (full / "spool" / "quarantine").mkdir(parents=True, mode=0o700)
    (full / "spool" / "quarantine" / "1-00.arena").write_bytes(b"x")
    with Store(str(full / "store.sqlite3")) as store, store.transaction():
        store.note_problem("torn", "something torn")
        store.set_counted(b"12345678", [Counted("shop.jobs.Mailer#perform", 7, 2, 10)])
    monkeypatch.setenv("AUTOINST_PACKS", "rqq")
    assert cli.main(["doctor", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    attention = "\n".join(found["attention"])
    assert "problem(s) in the rules" in attention
    assert "1 file(s) could not be read" in attention
    assert "7 job(s) found no room" in attention
    assert "torn: something torn" in attention
    assert found["counted"] == [{"action": "shop.jobs.Mailer#perform", "jobs": 7, "errors": 2}]
    assert cli.main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "did you mean 'jobs'?" in text
    assert "there is no pack 'rqq' (did you mean 'rq'?)" in text


def test_doctor_says_when_nothing_can_be_recorded(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOINST_HOME", "/proc/autoinst")
    assert cli.main(["doctor"]) == 1
    assert "nothing can be recorded: /proc: " in capsys.readouterr().out
    home.write_text("a file")
    monkeypatch.setenv("AUTOINST_HOME", str(home))
    assert cli.main(["doctor"]) == 1
    assert "nothing can be recorded" in capsys.readouterr().out


def test_a_store_of_a_newer_version_is_one_line(full: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import sqlite3

    connection = sqlite3.connect(full / "store.sqlite3")
    connection.execute("PRAGMA user_version = 99")
    connection.commit()
    connection.close()
    assert cli.main(["jobs"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "written by a newer autoinst" in err
    assert err.count("\n") == 1
    assert cli.main(["doctor"]) == 1
    assert "written by a newer autoinst" in capsys.readouterr().out


def test_path(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["path"]) == 0
    assert (Path(capsys.readouterr().out.strip()) / "sitecustomize.py").is_file()


@pytest.mark.parametrize(
    "arguments",
    [
        ["jobs", "--limit", "-1"],
        ["jobs", "--limit", "x"],
        ["jobs", "--status", "fine"],
        ["show"],
        ["jobs", "x"],
    ],
)
def test_usage_errors_exit_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        cli.main(arguments)
    assert exit_info.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "usage: autoinst" in err


def test_other_usage_errors(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["jobs", "--since", "yesterday"]) == 2
    assert "neither a span" in capsys.readouterr().err
    assert cli.main(["jbos"]) == 2
    assert "did you mean jobs?" in capsys.readouterr().err
    assert cli.main([]) == 2


@pytest.mark.parametrize("command", COMMANDS[1:])
def test_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        cli.main([command, "--help"])
    assert exit_info.value.code == 0
    assert f"autoinst {command}" in capsys.readouterr().out.partition("example")[2]


def test_show_reads_only_python_files_of_a_sensible_kind(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_private(str(home))
    os.mkfifo(home / "endless.py")
    (home / "secret.txt").write_text("not to be shown\n")
    (home / "jobs.py").write_text("raise ValueError  # here it is\n")
    files = ["\0.py", str(home / "endless.py"), str(home / "secret.txt"), str(home / "jobs.py")]
    failed = record(9, exception=ExceptionInfo("E", "x", [Frame(file, 1, "f", True) for file in files]))
    with Store(str(home / "store.sqlite3")) as store, store.transaction():
        store.insert([failed])
    assert cli.main(["show", failed.id, "--full"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("here it is") == 1
    assert "not to be shown" not in out


@pytest.mark.parametrize(
    ("words", "start", "said"),
    [
        (["jobs", "--stauts", "error"], "autoinst jobs: error", "--stauts error (did you mean --status?)"),
        (["ui", "--prot=3"], "autoinst ui: error", "--prot=3 (did you mean --port?)"),
        (["--vresion"], "autoinst: error", "--vresion (did you mean --version?)"),
        (["jobs", "x"], "autoinst jobs: error", "x"),
        (["jbos"], "autoinst", "there is no command 'jbos' (did you mean jobs?); `autoinst --help` lists them"),
    ],
)
def test_a_word_that_is_not_known_is_answered_with_the_one_that_was_meant(
    words: list[str], start: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status: object = cli.main(words)
    except SystemExit as end:
        status = end.code
    assert status == 2
    prefix = f"{start}: " if said.startswith("there") else f"{start}: unrecognized arguments: "
    assert capsys.readouterr().err.splitlines()[-1] == prefix + said


def test_check_without_a_file_is_of_the_rules_in_force_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AUTOINST_RULES", raising=False)
    assert cli.main(["check"]) == 2
    assert "`autoinst init`" in capsys.readouterr().err
    (tmp_path / "autoinst.yaml").write_text("version: 1\njobs:\n  - {function: json.dump}\n")
    assert cli.main(["check"]) == 0
    assert "nothing wrong in autoinst.yaml" in capsys.readouterr().err
    (tmp_path / "other.yaml").write_text("version: 1\njosb: []\n")
    monkeypatch.setenv("AUTOINST_RULES", "other.yaml")
    assert cli.main(["check"]) == 1
    assert "other.yaml:2:1" in capsys.readouterr().out
