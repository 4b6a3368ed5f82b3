"""Kill, damage and flood on every CPython found: kill.py [--short] [VERSION ...].

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


def commands(*, short: bool) -> dict[str, list[str]]:
    """Return what is run with each Python, by name."""
    size = 10 if short else 1
    return {
        "kill loop": ["-m", "benchmarks.kill_loop", "--workers", f"{600 // size}", "--agents", f"{200 // size}"],
        "model": ["-c", STORIES.format(stories=1000 // size, steps=80)],
        "fuzzer": ["-m", "benchmarks.fuzz_spool", "--rounds", f"{100_000 // size}"],
        "flood": ["-m", "benchmarks.flood", "--processes", f"{20_000 // size}", "--limit", f"{64 // size}M"],
    }


def main() -> int:
    """Return 0 where everything was clean on every version, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a tenth of everything")
    parser.add_argument("versions", nargs="*", default=[f"3.{minor}" for minor in range(10, 16)])
    options = parser.parse_args()
    clean = True
    for version in options.versions:
        path = pythons.find(version)
        if path is None:
            print(f"Python {version}: not on this machine, left out")
            continue
        python = str(environments.prepare(environments.VENVS / version, matrix.LOCK, path))
        for name, arguments in commands(short=options.short).items():
            began = time.monotonic()
            done = subprocess.run([python, *arguments], cwd=matrix.ROOT, capture_output=True, text=True, check=False)
            outcome = "clean" if done.returncode == 0 else f"NOT CLEAN (status {done.returncode})"
            print(f"== Python {version}, {name}: {outcome}, {time.monotonic() - began:.0f} s")
            print(done.stdout.strip() + done.stderr, flush=True)
            clean = clean and done.returncode == 0
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
