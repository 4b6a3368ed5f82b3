"""What a recorded job costs in its own thread: `python -m benchmarks.job [--tails | --bytecodes] [--home FOLDER]`.

The plain function and the instrumented one are called in turn in one process, batch by batch; a drain empties the
spool meanwhile, as an agent would. `--tails` times single calls instead and prints p50 to max, beside a process that
writes and syncs all the time. `--bytecodes` counts those that each function of autoinst runs for one job, which no
other load of the machine changes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
JOBS = """
import autoinst

def job(n):
    return n

def plain(n):
    return n

def step(n):
    return n

def job_events(n):
    step(n)
    step(n)
    step(n)
    return n

def plain_events(n):
    plain(n)
    plain(n)
    plain(n)
    return n

def job_raises(n):
    raise ValueError(n)

def plain_raises(n):
    raise ValueError(n)
"""
RULES = """
version: 1
jobs:
  - {module: bench_jobs, functions: ["job*"]}
events:
  - {function: bench_jobs.step, name: step.bench}
"""
FSYNC = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
while True:
    os.pwrite(fd, b"x" * 262144, 0)
    os.fsync(fd)
"""
DRAIN = """
import sys, time
from autoinst.agent.drain import Drain
with Drain(sys.argv[1]) as drain:
    while True:
        if not drain.step().stored:
            time.sleep(0.005)
"""


def batch(function: Any, calls: int) -> float:
    """Return the thread's CPU time of one call in ns, over `calls` calls."""
    started = time.thread_time_ns()
    for _ in range(calls):
        try:  # noqa: SIM105  # contextlib.suppress would be part of what is timed
            function(1)
        except ValueError:
            pass
    return (time.thread_time_ns() - started) / calls


def added(plain: Any, job: Any, *, rounds: int = 200, calls: int = 50) -> tuple[float, float]:
    """Return medians in us: what `plain` costs and what `job` costs over it, in turn and the drain given time."""
    bare, differences = [], []
    for _ in range(rounds):
        recorded = batch(job, calls)
        bare.append(batch(plain, calls))
        differences.append(recorded - bare[-1])
        time.sleep(0.004)
    return statistics.median(bare) / 1e3, statistics.median(differences) / 1e3


def costs(jobs: Any) -> dict[str, tuple[float, float]]:
    """Return what plain Python takes and what is added, in us, for each kind of job."""
    added(jobs.plain, jobs.job, rounds=20)
    found = {
        "no-op job": added(jobs.plain, jobs.job),
        "with 3 events": added(jobs.plain_events, jobs.job_events),
        "raising job": added(jobs.plain_raises, jobs.job_raises),
    }
    stop = threading.Event()

    def burn() -> None:
        while not stop.is_set():
            sum(range(1000))

    threads = [threading.Thread(target=burn) for _ in range(3)]
    for thread in threads:
        thread.start()
    found["no-op job, 3 CPU-bound threads beside"] = added(jobs.plain, jobs.job, rounds=30)
    stop.set()
    for thread in threads:
        thread.join()
    return found


def show(found: dict[str, tuple[float, float]]) -> None:
    """Print the table of costs."""
    print(f"{'CPython ' + sys.version.split()[0]:40} {'plain us':>8} {'added us':>8} (medians, the thread's CPU time)")
    for name, (plain, more) in found.items():
        print(f"{name:40} {plain:8.2f} {more:8.2f}")


def tails(jobs: Any, calls: int) -> None:
    """Print the distribution of single calls' wall time, for the plain function and the job."""
    print(f"{'wall us of one call':20} {'p50':>8} {'p99':>8} {'p99.99':>9} {'max':>9}")
    for name, function in (("plain", jobs.plain), ("no-op job", jobs.job)):
        figures = []
        for i in range(calls):
            started = time.perf_counter_ns()
            function(i)
            figures.append(time.perf_counter_ns() - started)
            if i % 20 == 0:
                time.sleep(0.001)
        figures.sort()
        at = [figures[int(len(figures) * share)] / 1e3 for share in (0.5, 0.99, 0.9999)]
        print(f"{name:20} {at[0]:8.2f} {at[1]:8.2f} {at[2]:9.2f} {figures[-1] / 1e3:9.2f}")


def counted(function: Any) -> tuple[Counter[str], Counter[str]]:
    """Return the bytecodes and the calls of each function in one job."""
    counts: Counter[str] = Counter()
    calls: Counter[str] = Counter()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        frame.f_trace_opcodes = True
        name = f"{Path(frame.f_code.co_filename).name}: {frame.f_code.co_name}"
        if event in ("call", "opcode"):
            (calls if event == "call" else counts)[name] += 1
        return trace

    sys.settrace(trace)
    try:  # noqa: SIM105  # contextlib.suppress would be counted
        function(1)
    except ValueError:
        pass
    sys.settrace(None)
    return counts, calls


def bytecodes(jobs: Any) -> None:
    """Print how many bytecodes, in how many calls, each function runs for one job."""
    for kind in ("job", "job_events", "job_raises"):
        function = getattr(jobs, kind)
        batch(function, 100)  # what the interpreter does once is done
        # The least of three: once a second a job looks whether the rules have changed, and writes their statuses.
        counts, calls = min((counted(function) for _ in range(3)), key=lambda found: found[0].total())
        print(f"{kind}: {counts.total()} bytecodes, {calls.total()} calls")
        for name, count in counts.most_common():
            print(f"{count:8} {calls[name]:4} {name}")


def main() -> None:
    """Set up a home, a drain and, for the tails, a writer that syncs; then measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tails", action="store_true")
    parser.add_argument("--bytecodes", action="store_true")
    parser.add_argument("--json", action="store_true", help="the costs as JSON")
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--home", help="folder on the file system to measure (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.home) as name:
        folder = Path(name)
        (folder / "bench_jobs.py").write_text(JOBS)
        (folder / "rules.yaml").write_text(RULES)
        os.environ.update(
            AUTOINST_HOME=str(folder / "home"),
            AUTOINST_RULES=str(folder / "rules.yaml"),
            AUTOINST_PACKS="none",
            AUTOINST_AGENT="off",
        )
        sys.path[:0] = [str(folder), str(ROOT)]
        import autoinst.startup

        autoinst.startup.start()
        import bench_jobs  # type: ignore[import-not-found]

        helpers = [subprocess.Popen([sys.executable, "-c", DRAIN, str(folder / "home")], cwd=ROOT)]
        if options.tails:
            helpers.append(subprocess.Popen([sys.executable, "-c", FSYNC, str(folder / "synced")]))
        try:
            time.sleep(0.5)
            if options.tails:
                tails(bench_jobs, options.calls)
            elif options.bytecodes:
                bytecodes(bench_jobs)
            elif options.json:
                print(json.dumps(costs(bench_jobs)))
            else:
                show(costs(bench_jobs))
        finally:
            for helper in helpers:
                helper.kill()
                helper.wait()


if __name__ == "__main__":
    main()
