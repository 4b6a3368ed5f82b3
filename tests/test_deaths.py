"""Real workers that die, or only seem to: one look tells the one, no number of looks is wrong about the other."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

import pytest

from autoinst.agent.deaths import CGROUP_ROOT
from autoinst.agent.drain import Drain, drain_once
from autoinst.agent.inflight import running
from autoinst.spool.owner import QUIET_NS
from autoinst.store.query import JobFilter
from autoinst.store.sqlite import Store
from tests.agents import Agents, eventually
from tests.harness import ROOT, Program
from tests.launching import AUTOINST

if TYPE_CHECKING:
    from collections.abc import Iterator

JOBS = """
import mmap, os, signal, sys

def job():
    return 1

def waiting():
    print("waiting", flush=True)
    sys.stdin.readline()

def eating():
    waiting()
    kept = []
    while True:
        kept.append(b"x" * (1 << 20))

def daemonising():
    for step in range(2):
        if os.fork():
            os._exit(0)
        os.setsid() if step == 0 else None
    os.chdir("/")
    os.closerange(0, 4096)
    os.open("/dev/null", os.O_RDWR)

def pausing(path):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    signal.sigwait([signal.SIGUSR1])
"""
RULES = "version: 1\npacks: [none]\njobs: [{module: jobs, functions: ['*'], exclude: [jobs.daemonising]}]\n"
PTRACE_ATTACH, PTRACE_DETACH = 16, 17  # sys/ptrace.h


@pytest.fixture
def program(tmp_path: Path) -> Program:
    made = Program(tmp_path)
    made.write("rules.yaml", RULES)
    made.write("jobs.py", JOBS)
    return made


@contextlib.contextmanager
def worker(program: Program, code: str, *before: str) -> Iterator[subprocess.Popen[str]]:
    """Run a worker; it has printed `waiting` in its last job when this goes on."""
    program.write("worker.py", f"import os, jobs\njobs.job()\n{code}\nprint('ended', flush=True)\n")
    process = subprocess.Popen(
        [*before, sys.executable, "worker.py"],
        cwd=program.folder,
        env=program.environ({}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "waiting\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=60)


def stored(program: Program) -> list[Any]:
    with Store(str(program.home / "store.sqlite3")) as store:
        return list(store.jobs(JobFilter(limit=0)))


def statuses(program: Program) -> list[str]:
    drain_once(str(program.home))
    return sorted(record.status for record in stored(program))


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


# -- dead --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def memory_cgroup() -> Iterator[Path]:
    """Make a cgroup with little memory below this process's own."""
    places = {line.split(":")[1]: line.split(":", 2)[2] for line in Path("/proc/self/cgroup").read_text().splitlines()}
    if "memory" in places:
        folder, limit, value = f"{CGROUP_ROOT}/memory{places['memory']}", "memory.limit_in_bytes", str(64 << 20)
    else:
        folder, limit, value = f"{CGROUP_ROOT}{places.get('', '/')}", "memory.max", str(64 << 20)
    try:
        made = Path(tempfile.mkdtemp(prefix="autoinst-test-", dir=folder))
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    try:
        try:
            (made / limit).write_text(value)
            for swap in ("memory.swap.max", "memory.memsw.limit_in_bytes"):
                if (made / swap).exists():
                    (made / swap).write_text("0" if swap == "memory.swap.max" else value)
        except OSError as error:
            pytest.skip(f"the memory of a cgroup cannot be limited here: {error}")
        yield made
    finally:
        eventually(lambda: removed(made))


def removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:  # the kernel is not done with its last process
        return False
    return True


def test_a_job_killed_for_its_memory_is_reported_as_such(program: Program, memory_cgroup: Path) -> None:
    enter = f'echo $$ > {memory_cgroup}/cgroup.procs && exec "$@"'
    with worker(program, "jobs.eating()", "sh", "-c", enter, "sh") as process, Drain(str(program.home)) as leader:
        leader.step()  # an agent has seen it alive
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait(60) == -signal.SIGKILL
        leader.run_dry()
    killed = next(record for record in stored(program) if record.status == "killed")
    assert killed.action == "jobs#eating"
    assert killed.to_json()["killed"]["signal"] == "oom"
    told = subprocess.run(
        [AUTOINST, "jobs"], env=program.environ({}), capture_output=True, text=True, check=True
    ).stdout
    assert "killed by oom" in told


@pytest.mark.parametrize("agent", [False, True], ids=["no agent", "agent"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_one_look_tells_a_death(program: Program, number: signal.Signals, agent: bool) -> None:
    agents = Agents(program.home)
    try:
        with worker(program, "jobs.waiting()") as process:
            if agent:
                agents.start()
            process.send_signal(number)
            process.wait(60)
            done = subprocess.run(
                [AUTOINST, "jobs", "--json"], env=program.environ({}), capture_output=True, text=True, check=True
            )
        assert [json.loads(line)["status"] for line in done.stdout.splitlines()] == ["killed", "ok"]
    finally:
        agents.end()


# -- not dead ----------------------------------------------------------------------------------------------------------


def test_a_worker_in_a_debugger_is_never_reported_dead(program: Program) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    with worker(program, "jobs.waiting()") as process:
        if libc.ptrace(PTRACE_ATTACH, process.pid, None, None):
            pytest.skip(f"ptrace(2) is not allowed here: {os.strerror(ctypes.get_errno())}")
        eventually(lambda: state(process.pid) == "t")
        for _ in range(2):
            assert statuses(program) == ["ok"]
            assert [record.action for record in running(str(program.home))] == ["jobs#waiting"]
        os.waitpid(process.pid, 0)  # its stop
        assert libc.ptrace(PTRACE_DETACH, process.pid, None, None) == 0
        assert process.communicate("\n", timeout=60)[0] == "ended\n"
    assert statuses(program) == ["ok", "ok"]


def test_a_daemon_is_never_reported_dead(program: Program) -> None:
    # As python-daemon does it: two forks, a session of its own, every descriptor closed.
    note = program.folder / "pid"
    program.write(
        "worker.py", f"import jobs\njobs.job()\njobs.daemonising()\njobs.pausing({str(note)!r})\njobs.job()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "worker.py"], cwd=program.folder, env=program.environ({}), stderr=subprocess.DEVNULL
    )
    eventually(lambda: note.exists() and note.read_text())
    pid = int(note.read_text())
    try:
        eventually(lambda: state(pid) == "S")
        for _ in range(2):
            assert statuses(program) == ["ok"]
            assert [record.action for record in running(str(program.home))] == ["jobs#pausing"]
    finally:
        os.kill(pid, signal.SIGUSR1)
        process.wait(60)
    eventually(lambda: statuses(program) == ["ok"] * 3)


# -- elsewhere ---------------------------------------------------------------------------------------------------------

unshare = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare(1)")
CONTAINER = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


@unshare
def test_a_worker_in_a_container_is_judged_by_its_silence(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    # `sh` is what process 1 of a container is: the worker is another one.
    with worker(program, "jobs.waiting()", *CONTAINER, "sh", "-c", '"$@"; true', "sh") as process:
        (arena,) = (program.home / "spool").glob("*.arena")
        assert int(arena.name.partition("-")[0]) < 10
        assert statuses(program) == ["ok"]
        assert len(running(str(program.home))) == 1
        process.kill()
        process.wait(60)
        assert process.stdout is not None
        assert process.stdout.read() == ""  # all that had it open are gone
        assert statuses(program) == ["ok"]
        assert statuses(program) == ["ok"]
        monkeypatch.setattr("autoinst.spool.owner.time.monotonic_ns", lambda: monotonic_ns() + QUIET_NS)
        assert statuses(program) == ["killed", "ok"]
        assert not arena.exists()


@unshare
def test_a_stopped_worker_in_a_container_is_never_reported_dead(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    with worker(program, "jobs.waiting()", *CONTAINER, "sh", "-c", '"$@"; true', "sh") as process:
        (child,) = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
        (pid,) = map(int, Path(f"/proc/{child}/task/{child}/children").read_text().split())
        os.kill(pid, signal.SIGSTOP)
        eventually(lambda: state(pid) == "T")
        assert statuses(program) == ["ok"]
        monkeypatch.setattr("autoinst.spool.owner.time.monotonic_ns", lambda: monotonic_ns() + QUIET_NS)
        assert statuses(program) == ["ok"]
        os.kill(pid, signal.SIGCONT)
        assert process.communicate("\n", timeout=60)[0] == "ended\n"
    assert statuses(program) == ["ok", "ok"]


@unshare
def test_a_pid_used_again_does_not_hide_a_death(program: Program) -> None:
    """In a pid namespace of its own, whose next pid can be chosen, the dead worker's goes to another process."""
    program.write("worker.py", "import jobs\njobs.job()\njobs.waiting()\n")
    program.write(
        "scene.py",
        """
        import os, subprocess, sys
        from autoinst.agent.drain import drain_once
        worker = subprocess.Popen([sys.executable, "worker.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert worker.stdout.readline() == b"waiting\\n"
        worker.kill()
        worker.wait()
        with open("/proc/sys/kernel/ns_last_pid", "w") as file:
            file.write(str(worker.pid - 1))
        other = subprocess.Popen(["sleep", "60"])
        print(other.pid == worker.pid, drain_once(os.environ["AUTOINST_HOME"]).killed)
        other.kill()
        other.wait()
        """,
    )
    done = subprocess.run(
        [*CONTAINER, sys.executable, "scene.py"],
        cwd=program.folder,
        env=program.environ({}) | {"PYTHONPATH": f"{program.environ({})['PYTHONPATH']}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.stdout, done.returncode) == ("True 1\n", 0), textwrap.indent(done.stderr, "  ")
    assert statuses(program) == ["killed", "ok"]
