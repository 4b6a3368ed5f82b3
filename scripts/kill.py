"""Kill, damage and flood on every CPython found: kill.py [--part N] [VERSION ...].

For each version, in the virtual environment that matrix.py uses: the kill loop (600 workers with three threads, 200
drains), long stories of the arena's model, the fuzzer, and a flood of forked processes that nobody reads from. Prints
each one's figures; ends with status 1 where anything was lost, doubled or damaged.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import environments
import matrix
import pythons

STORIES = "from tests.test_spool_model import tell; tell({stories}, {steps}); print('{stories} stories, clean')"


def commands(part: int) -> dict[str, list[str]]:
    """Return what is run with each Python, by name: a `part`-th of the whole length."""
    return {
        "kill loop": ["-m", "benchmarks.kill_loop", "--workers", f"{600 // part}", "--agents", f"{200 // part}"],
        "model": ["-c", STORIES.format(stories=1000 // part, steps=80)],
        "fuzzer": ["-m", "benchmarks.fuzz_spool", "--rounds", f"{100_000 // part}"],
        "flood": ["-m", "benchmarks.flood", "--processes", f"{20_000 // part}", "--limit", f"{64 // part}M"],
    }


def main() -> int:
    """Return 0 where everything was clean on every version, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", type=int, default=1, metavar="N", help="an Nth of everything")
    parser.add_argument("versions", nargs="*", default=[f"3.{minor}" for minor in range(10, 16)])
    options = parser.parse_args()
    clean = True
    for version in options.versions:
        path = pythons.find(version)
        if path is None:
            print(f"Python {version}: not on this machine, left out")
            continue
        python = str(environments.prepare(environments.VENVS / version, matrix.LOCK, path))
        for name, arguments in commands(options.part).items():
            began = time.monotonic()
            done = subprocess.run([python, *arguments], cwd=matrix.ROOT, capture_output=True, text=True, check=False)
            outcome = "clean" if done.returncode == 0 else f"NOT CLEAN (status {done.returncode})"
            print(f"== Python {version}, {name}: {outcome}, {time.monotonic() - began:.0f} s")
            print(done.stdout.strip() + done.stderr, flush=True)
            clean = clean and done.returncode == 0
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
