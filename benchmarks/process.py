"""What autoinst costs and keeps as whole processes: memory, bursts, kills, forks, and how fast an agent stores.

python -m benchmarks.process [--json] [--seconds 5]

Memory is what a process has for itself (smaps_rollup, Private_*), without the mapped arenas, beside the same program
under plain Python; the others are counts, which have to be complete.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from autoinst.agent.drain import drain_once
from autoinst.demand import command as agent_command
from autoinst.store.sqlite import Store
from benchmarks.programs import PACED, PRIVATE

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
RULES = "version: 1\njobs: [{function: jobs.job}]\n"
JOBS = "def job(n):\n    return n\n"
BURST = 50_000
FORKS = 50
MEMORY = (
    PRIVATE
    + """
import sys
import jobs

jobs.job(0)
idle = private()
for n in range(int(sys.argv[1])):
    jobs.job(n)
print(*idle, *private())
"""
)
KILLED = """
import os, signal, sys
import jobs
for n in range(int(sys.argv[1])):
    jobs.job(n)
os.kill(os.getpid(), signal.SIGKILL)
"""
FORKED = """
import os, sys
import jobs
for n in range(int(sys.argv[1])):
    pid = os.fork()
    if not pid:
        jobs.job(n)
        os._exit(0)
    os.waitpid(pid, 0)
"""


class Bench:
    """A folder with a program, its rules and a home."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.homes = 0
        (folder / "rules.yaml").write_text(RULES)
        (folder / "jobs.py").write_text(JOBS)

    def start(self, code: str, *arguments: object, home: Path | None) -> subprocess.Popen[str]:
        """Start `code`, plain where there is no `home`."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("AUTOINST_", "PYTHON"))}
        if home is not None:
            environ |= {
                "AUTOINST_HOME": str(home),
                "AUTOINST_RULES": str(self.folder / "rules.yaml"),
                "AUTOINST_PACKS": "none",
                "AUTOINST_AGENT": "off",
                "PYTHONPATH": str(ROOT / "sitecustomize_example"),
            }
        path = self.folder / "worker.py"
        path.write_text(code)
        command = [sys.executable, str(path), *map(str, arguments)]
        return subprocess.Popen(command, env=environ, cwd=self.folder, stdout=subprocess.PIPE, text=True)

    def run(self, code: str, *arguments: object, home: Path | None) -> list[float]:
        """Run `code` to its end and return the numbers it printed."""
        process = self.start(code, *arguments, home=home)
        return [float(word) for word in process.communicate()[0].split()]

    def home(self) -> Path:
        """Return a new home."""
        self.homes += 1
        return self.folder / f"home{self.homes}"


def accounted(home: Path) -> tuple[int, int]:
    """Drain and return how many jobs are recorded and how many only counted."""
    drain_once(str(home))
    with Store(str(home / "store.sqlite3")) as store:
        return store.count(), sum(cell.counted for cell in store.totals(0, 2**62).values())


@contextlib.contextmanager
def agent(home: Path) -> Iterator[None]:
    """Have an agent lead `home`."""
    environ = os.environ | {"AUTOINST_HOME": str(home)}
    process = subprocess.Popen(agent_command("--foreground"), env=environ, stderr=subprocess.DEVNULL)
    try:
        time.sleep(1)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def measure(bench: Bench, seconds: float, rounds: int = 5) -> dict[str, dict[str, float]]:
    """Return each figure, with plain Python's where it has one."""
    found: dict[str, dict[str, float]] = {}
    plain, warm, cold = [], [], []
    for _ in range(rounds):
        plain.append(bench.run(MEMORY, BURST, home=None))
        home = bench.home()
        cold.append(bench.run(MEMORY, BURST, home=home))
        drain_once(str(home))
        warm.append(bench.run(MEMORY, BURST, home=home))
    medians = [[statistics.median(column) / 1024 for column in zip(*rows, strict=True)] for rows in (plain, warm, cold)]
    for at, name in ((0, "private memory added, idle, MB"), (2, "private memory added, after 50k jobs, MB")):
        found[name] = {"plain": medians[0][at], "autoinst": medians[1][at] - medians[0][at]}
    # The first process after the rules have changed reads them as YAML, and keeps that library.
    found["the same, idle, rules not compiled yet, MB"] = {"autoinst": medians[2][0] - medians[0][0]}
    found["arena pages after 50k jobs, MB"] = {"autoinst": medians[1][3]}
    home = bench.home()
    bench.run(KILLED, BURST, home=home)
    recorded, counted = accounted(home)
    found["50k-job burst, SIGKILL after the last: recorded, %"] = {"autoinst": recorded / BURST * 100}
    found["the same: recorded or counted, %"] = {"autoinst": (recorded + counted) / BURST * 100}
    home = bench.home()
    bench.run(FORKED, FORKS, home=home)
    found["fork and os._exit x 50: recorded, %"] = {"autoinst": accounted(home)[0] / FORKS * 100}
    home = bench.home()
    with agent(home):
        workers = [bench.start(PACED, 10_000, seconds, home=home) for _ in range(2)]
        done = sum(int(worker.communicate()[0]) for worker in workers)
    recorded, counted = accounted(home)
    found["agent, two workers: jobs/s stored"] = {"autoinst": recorded / seconds}
    found["the same: jobs only counted or lost"] = {"autoinst": done - recorded}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=5.0, help="that the two workers run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = measure(Bench(Path(name)), options.seconds)
    if options.json:
        print(json.dumps(found))
        return
    for what, values in found.items():
        print(f"{what:56} " + "  ".join(f"{name} {value:.1f}" for name, value in values.items()))


if __name__ == "__main__":
    main()
