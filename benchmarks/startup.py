"""What autoinst adds to the start of a process: `python -m benchmarks.startup [--rounds N]`.

Each form is run in turn, round after round, so that a busy machine burdens all alike; medians over plain Python.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BOOT = ROOT / "sitecustomize_example"
SCRIPT = "import tasks\ntasks.send(1)\n"
TASKS = "def send(n):\n    return n\n"
RULES = "version: 1\njobs:\n  - function: tasks.send\n"


def forms(folder: Path) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Return the commands to compare, with their environments."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("AUTOINST_", "PYTHON"))}
    bare["AUTOINST_AGENT"] = "off"
    home = bare | {"AUTOINST_HOME": str(folder / "home"), "PYTHONPATH": str(BOOT)}
    rules = {"AUTOINST_RULES": str(folder / "rules.yaml")}
    script = [sys.executable, "worker.py"]
    autoinst = [str(Path(sys.executable).with_name("autoinst")), "run", "worker.py"]
    return {
        "plain": (script, bare),
        "sitecustomize, AUTOINST_ENABLED=0": (script, home | {"AUTOINST_ENABLED": "0"}),
        "sitecustomize, default packs, no match": (script, home),
        "sitecustomize, default packs, one job": (script, home | rules),
        "the same, home that cannot be written": (script, home | rules | {"AUTOINST_HOME": "/proc/autoinst"}),
        "the same, cold rule cache": (script, home | rules | {"AUTOINST_HOME": str(folder / "cold")}),
        "autoinst run, one job": (autoinst, home | rules | {"PYTHONPATH": ""}),
    }


def run(command: list[str], environ: dict[str, str], folder: Path) -> tuple[float, float]:
    """Return wall time and CPU time of one run in ms."""
    subprocess.run(["rm", "-rf", str(folder / "cold")], check=True)
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environ, cwd=folder, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return (time.perf_counter() - started) * 1e3, (usage.ru_utime + usage.ru_stime) * 1e3


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--json", action="store_true", help="medians of wall and CPU time in ms, as JSON")
    options = parser.parse_args()
    rounds = options.rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "worker.py").write_text(SCRIPT)
        (folder / "tasks.py").write_text(TASKS)
        (folder / "rules.yaml").write_text(RULES)
        found: dict[str, list[tuple[float, float]]] = {}
        for turn in range(rounds + 2):
            for form, (command, environ) in forms(folder).items():
                figures = run(command, environ, folder)
                if turn > 1:  # caches are warm by then
                    found.setdefault(form, []).append(figures)
    medians = {form: [statistics.median(column) for column in zip(*rows, strict=True)] for form, rows in found.items()}
    if options.json:
        print(json.dumps(medians))
        return
    print(f"{'CPython ' + sys.version.split()[0]:44} {'wall ms':>9} {'CPU ms':>8} {'added CPU ms':>13}")
    for form, (wall, cpu) in medians.items():
        print(f"{form:44} {wall:9.2f} {cpu:8.2f} {cpu - medians['plain'][1]:13.2f}")


if __name__ == "__main__":
    main()
