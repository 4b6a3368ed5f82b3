"""AUTOINST_GROUP: an operator of that group reads what a worker of another user recorded, and changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from autoinst.config import group_id
from autoinst.store.sqlite import Store
from tests.agents import eventually
from tests.launching import AUTOINST, environment
from tests.users import as_user

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKER, OPERATOR, STRANGER = 64001, 64002, 64003  # user ids, of no users this machine has
GROUP = 64100

PROGRAM = """\
import os, signal, sys

def job(n):
    if n == 3:
        print("waiting", flush=True)
        sys.stdin.readline()

for n in range(int(sys.argv[1])):
    job(n)
"""
RULES = "version: 1\njobs: [{function: __main__.job}]\n"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run processes of other users")


class Machine:
    """A folder all users can enter, and commands that run as one of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        (folder / "worker.py").write_text(PROGRAM)
        (folder / "rules.yaml").write_text(RULES)
        for name in ("worker.py", "rules.yaml"):
            (folder / name).chmod(0o644)
        (folder / "hold").mkdir()
        folder.chmod(0o777)

    def start(self, user: int, *command: str, group: str | None = None, **variables: str) -> subprocess.Popen[str]:
        env = environment(self.home, AUTOINST_RULES="rules.yaml", AUTOINST_PACKS="none", HOME="/nonexistent")
        if group is not None:
            env["AUTOINST_GROUP"] = group
        groups = [GROUP] if user in (WORKER, OPERATOR) else []
        return subprocess.Popen(
            [*as_user(user, groups, self.folder / "hold"), *command],
            cwd=self.folder,
            env=env | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, user: int, *command: str, group: str | None = None, **variables: str) -> tuple[int, str, str]:
        process = self.start(user, *command, group=group, **variables)
        out, err = process.communicate("", timeout=60)
        return process.returncode, out, err

    def work(self, count: int, group: str | None) -> None:
        assert self.run(WORKER, AUTOINST, "run", "worker.py", str(count), group=group) == (0, "", "")

    def modes(self) -> dict[str, tuple[str, int, int]]:
        """Return mode, owner and group of everything in the home but the compiled rules."""
        found = {}
        for path in (self.home, *self.home.rglob("*")):
            if "cache" not in path.relative_to(self.home).parts:
                status = path.lstat()
                found[str(path.relative_to(self.home))] = (stat.filemode(status.st_mode), status.st_uid, status.st_gid)
        return found


@pytest.fixture
def machine() -> Iterator[Machine]:
    folder = Path(tempfile.mkdtemp(prefix="autoinst-group-"))
    try:
        made = Machine(folder)
        try:
            status, _, err = made.run(STRANGER, sys.executable, "-c", "import autoinst")
        except RuntimeError as error:
            pytest.skip(str(error))
        if status:
            pytest.skip(f"no process of another user can run autoinst here: {err.strip()}")
        yield made
    finally:
        shutil.rmtree(folder)


def test_an_operator_of_the_group_reads_and_does_not_write(machine: Machine) -> None:
    machine.work(3, str(GROUP))
    spool = next((machine.home / "spool").glob("*.arena"))
    assert machine.modes()["."] == ("drwxr-s---", WORKER, GROUP)
    assert machine.modes()[f"spool/{spool.name}"] == ("-rw-r-----", WORKER, GROUP)
    status, out, err = machine.run(OPERATOR, AUTOINST, "jobs", "--json")
    assert (status, out) == (0, "")
    assert f"belongs to user {WORKER}, and nothing new is read by others" in err
    assert machine.run(WORKER, AUTOINST, "agent", "--once")[0] == 0
    before = machine.modes()
    for name in ("spool", "store.sqlite3", "store.sqlite3-wal", "store.sqlite3-shm", "drain.lock"):
        mode, owner, group = before[name]
        assert (mode[1:], owner, group) == ("rwxr-s---" if name == "spool" else "rw-r-----", WORKER, GROUP)
    status, out, err = machine.run(OPERATOR, AUTOINST, "jobs", "--json")
    records = [json.loads(line) for line in out.splitlines()]
    assert (status, [record["action"] for record in records]) == (0, ["__main__#job"] * 3)
    assert len(err.splitlines()) == 1
    assert machine.run(OPERATOR, AUTOINST, "show", records[0]["id"])[0] == 0
    assert len(machine.run(OPERATOR, AUTOINST, "export")[1].splitlines()) == 3
    assert machine.modes() == before
    for forbidden in (
        "open('home/x', 'w')",
        "open('home/store.sqlite3', 'r+')",
        "open('home/spool/x', 'w')",
        "open('home/drain.lock', 'r+')",
    ):
        assert "PermissionError" in machine.run(OPERATOR, sys.executable, "-c", forbidden)[2]


def test_an_operator_sees_what_runs_and_what_an_agent_stores(machine: Machine) -> None:
    agent = machine.start(WORKER, AUTOINST, "agent", "--foreground", group=str(GROUP))
    eventually((machine.home / "store.sqlite3").exists)
    worker = machine.start(WORKER, AUTOINST, "run", "worker.py", "5", group=str(GROUP))
    try:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "waiting\n"
        found: list[str] = []

        def all_there() -> bool:
            out = machine.run(OPERATOR, AUTOINST, "jobs", "--json")[1]
            found[:] = [json.loads(line)["status"] for line in out.splitlines()]
            return len(found) == 4

        eventually(all_there)
        assert found == ["running", "ok", "ok", "ok"]
        worker.send_signal(signal.SIGKILL)
        eventually(lambda: all_there() and found == ["killed", "ok", "ok", "ok"])
        told = json.loads(machine.run(OPERATOR, AUTOINST, "doctor", "--json")[1])
        assert told["agent"]["pid"] == agent.pid
        assert told["home"]["writable"] is False
        assert any("you may look" in text for text in told["attention"])
    finally:
        for process in (worker, agent):
            process.kill()
            process.communicate(timeout=60)
    # An agent that was killed has left its write-ahead log behind.
    assert len(machine.run(OPERATOR, AUTOINST, "jobs", "--json")[1].splitlines()) == 4


def test_whoever_is_not_in_the_group_reads_nothing(machine: Machine) -> None:
    machine.work(3, str(GROUP))
    machine.run(WORKER, AUTOINST, "agent", "--once")
    status, out, err = machine.run(STRANGER, AUTOINST, "jobs")
    assert (status, out) == (1, "")
    assert "you may not read it" in err
    assert "Traceback" not in err


def test_without_the_variable_nobody_else_reads(machine: Machine) -> None:
    machine.work(3, None)
    machine.run(WORKER, AUTOINST, "agent", "--once")
    modes = machine.modes()
    assert modes["."][0] == "drwx------"
    assert {mode for mode, _, _ in modes.values()} == {"drwx------", "-rw-------"}
    assert "store.sqlite3-wal" not in modes
    status, _, err = machine.run(OPERATOR, AUTOINST, "jobs", group=str(GROUP))
    assert (status, "you may not read it" in err) == (1, True)


def test_a_home_that_was_private_is_shared_by_the_next_agent(machine: Machine) -> None:
    machine.work(3, None)
    machine.run(WORKER, AUTOINST, "agent", "--once")
    machine.work(2, None)
    told = json.loads(machine.run(WORKER, AUTOINST, "doctor", "--json", group=str(GROUP))[1])
    assert any("is not shared with group" in text for text in told["attention"])
    assert machine.run(WORKER, AUTOINST, "agent", "--once", group=str(GROUP))[0] == 0
    told = json.loads(machine.run(WORKER, AUTOINST, "doctor", "--json", group=str(GROUP))[1])
    assert told["attention"] == []
    assert len(machine.run(OPERATOR, AUTOINST, "jobs", "--json")[1].splitlines()) == 5


@pytest.mark.parametrize(
    ("group", "said"), [("no-such-group", "there is no group 'no-such-group'"), ("0", "this user is not in group '0'")]
)
def test_a_wrong_group_is_told_by_doctor_and_changes_nothing_else(machine: Machine, group: str, said: str) -> None:
    machine.work(3, group)
    assert {mode for mode, _, _ in machine.modes().values()} == {"drwx------", "-rw-------"}
    status, out, err = machine.run(WORKER, AUTOINST, "doctor", group=group)
    assert (status, said in " ".join(out.split()), err) == (1, True, "")
    assert len(machine.run(WORKER, AUTOINST, "jobs", "--json", group=group)[1].splitlines()) == 3


def test_a_worker_without_an_agent_shares_its_home_too(machine: Machine) -> None:
    boot = machine.run(WORKER, AUTOINST, "path")[1].strip()
    done = machine.run(WORKER, sys.executable, "worker.py", "3", group=str(GROUP), PYTHONPATH=boot)
    assert done == (0, "", "")
    assert {mode for mode, _, _ in machine.modes().values()} == {"drwxr-s---", "-rw-r-----"}


def test_the_number_of_a_group() -> None:
    assert group_id("root") == 0
    assert group_id("4711") == 4711
    for name in ("", "no-such-group", "root:x", "-1", "9" * 30, "é"):
        assert group_id(name) is None


def test_closing_a_store_beside_another_connection_keeps_its_locks(tmp_path: Path) -> None:
    tmp_path.chmod(0o2750)
    path = str(tmp_path / "store.sqlite3")
    one, other = Store(path), Store(path)
    with one.transaction():
        one.note_problem("a", "b")
        other.close()
        asked = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')",
                path,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "database is locked" in asked.stderr
    one.close()
    assert (tmp_path / "store.sqlite3-shm").stat().st_mode & 0o777 == 0o640
