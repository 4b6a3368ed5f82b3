"""Forks processes of one job each with no reader about: how large the spool grows, whether each job is accounted for.

python -m benchmarks.flood [--processes 20000] [--limit 64M] [--home FOLDER]

Real forks of a real program under the sitecustomize. What is stored and what is only counted in the end must add up
to the number of processes. AUTOINST_SPOOL_MAX bounds the arenas; the tally beside them, in which processes without an
arena count, has 256 bytes for each and a limit of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from autoinst.agent.drain import drain_once
from autoinst.config import parse_size
from autoinst.spool.tally import MAX_BYTES
from autoinst.store.sqlite import Store

ROOT = Path(__file__).resolve().parent.parent
SLACK = 16 * 32 * 1024  # of a large spool one process in 16 looks how much there is
RULES = "version: 1\njobs: [{function: jobs.run}]\n"
JOBS = "def run(n):\n    return n\n"
WORKER = """
import os, sys, time
import jobs

processes, spool = int(sys.argv[1]), sys.argv[2]
largest, tally, files, marks = 0, 0, 0, []

def look():
    global largest, tally, files
    names = os.listdir(spool) if os.path.isdir(spool) else []
    sizes = {name: os.stat(os.path.join(spool, name)).st_size for name in names}
    files = sum(name.endswith(".arena") for name in names)
    largest = max(largest, sum(size for name, size in sizes.items() if name.endswith(".arena")))
    tally = max(tally, sum(size for name, size in sizes.items() if not name.endswith(".arena")))

for n in range(processes):
    if n % (processes // 10) == 0 and len(marks) < 10:
        marks.append(time.perf_counter())
        look()
    pid = os.fork()
    if not pid:
        jobs.run(n)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
marks.append(time.perf_counter())
look()
tenths = [round((b - a) / (processes // 10) * 1e6) for a, b in zip(marks, marks[1:])]
print(largest, tally, files, tenths[0], tenths[-1])
"""


def flood(home: Path, processes: int, limit: str) -> dict[str, float]:
    """Run the flood in `home` and return what came of it."""
    folder = home.parent / "program"
    folder.mkdir()
    (folder / "rules.yaml").write_text(RULES)
    (folder / "jobs.py").write_text(JOBS)
    (folder / "worker.py").write_text(WORKER)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("AUTOINST_", "PYTHON"))}
    environ |= {
        "AUTOINST_HOME": str(home),
        "AUTOINST_RULES": "rules.yaml",
        "AUTOINST_PACKS": "none",
        "AUTOINST_AGENT": "off",
        "AUTOINST_SPOOL_MAX": limit,
        "PYTHONPATH": str(ROOT / "sitecustomize_example"),
    }
    command = [sys.executable, "worker.py", str(processes), str(home / "spool")]
    done = subprocess.run(command, cwd=folder, env=environ, stdout=subprocess.PIPE, text=True, check=True)
    largest, tally, files, first, last = map(int, done.stdout.split())
    began = time.perf_counter()
    drain_once(str(home))
    seconds = time.perf_counter() - began
    with Store(str(home / "store.sqlite3")) as store:
        counted = sum(cell.counted for cell in store.totals(0, 2**62).values())
        stored = store.count()
    return {
        "processes": processes,
        "arenas": files,
        "arenas at their largest, bytes": largest,
        "tally at its largest, bytes": tally,
        "us a process, first tenth": first,
        "us a process, last tenth": last,
        "stored": stored,
        "only counted": counted,
        "drained in s": round(seconds, 1),
        "files left": len([name for name in os.listdir(home / "spool") if name != "full"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=20_000)
    parser.add_argument("--limit", default="64M", help="AUTOINST_SPOOL_MAX")
    parser.add_argument("--home", help="folder on the file system to try (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.home) as name:
        found = flood(Path(name) / "home", options.processes, options.limit)
    for what, value in found.items():
        print(f"{what}: {value}")
    limit = parse_size(options.limit) or 0
    clean = found["stored"] + found["only counted"] == options.processes and not found["files left"]
    clean = clean and found["arenas at their largest, bytes"] <= limit + SLACK
    clean = clean and found["tally at its largest, bytes"] <= min(MAX_BYTES, 256 * (options.processes + 1))
    print("clean" if clean else "NOT CLEAN")
    raise SystemExit(not clean)


if __name__ == "__main__":
    main()
