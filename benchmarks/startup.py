"""What starting a program costs: plain Python, `autoinst run`, and the sitecustomize, interleaved.

startup.py [ROUNDS]     prints the median wall time of each in ms, and its distance from plain Python's
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from autoinst.cli.run import boot_folder


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    console_script = str(Path(sys.executable).with_name("autoinst"))
    with tempfile.TemporaryDirectory() as home:
        # Compiled files are kept, as everywhere but on some build machines.
        left_out = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
        plain = {name: value for name, value in os.environ.items() if name not in left_out} | {"AUTOINST_HOME": home}
        ways: dict[str, tuple[list[str], dict[str, str]]] = {
            "python": ([sys.executable, "-c", "pass"], plain),
            "sitecustomize": ([sys.executable, "-c", "pass"], plain | {"PYTHONPATH": boot_folder()}),
            "autoinst run": ([console_script, "run", "-c", "pass"], plain),
            "autoinst run, AUTOINST_ENABLED=0": (
                [console_script, "run", "-c", "pass"],
                plain | {"AUTOINST_ENABLED": "0"},
            ),
            "python -I -S": ([sys.executable, "-I", "-S", "-c", "pass"], plain),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds + 2):
            for name, (command, environment) in ways.items():
                start = time.perf_counter()
                subprocess.run(command, env=environment, check=True)
                times[name].append(time.perf_counter() - start)
    base = statistics.median(times["python"][2:])
    for name, values in times.items():
        middle = statistics.median(values[2:])
        print(f"{name:34} {middle * 1e3:7.1f} ms   {(middle - base) * 1e3:+7.1f} ms")


if __name__ == "__main__":
    main()
