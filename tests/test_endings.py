"""However a job, its threads, its descriptors and its process end, its record is there: once, and never a false one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from autoinst.agent.drain import drain_once
from autoinst.agent.inflight import running
from autoinst.store.query import JobFilter
from autoinst.store.sqlite import Store
from tests.harness import Program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DEADLINE = 60.0
RULES = """
version: 1
jobs:
  - {module: jobs, functions: ["*"], payload: {args: "${args}"}}
"""
JOBS = """
import os, signal, subprocess, sys, threading, time

def job(*args):
    return args

def calling(function):
    return function()

def forking(n, copies):
    children = []
    for _ in range(copies):
        child = os.fork()
        if child == 0:
            return n
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    return n

def failing_child():
    child = os.fork()
    if child == 0:
        raise ValueError("the child's")
    os.waitpid(child, 0)

def working_child():
    child = os.fork()
    if child == 0:
        job("in the child")
        os._exit(0)
    os.waitpid(child, 0)
    job("in the parent")

def close_all(first=3):
    os.closerange(first, 4096)
    return open("reopened.txt", "w")

def waiting(first=None):
    if first is not None:
        os.closerange(first, 4096)
    print("waiting", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def program(tmp_path: Path) -> Program:
    made = Program(tmp_path)
    (tmp_path / "rules.yaml").write_text(RULES)
    made.write("jobs.py", JOBS)
    return made


def run(program: Program, code: str) -> list[dict[str, object]]:
    """Run `code` with and without autoinst, compare what is seen of it, and return the records."""
    program.write("worker.py", "import os, signal, sys, threading, time\nimport jobs\n" + code)
    plain = program.run("worker.py", instrumented=False)
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.status, result.stdout, result.stderr) == (plain.status, plain.stdout, plain.stderr)
    return result.records


def told(records: list[dict[str, object]]) -> Counter[tuple[object, object]]:
    """Count records by action and status."""
    return Counter((record["action"], record["status"]) for record in records)


def test_a_fork_inside_a_job_leaves_one_record(program: Program) -> None:
    records = run(program, 'me = os.getpid()\njobs.forking(1, 3)\nif os.getpid() == me: print("parent")\n')
    assert told(records) == {("jobs#forking", "ok"): 1}


def test_a_childs_exception_in_its_copy_of_a_job_is_not_the_jobs(program: Program) -> None:
    records = run(program, "try:\n    jobs.failing_child()\nexcept ValueError:\n    os._exit(3)\n")
    assert told(records) == {("jobs#failing_child", "ok"): 1}


MULTIPROCESSING = """
import multiprocessing
def work():
    for n in range(5): jobs.job(n)
jobs.job(5)
process = multiprocessing.get_context("fork").Process(target=work)
process.start()
process.join()
"""


@pytest.mark.parametrize(
    ("code", "calls"),
    [
        ("for n in range(5): jobs.job(n)\n", 5),
        ("jobs.job(1)\nimport atexit\natexit.register(jobs.job, 2)\njobs.job(3)\n", 3),
        ("jobs.job(1)\njobs.job(2)\nraise SystemExit(3)\n", 2),
        # A fork in which no job runs has its parent's statuses and writes none; any other counts its own.
        ("for n in range(3): jobs.job(n)\nchild = os.fork()\nif child: os.waitpid(child, 0)\n", 3),
        ("for n in range(3): jobs.job(n)\nchild = os.fork()\njobs.job(3)\nif child: os.waitpid(child, 0)\n", 5),
        ("jobs.job(1)\njobs.job(2)\nif not os.fork():\n    jobs.job(3)\n    os._exit(0)\nos.wait()\n", 3),
        # A child of multiprocessing runs exit functions from 3.13 on, its own ones; before, it ends by os._exit.
        (MULTIPROCESSING, 6 if sys.version_info >= (3, 13) else 2),
    ],
)
def test_calls_are_counted_to_the_end_of_a_short_program(program: Program, code: str, calls: int) -> None:
    run(program, code)
    done = program.execute([sys.executable, "-m", "autoinst.cli.main", "doctor", "--json"], {"AUTOINST_PACKS": "none"})
    assert done.stdout, done.stderr
    (row,) = json.loads(done.stdout)["rule_statuses"]
    assert (row["status"], row["calls"]) == ("patched", calls)


def test_a_job_in_a_forked_child_is_one_of_its_own(program: Program) -> None:
    records = run(program, "jobs.working_child()\n")
    # The one in the parent is an event of the job it is in.
    assert told(records) == {("jobs#working_child", "ok"): 1, ("jobs#job", "ok"): 1}
    by_action = {record["action"]: record for record in records}
    parent, child = by_action["jobs#working_child"], by_action["jobs#job"]
    assert child["args"] == ["in the child"]
    assert child["parent_span_id"] == str(parent["id"])[16:]
    assert child["pid"] != parent["pid"]


def test_every_job_of_many_threads_is_recorded(program: Program) -> None:
    code = """
def work(thread):
    for n in range(200):
        jobs.job(thread, n)
threads = [threading.Thread(target=work, args=(number,)) for number in range(50)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    records = run(program, code)
    expected = Counter((thread, n) for thread in range(50) for n in range(200))
    assert Counter(tuple(record["args"]) for record in records) == expected  # type: ignore[arg-type]
    assert told(records) == {("jobs#job", "ok"): 50 * 200}


@pytest.mark.parametrize(
    "end",
    ["os._exit(3)", "os.kill(os.getpid(), signal.SIGKILL)", "os.abort()", 'os.execv("/bin/true", ["true"])'],
    ids=["_exit", "SIGKILL", "abort", "exec"],
)
@pytest.mark.parametrize("count", [1, 500])
def test_what_ended_before_the_process_is_there(program: Program, count: int, end: str) -> None:
    records = run(program, f"for n in range({count}): jobs.job(n)\n{end}\n")
    assert [record["args"] for record in records] == [[n] for n in range(count)]
    assert told(records) == {("jobs#job", "ok"): count}


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("os._exit(3)", 3),
        ("os.abort()", -signal.SIGABRT),
        ("ctypes.string_at(0)", -signal.SIGSEGV),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ('os.execv("/bin/true", ["true"])', 0),
    ],
    ids=["_exit", "abort", "segfault", "SIGTERM", "exec"],
)
def test_a_job_that_ends_its_process_is_reported_killed(program: Program, end: str, status: int) -> None:
    code = f"jobs.job(1)\njobs.calling(lambda: {end})\n"
    program.write("worker.py", "import ctypes, os, signal\nimport jobs\n" + code)
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert result.status == status
    assert told(result.records) == {("jobs#job", "ok"): 1, ("jobs#calling", "killed"): 1}
    assert drain_once(str(program.home)) is not None
    assert told(program.records()) == told(result.records)  # looking again tells nothing twice


def test_children_that_end_at_once_are_all_there(program: Program) -> None:
    code = """
for n in range(40):
    child = os.fork()
    if child == 0:
        jobs.job(n)
        os._exit(0) if n % 2 else os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
"""
    records = run(program, code)
    assert sorted(record["args"] for record in records) == [[n] for n in range(40)]  # type: ignore[type-var]


@pytest.mark.parametrize("first", [3, 0])
def test_a_job_that_closes_all_descriptors_is_recorded(program: Program, first: int) -> None:
    # As daemons do; what is opened then gets the lowest numbers, and is the program's own from there on.
    code = f"""
kept = jobs.close_all({first})
jobs.job(kept.fileno())
child = os.fork()
if child == 0:
    kept.write("child")
    kept.flush()
    jobs.job("child")
    os._exit(0)
os.waitpid(child, 0)
kept.write(" parent")
kept.close()
"""
    records = run(program, code)
    assert (program.folder / "reopened.txt").read_text() == "child parent"
    assert told(records) == {("jobs#close_all", "ok"): 1, ("jobs#job", "ok"): 2}
    assert {str(record["args"]) for record in records[1:]} == {f"[{first}]", "['child']"}


@pytest.mark.parametrize("redirection", ["<&- >&- 2>&-", ">&-", "2>&-", "<&-"])
@pytest.mark.parametrize("limit", ["", "ulimit -n 64;", "ulimit -n 16;"])
def test_closed_streams_and_few_descriptors_change_nothing(program: Program, redirection: str, limit: str) -> None:
    (program.folder / "rules.yaml").write_text(RULES + "  - {class: jobs.Nothing, metods: [a]}\n")  # gets a line
    program.write(
        "worker.py",
        """
        import errno, os, sys
        import jobs

        def state(number):
            try:
                return os.fstat(number).st_mode
            except OSError as error:
                return errno.errorcode[error.errno]

        jobs.job(1)
        seen = [state(number) for number in range(3)]
        for number in range(3):
            if seen[number] == "EBADF":
                try:
                    os.write(number, b"lost")
                except OSError:
                    pass
        opened = []
        try:
            while len(opened) < 1000:
                opened.append(os.open("/dev/null", os.O_RDONLY))
        except OSError as error:
            seen.append(error.errno)
        for number in opened:
            os.close(number)
        jobs.job(2)
        descriptor = os.open("seen.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(descriptor, repr(seen).encode())
        sys.exit(5)
        """,
    )
    seen = []
    for instrumented in (False, True):
        command = ["sh", "-c", f'{limit} exec "$0" worker.py {redirection}', sys.executable]
        environ = program.environ({"AUTOINST_PACKS": "none"}, instrumented=instrumented)
        done = subprocess.run(
            command, cwd=program.folder, env=environ, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        assert (done.returncode, done.stdout) == (5, b"")
        lines = done.stderr.splitlines()
        assert len(lines) <= instrumented
        assert all(line.startswith(b"autoinst: rules.yaml:") for line in lines)
        seen.append((program.folder / "seen.txt").read_text())
    assert seen[0] == seen[1]
    assert [record["args"] for record in program.records()] == [[1], [2]]


class Worker:
    """A worker that waits inside a job."""

    def __init__(self, program: Program, code: str) -> None:
        program.write("worker.py", f"import jobs\n{code}\nprint('ended', flush=True)\n")
        self.program = program
        self.process = subprocess.Popen(
            [sys.executable, "worker.py"],
            cwd=program.folder,
            env=program.environ({"AUTOINST_PACKS": "none"}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "waiting\n"

    def __enter__(self) -> Worker:  # noqa: PYI034 - Self is not in typing before 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate(timeout=DEADLINE)

    def statuses(self) -> list[str]:
        """Drain, and return what is stored."""
        drain_once(str(self.program.home))
        with Store(str(self.program.home / "store.sqlite3")) as store:
            return [record.status for record in store.jobs(JobFilter(limit=0))]

    def flying(self) -> list[str]:
        """Return the actions of the jobs in flight."""
        return [str(record.action) for record in running(str(self.program.home))]

    def go_on(self) -> None:
        """Let the job end and wait for the worker's end."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        assert self.process.stdout.read() == "ended\n"
        assert self.process.wait(DEADLINE) == 0


def test_a_stopped_worker_is_never_reported_dead(program: Program) -> None:
    with Worker(program, "jobs.job(1)\njobs.waiting()") as worker:
        os.kill(worker.process.pid, signal.SIGSTOP)
        wait_until(lambda: state_of(worker.process.pid) == "T")
        assert worker.statuses() == ["ok"]
        assert worker.flying() == ["jobs#waiting"]
        os.kill(worker.process.pid, signal.SIGCONT)
        worker.go_on()
        assert worker.statuses() == ["ok", "ok"]


def test_a_worker_without_its_descriptors_is_never_reported_dead(program: Program) -> None:
    with Worker(program, "jobs.job(1)\njobs.waiting(3)") as worker:
        for _ in range(2):
            assert worker.statuses() == ["ok"]
            assert worker.flying() == ["jobs#waiting"]
        worker.go_on()
        assert worker.statuses() == ["ok", "ok"]
        assert worker.flying() == []


def test_a_worker_killed_inside_a_job_is_reported_once(program: Program) -> None:
    with Worker(program, "jobs.job(1)\njobs.waiting(3)") as worker:
        worker.process.kill()
        worker.process.wait(DEADLINE)
        for _ in range(2):
            assert sorted(worker.statuses()) == ["killed", "ok"]
        assert worker.flying() == []


def state_of(pid: int) -> str:
    """Return a process's state letter."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for `condition`, at most DEADLINE seconds."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
