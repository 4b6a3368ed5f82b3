"""One table of what the recorder, the agent and the store cost and keep, beside plain Python and the goal.

python -m benchmarks.table [--json] [--jobs 1000000]

It runs benchmarks/job.py, startup.py, process.py and store.py one after the other, each of which calls plain Python
and autoinst in turn and takes medians, and takes some two minutes. Figures of a busy machine are ratios to go by.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Row(NamedTuple):
    """One line: what, what plain Python takes, what autoinst adds or does, and the goal."""

    what: str
    plain: float | None
    autoinst: float
    goal: str


def run(name: str, *arguments: str) -> Any:
    """Return what a benchmark printed as JSON."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def job_rows() -> list[Row]:
    goals = ("1.5", "3", "15", "5")
    return [
        Row(f"{what}, us added", *values, goal) for (what, values), goal in zip(run("job").items(), goals, strict=True)
    ]


def startup_rows() -> list[Row]:
    found = run("startup")
    plain = found["plain"][1]
    forms = (
        ("sitecustomize, default packs, no match", "3"),
        ("sitecustomize, default packs, one job", "3"),
        ("autoinst run, one job", "12"),
    )
    return [Row(f"start-up, {form}: CPU ms added", plain, found[form][1] - plain, goal) for form, goal in forms]


def process_rows() -> list[Row]:
    goals = ("2", "4", "", "", "100, in 64 MB of arenas", "100", "100", "20,000", "0")
    found = run("process").items()
    return [
        Row(what, values.get("plain"), values["autoinst"], goal)
        for (what, values), goal in zip(found, goals, strict=True)
    ]


def store_rows(jobs: int) -> list[Row]:
    found = run("store", "--jobs", str(jobs))
    goals = {
        "rows a second": "",
        "bytes a job": "200",
        "overview of 24 h, totals per action, ms": "50",
        "newest 50 failures, ms": "5",
        "one job by id, ms": "",
        "page Overview, ms": "50",
        "page Actions, ms": "300",
        "page Action, ms": "300",
        "page Errors, ms": "300",
        "page Job, ms": "50",
        "page Jobs, newest 50 failures, ms": "50",
        "page Jobs, of a queue and an action, ms": "300",
        "page Jobs, text that is nowhere, ms": "1,200, then it stops",
        "half of them removed, s": "",
        "the longest of its rounds, ms": "",
    }
    return [Row(f"store of {jobs:,} jobs: {what}", None, found[what], goal) for what, goal in goals.items()]


def text(value: float | None) -> str:
    """Return a number as the table shows it."""
    return "" if value is None else f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--jobs", type=int, default=1_000_000, help="in the store")
    options = parser.parse_args()
    rows = [*job_rows(), *startup_rows(), *process_rows(), *store_rows(options.jobs)]
    if options.json:
        print(json.dumps([row._asdict() for row in rows], indent=1))
        return
    print(f"{'CPython ' + platform.python_version():70} {'plain':>10} {'autoinst':>12}  goal")
    for row in rows:
        print(f"{row.what:70} {text(row.plain):>10} {text(row.autoinst):>12}  {row.goal}")


if __name__ == "__main__":
    main()
