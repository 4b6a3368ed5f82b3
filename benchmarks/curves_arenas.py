"""What many arenas cost, living and dead ones: a worker beside them, the agent's looks, the commands."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from autoinst.agent.drain import Drain
from autoinst.agent.intake import LIVELY_SECONDS
from autoinst.demand import command as agent_command
from autoinst.leader import told
from benchmarks.programs import PACED

if TYPE_CHECKING:
    from collections.abc import Iterator

# A parent that forks so many workers, each with an arena of its own; the living wait for the end of the pipe.
FORKS = """
import os, resource, sys
import jobs
reading, writing = os.pipe()
living = sys.argv[2] == "living"
for _ in range(int(sys.argv[1])):
    pid = os.fork()
    if not pid:
        jobs.job(1)
        if living:
            os.close(writing)
            os.read(reading, 1)
        os._exit(0)
    if not living:
        os.waitpid(pid, 0)
print("made", flush=True)
sys.stdin.read()
"""
ONE_JOB = "import jobs\njobs.job(1)\n"
RATE, SECONDS = 200, 4.0
TICK = os.sysconf("SC_CLK_TCK")


def measure(folder: Path, environ: dict[str, str], size: int) -> dict[str, float]:
    """Return the figures with so many arenas."""
    home = Path(environ["AUTOINST_HOME"])
    shutil.rmtree(home / "spool", ignore_errors=True)
    for name in ("store.sqlite3", "store.sqlite3-wal", "store.sqlite3-shm"):
        (home / name).unlink(missing_ok=True)
    found: dict[str, float] = {}
    with forks(folder, environ, size, "living"):
        found["living: start-up of a further worker with one job, CPU ms"] = cpu_of(folder, environ, ONE_JOB)
        with Drain(str(home)) as drain:
            drain.run_dry()
            found["living: a look of the agent with nothing new, CPU ms"] = min(timed(drain.step) for _ in range(5))
            time.sleep(LIVELY_SECONDS)
            found["living: the same, of those in use only"] = min(timed(drain.glance) for _ in range(5))
        with leading(environ) as agent:
            found["living: the agent while nothing happens, CPU ms a second"] = paced(agent, folder, environ, 0)
            found[f"living: the agent at {RATE} jobs a second, the same"] = paced(agent, folder, environ, RATE)
            for command in ("jobs", "doctor"):
                found[f"living: autoinst {command} beside an agent, CPU ms"] = cpu_of_command(environ, command)
        for command in ("jobs", "doctor"):
            found[f"living: autoinst {command} without one, CPU ms"] = cpu_of_command(environ, command)
    with Drain(str(home)) as drain:
        drain.run_dry()
    with forks(folder, environ, size, "dead"):
        with Drain(str(home)) as drain:
            found["dead: storing what one left, CPU ms"] = timed(drain.run_dry) / size
        for command in ("jobs", "doctor"):
            found[f"dead: autoinst {command} afterwards, CPU ms"] = cpu_of_command(environ, command)
    return found


def timed(call: object) -> float:
    """Return the ms of CPU time that a call takes in this process."""
    began = time.process_time_ns()
    call()  # type: ignore[operator]
    return (time.process_time_ns() - began) / 1e6


@contextlib.contextmanager
def forks(folder: Path, environ: dict[str, str], size: int, kind: str) -> Iterator[None]:
    """Have so many forked workers, living or dead, that ran one job each."""
    process = subprocess.Popen(
        [sys.executable, "-c", FORKS, str(size), kind],
        env=environ,
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "made\n"
        if kind == "living":
            wait_for(Path(environ["AUTOINST_HOME"]) / "spool", size)
        yield


def wait_for(spool: Path, size: int) -> None:
    """Wait until all forked workers have made their arenas."""
    deadline = time.monotonic() + 120
    while len(list(spool.glob("*.arena"))) < size:
        assert time.monotonic() < deadline, f"{spool}: fewer than {size} arenas"
        time.sleep(0.1)


def cpu_of(folder: Path, environ: dict[str, str], code: str) -> float:
    """Return the ms of CPU time of a process."""
    return min(spent([sys.executable, "-c", code], environ, folder) for _ in range(3))


def cpu_of_command(environ: dict[str, str], *arguments: str) -> float:
    """Return the ms of CPU time of a command of autoinst."""
    command = [str(Path(sys.executable).with_name("autoinst")), *arguments]
    return min(spent(command, environ, None) for _ in range(3))


def spent(command: list[str], environ: dict[str, str], folder: Path | None) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, env=environ, cwd=folder, capture_output=True, check=False, timeout=120)
    assert done.returncode in (0, 1), (command, done.stderr)  # doctor's 1: something needs attention
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3


@contextlib.contextmanager
def leading(environ: dict[str, str]) -> Iterator[int]:
    """Have an agent that has stored all there is; yields its pid."""
    ended = told(environ["AUTOINST_HOME"]).ended
    process = subprocess.Popen(agent_command("--foreground"), env=environ, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while told(environ["AUTOINST_HOME"]).ended <= ended:
            assert time.monotonic() < deadline, "the agent does not look"
            time.sleep(0.1)
        time.sleep(4)  # it looks less often by then
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def paced(agent: int, folder: Path, environ: dict[str, str], rate: int) -> float:
    """Return the ms of CPU time a second that an agent takes while one worker runs `rate` jobs a second."""
    before, began = ticks(agent), time.monotonic()
    if rate:
        worker = [sys.executable, "-c", PACED, str(rate), str(SECONDS)]
        subprocess.run(worker, env=environ, cwd=folder, stdout=subprocess.DEVNULL, check=True)
    else:
        time.sleep(SECONDS)
    return (ticks(agent) - before) * 1e3 / TICK / (time.monotonic() - began)


def ticks(pid: int) -> int:
    """Return the CPU time of a process in clock ticks."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rsplit(b")", 1)[1].split()
    return int(fields[11]) + int(fields[12])
