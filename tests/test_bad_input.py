"""Everything a person or a machine can get wrong: the worker runs as without autoinst, and the commands say why."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from autoinst.spool import layout
from tests.harness import Program

if TYPE_CHECKING:
    from collections.abc import Iterator

AUTOINST = Path(sys.executable).with_name("autoinst")
JOBS = """
class Mailer:
    def __init__(self):
        self.size = 1

    def perform(self, n):
        if n == 2:
            raise ValueError("bad")
        return n

    limit = 3

    @property
    def weight(self):
        return 5

class Text(str):
    pass

def plain(n):
    return n

class Delayed:
    def __getattr__(self, name):
        raise RuntimeError("touched")

    def __call__(self):
        raise RuntimeError("called")

delayed = Delayed()
"""
WORKER = """
import sys, time
import jobs
try:
    import broken
except ZeroDivisionError:
    pass

mailer = jobs.Mailer()
for n in range(3):
    try:
        print(mailer.perform(n), mailer.weight, jobs.Text("x").upper(), jobs.plain(n))
    except ValueError as error:
        print("failed", error)
time.sleep(0)
sys.stderr.write("on stderr\\n")
sys.exit(7)
"""
HEAD = "version: 1\njobs:\n  - {class: jobs.Mailer, methods: [perform]}\n"
ALL = [("jobs.Mailer#perform", "ok"), ("jobs.Mailer#perform", "ok"), ("jobs.Mailer#perform", "error")]


@dataclass
class Said:
    """What a command printed, and its exit status."""

    status: int
    text: str


@pytest.fixture
def program(tmp_path: Path) -> Program:
    made = Program(tmp_path)
    made.write("jobs.py", JOBS)
    made.write("worker.py", WORKER)
    made.write("broken.py", "def job():\n    pass\n\n1 / 0\n")
    (tmp_path / "rules.yaml").write_text(HEAD)
    return made


def command(program: Program, *arguments: str, **variables: str) -> Said:
    """Run `autoinst` with `arguments` in the program's folder."""
    environ = program.environ({"AUTOINST_PACKS": "none", "COLUMNS": "1000", **variables}, instrumented=False)
    done = subprocess.run(
        [AUTOINST, *arguments], cwd=program.folder, env=environ, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    return Said(done.returncode, done.stdout + done.stderr)


def jobs(program: Program, **variables: str) -> list[dict[str, Any]]:
    """Return what `autoinst jobs --json` lists, oldest first."""
    said = command(program, "jobs", "--json", "--limit", "0", **variables)
    assert said.status == 0, said.text
    return [json.loads(line) for line in said.text.splitlines()][::-1]


def told(records: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return each record's action and status."""
    return [(record["action"], record["status"]) for record in records]


def run(program: Program, **variables: str) -> str:
    """Run the worker with and without autoinst, compare, and return the one line that autoinst may say."""
    plain = program.run("worker.py", instrumented=False)
    process = subprocess.run(
        [sys.executable, "worker.py"],
        cwd=program.folder,
        env=program.environ({"AUTOINST_PACKS": "none", **variables}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.returncode, process.stdout) == (plain.status, plain.stdout)
    lines = process.stderr.splitlines()
    said = [line for line in lines if line.startswith("autoinst: ")]
    assert [line for line in lines if line not in said] == plain.stderr.splitlines()
    assert len(said) <= 1
    return said[0] if said else ""


# What a file says -> the place and the cause that are named, whether the worker says so too, whether the good rule
# in it still works.
FILES: dict[str, tuple[str, str, str, bool, bool]] = {
    "not YAML": (HEAD + "  - [}\n", "rules.yaml:4:6", "not YAML", True, False),
    "a tab": ("version: 1\njobs:\n\t- x\n", "rules.yaml:3:1", "YAML forbids tabs", True, False),
    "an unknown key": (
        HEAD + "  - class: jobs.Mailer\n    metods: [perform]\n",
        "rules.yaml:5:5",
        "did you mean 'methods'?",
        True,
        True,
    ),
    "a key twice": (
        HEAD + "  - function: jobs.plain\n    function: jobs.plain\n",
        "rules.yaml:5:5",
        "duplicate key 'function'",
        True,
        True,
    ),
    "a section twice": (HEAD + "jobs: []\n", "rules.yaml:4:1", "duplicate key 'jobs'", True, True),
    "no such class": (
        HEAD + "  - {class: jobs.Mailr, methods: [perform]}\n",
        "rules.yaml:4:13",
        "did you mean 'Mailer'?",
        False,
        True,
    ),
    "no such method": (
        HEAD + "  - {class: jobs.Mailer, methods: [preform]}\n",
        "rules.yaml:4:36",
        "did you mean 'perform'?",
        False,
        True,
    ),
    "no such module": (HEAD + "  - function: nowhere.job\n", "rules.yaml:4:15", "no module 'nowhere'", False, True),
    "match all": (
        HEAD + "  - {module: '**', functions: ['*']}\n",
        "rules.yaml:4:14",
        "would match every function",
        True,
        True,
    ),
    "a property": (
        HEAD + "  - {class: jobs.Mailer, methods: [weight]}\n",
        "rules.yaml:4:36",
        "is a property",
        False,
        True,
    ),
    "a C method": (
        HEAD + "  - {class: jobs.Text, methods: [upper]}\n",
        "rules.yaml:4:34",
        "is a method of the built-in type 'str', which cannot be watched",
        False,
        True,
    ),
    "a built-in function": (HEAD + "  - function: builtins.len\n", "rules.yaml:4:15", "is built in", False, True),
    "no expression": (
        HEAD + "  - {function: jobs.plain, payload: {queue: '${n +}'}}\n",
        "rules.yaml:4:48",
        "not an expression",
        True,
        True,
    ),
    "a call": (
        HEAD + '  - {function: jobs.plain, payload: {queue: \'${__import__("os").system("id")}\'}}\n',
        "rules.yaml:4:48",
        "may not be called",
        True,
        True,
    ),
    "no mapping": ("- a\n- b\n", "rules.yaml:1:1", "a rules file is a mapping", True, False),
    "aliases of aliases": (
        "a: &a [x, x, x]\nb: &b [*a, *a, *a]\n" + HEAD,
        "rules.yaml:2:8",
        "alias",
        True,
        False,
    ),
    "too deep": ("jobs: " + "[" * 3000 + "]" * 3000, "rules.yaml:1:", "nested too deeply", True, False),
    "a newer version": (HEAD.replace("1", "99", 1), "rules.yaml:1:10", "version '99' is not known", True, False),
    "not UTF-8": (HEAD + "# \udcff\n", "rules.yaml:4:3", "not UTF-8", True, False),
}


@pytest.mark.parametrize("name", FILES)
def test_a_bad_rules_file_stops_nothing_and_is_explained(program: Program, name: str) -> None:
    text, place, cause, at_start, works = FILES[name]
    (program.folder / "rules.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
    said = run(program)
    assert (place in said and cause in said) is at_start
    mailers = [job for job in told(jobs(program)) if job[0] == ALL[0][0]]
    assert mailers == (ALL if works else [])
    checked = command(program, "check", "rules.yaml")
    assert checked.status == 1
    assert place in checked.text
    assert cause in checked.text
    doctor = command(program, "doctor").text
    if at_start:
        assert place in doctor
        assert cause in doctor


@pytest.mark.parametrize(
    ("rule", "status"),
    [
        ("{class: jobs.Mailr, methods: [perform]}", "not found"),
        ("{class: jobs.Mailer, methods: [preform]}", "not found"),
        ("{class: jobs.Text, methods: [upper]}", "refused"),
        ("{class: jobs.Text, methods: [upper]}", "a built-in type's methods cannot be watched"),
        ("{class: jobs.Mailer, methods: [weight]}", "jobs:Mailer.weight is a property, not a method"),
        ("{class: jobs.Mailer, methods: [limit]}", "jobs:Mailer.limit is a int, not a function"),
        ("{class: jobs.Mailer, methods: [perform, limit]}", "jobs:Mailer.limit is a int, not a function"),
        ("{function: jobs.Mailer}", "jobs:Mailer is a class, not a function: name its methods"),
        ("{function: jobs.delayed}", "jobs:delayed is a Delayed that answers for another object: name that"),
        ("{function: builtins.len}", "a built-in function cannot be watched"),
        ("{class: jobs.Mailer, methods: [__annotate__]}", "not found"),
        ("{class: jobs.Mailer, methods: [__repr__]}", "a built-in type's methods cannot be watched"),
        ("{function: nowhere.job}", "not imported"),
    ],
)
def test_doctor_tells_which_rules_found_nothing(program: Program, rule: str, status: str) -> None:
    (program.folder / "rules.yaml").write_text(f"{HEAD}  - {rule}\n")
    assert run(program) == ""
    lines = [line for line in command(program, "doctor").text.splitlines() if "rules.yaml:4" in line]
    assert any(status in line for line in lines), lines


def test_doctor_tells_of_a_module_that_fails_to_import(program: Program) -> None:
    (program.folder / "rules.yaml").write_text(f"{HEAD}  - {{function: broken.job}}\n")
    assert run(program) == ""
    assert "broken: its import raised ZeroDivisionError" in command(program, "doctor").text


def test_a_function_that_is_defined_again_is_the_one_that_is_called(program: Program) -> None:
    program.write("jobs.py", JOBS + "\ndef plain(n):\n    return -n\n")
    (program.folder / "rules.yaml").write_text(f"{HEAD}  - {{function: jobs.plain}}\n")
    assert run(program) == ""
    assert [action for action, _ in told(jobs(program))].count("jobs#plain") == 2  # the third is not reached


def test_a_wildcard_leaves_properties_alone(program: Program) -> None:
    (program.folder / "rules.yaml").write_text("version: 1\njobs:\n  - {class: jobs.Mailer, methods: ['*']}\n")
    assert run(program) == ""
    assert told(jobs(program)) == ALL


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        ("{subclass_of: jobs.Mailer, methods: ['*']}", ["perform", "perform", "perform"]),
        ("{module: _thread, functions: ['*']}", None),
        ("{module: sys, functions: ['*', '*.*']}", None),
        ("{module: '_*', functions: ['*']}", None),
    ],
)
def test_a_wildcard_that_means_what_autoinst_needs_itself_ends_no_program(
    program: Program, rule: str, found: list[str] | None
) -> None:
    (program.folder / "rules.yaml").write_text(f"version: 1\njobs:\n  - {rule}\n")
    program.write("worker.py", WORKER.replace("import jobs\n", "import jobs, json, threading\n"))
    assert run(program) == ""
    if found is not None:
        assert [job["method"] for job in jobs(program) if job["class"] == "jobs.Mailer"] == found


@pytest.mark.parametrize(
    ("rule", "cause", "found"),
    [
        # A star stays within one part of the name, so what `jobs.*` means depends on what `jobs` is.
        ("{function: 'jobs.*'}", None, ["jobs#plain"]),
        ("{class: 'jobs.*', methods: [perform]}", None, ["jobs.Mailer#perform"]),
        ("{function: 'jobs.*.perform'}", None, ["jobs.Mailer#perform"]),
        ("{function: '**.perform'}", None, ["jobs.Mailer#perform"]),
        ("{function: '*.plain'}", None, ["jobs#plain"]),
        ("{class: 'jobs.**', methods: [perfrm]}", "matches nothing in jobs", []),
        ("{function: 'jobs:*.perform'}", None, ["jobs.Mailer#perform"]),
        ("{function: 'jobs:*'}", None, ["jobs#plain"]),
    ],
)
def test_a_wildcard_that_could_mean_a_module_or_a_class(
    program: Program, rule: str, cause: str | None, found: list[str]
) -> None:
    (program.folder / "rules.yaml").write_text(f"version: 1\njobs:\n  - {rule}\n")
    checked = command(program, "check", "rules.yaml")
    assert checked.status == (cause is not None), checked.text
    assert (cause or "nothing wrong") in checked.text
    assert run(program) == ""
    assert sorted({action for action, _ in told(jobs(program))}) == found


def test_values_that_cannot_be_read_are_left_out_and_told(program: Program) -> None:
    (program.folder / "rules.yaml").write_text(
        "version: 1\njobs:\n  - class: jobs.Mailer\n    methods: [perform]\n"
        "    payload: {queue: '${n.missing.deep}', attempts: '${n / 0}', job_id: '${nothing}', args: ['${n}']}\n"
    )
    assert run(program) == ""
    records = jobs(program)
    assert told(records) == ALL
    assert {(r["queue"], r["attempts"], r["job_id"]) for r in records} == {(None, None, None)}
    doctor = command(program, "doctor").text
    for reason in ("no plain attribute 'missing'", "ZeroDivisionError", "no parameter 'nothing'"):
        assert reason in doctor


@pytest.mark.parametrize("path", ["nothing.yaml", "worker.py/rules.yaml", "pipe", "/dev/zero", "x" * 5000])
def test_a_rules_file_that_cannot_be_read_is_named(program: Program, path: str) -> None:
    os.mkfifo(program.folder / "pipe")
    assert path[:40] in run(program, AUTOINST_RULES=path)
    assert told(jobs(program)) == []
    for arguments in (("check", path), ("doctor",)):
        said = command(program, *arguments, AUTOINST_RULES=path)
        assert said.status == 1
        assert path[:40] in said.text


def a_file(program: Program) -> None:
    program.home.write_text("no folder")


def nothing(_program: Program) -> None:
    pass


@pytest.mark.parametrize(
    ("home", "prepare", "cause"),
    [
        ("home", a_file, "Not a directory"),
        ("home/below", a_file, "Not a directory"),
        ("/proc/autoinst", nothing, "/proc: No such file or directory"),
        ("/dev/null/x", nothing, "Not a directory"),
        ("x" * 5000, nothing, "File name too long"),
    ],
)
def test_a_home_that_cannot_be_is_named(program: Program, home: str, prepare: Any, cause: str) -> None:
    prepare(program)
    said = run(program, AUTOINST_HOME=home)
    assert "nothing is recorded: " in said
    assert said.endswith("; see `autoinst doctor`")
    doctor = command(program, "doctor", AUTOINST_HOME=home)
    assert doctor.status == 1
    assert f"{cause}; set AUTOINST_HOME to a folder you can write" in doctor.text


@contextlib.contextmanager
def small_disk(folder: Path, options: str) -> Iterator[None]:
    """Mount a small file system of its own at `folder`; skips where that is not permitted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount program")
    if done.returncode:
        pytest.skip(f"mount is not permitted: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_read_only_home_is_named(program: Program) -> None:
    with small_disk(program.home, "ro,size=1m,mode=700"):
        assert "Read-only file system" in run(program)
        doctor = command(program, "doctor")
    assert doctor.status == 1
    assert "nothing can be recorded" in doctor.text
    assert "Read-only file system" in doctor.text


def test_a_home_on_a_full_disk_is_named(program: Program) -> None:
    with small_disk(program.home, "size=16k,mode=700"):
        assert "No space left on device" in run(program)
        doctor = command(program, "doctor")
    assert doctor.status == 1
    assert "full" in doctor.text


def test_what_was_recorded_waits_for_room_in_the_store(program: Program) -> None:
    with small_disk(program.home, "size=184k,mode=700"):  # arena and reserve have room, a database has not
        assert run(program) == ""
        said = command(program, "jobs")
        assert said.status == 1
        assert "full" in said.text
        subprocess.run(["mount", "-o", "remount,size=10m", str(program.home)], check=True)
        assert told(jobs(program)) == ALL


def test_files_that_are_no_arenas_hide_nothing(program: Program) -> None:
    spool = program.home / "spool"
    spool.mkdir(parents=True, mode=0o700)
    program.home.chmod(0o700)
    newer = layout.MAGIC + (layout.VERSION + 1).to_bytes(4, "little") + bytes(40_000)
    bad = {
        "1001-0000000000000001.arena": b"",
        "1002-0000000000000002.arena": b"x" * 100,
        "1003-0000000000000003.arena": b"x" * 40_000,
        "1004-0000000000000004.arena": layout.MAGIC + layout.VERSION.to_bytes(4, "little") + b"\xff" * 40_000,
        "not-an-arena.arena": b"x",
    }
    for name, content in bad.items():
        (spool / name).write_bytes(content)
    (spool / "1005-0000000000000005.arena").write_bytes(newer)
    (spool / "1006-0000000000000006.arena").symlink_to("/etc/passwd")
    os.mkfifo(spool / "1007-0000000000000007.arena")
    assert run(program) == ""
    (own,) = (name for name in os.listdir(spool) if name.endswith(".arena") and not name.startswith(("100", "not")))
    cut = (spool / own).read_bytes()[:5000]
    (spool / "1008-0000000000000008.arena").write_bytes(cut)
    assert told(jobs(program)) == ALL
    doctor = command(program, "doctor")
    assert doctor.status == 1
    for name in (*bad, "1006-0000000000000006.arena", "1007-0000000000000007.arena", "1008-0000000000000008.arena"):
        assert name in doctor.text
    assert "8 file(s) could not be read and were moved to" in doctor.text
    assert f"arena version {layout.VERSION + 1}" in doctor.text
    assert (spool / "1005-0000000000000005.arena").read_bytes() == newer  # left for who can read it
    assert Path("/etc/passwd").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_an_arena_of_another_user_is_put_aside_and_named(program: Program) -> None:
    assert run(program) == ""
    (own,) = (program.home / "spool").glob("*.arena")
    other = own.with_name("1009-0000000000000009.arena")
    other.write_bytes(own.read_bytes())
    os.chown(other, 65534, 65534)
    assert told(jobs(program)) == ALL
    doctor = command(program, "doctor")
    assert doctor.status == 1
    assert f"{other}: belongs to user 65534, not 0" in doctor.text
    assert not other.exists()


def test_a_store_of_a_newer_version_is_left_alone_and_loses_nothing(program: Program) -> None:
    assert run(program) == ""
    assert told(jobs(program)) == ALL
    path = program.home / "store.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as con:
        (version,) = con.execute("PRAGMA user_version").fetchone()
        con.execute(f"PRAGMA user_version = {version + 1}")
    assert run(program) == ""
    for arguments in (("jobs",), ("doctor",)):
        said = command(program, *arguments)
        assert said.status == 1
        assert f"written by a newer autoinst (version {version + 1}, this one knows {version})" in said.text
    with contextlib.closing(sqlite3.connect(path)) as con:
        con.execute(f"PRAGMA user_version = {version}")
    assert told(jobs(program)) == ALL * 2


def test_a_damaged_store_is_moved_aside(program: Program) -> None:
    program.home.mkdir(mode=0o700)
    (program.home / "store.sqlite3").write_bytes(b"no database" * 1000)
    assert run(program) == ""
    assert told(jobs(program)) == ALL
    doctor = command(program, "doctor")
    assert doctor.status == 1
    assert "store.sqlite3.corrupt-" in doctor.text


def test_a_damaged_cache_of_rules_is_made_anew(program: Program) -> None:
    time.sleep(0.2)  # rules files written this instant are not cached: they may change within the clock's step
    for content in (b"", b"autoinst rules 1\n" + b"\xff" * 200, b"x" * 100_000):
        assert run(program) == ""
        for path in (program.home / "cache").iterdir():
            path.write_bytes(content)
    assert run(program) == ""
    assert told(jobs(program)) == ALL * 4
