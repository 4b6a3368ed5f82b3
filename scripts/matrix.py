"""Run the core tests on other CPythons: matrix.py 3.10 3.11 ...

Each version gets a virtual environment in .venvs/ (kept, and made anew when its lock changes) and runs the tests
that are not marked `once`. Versions that are not on this machine are named and left out; the one of .venv has run
everything already.
"""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
import sys
import time
from pathlib import Path

import environments
import pythons
import unsteady

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "test.txt"


def main() -> int:
    """Return 0 when the core tests passed on every version found, else 1."""
    own = "{}.{}".format(*sys.version_info[:2])
    found: dict[str, str] = {}
    for version in sys.argv[1:]:
        path = pythons.find(version)
        if path is None:
            print(f"Python {version}: not on this machine, left out")
        elif version != own:
            found[version] = path
    # One more than there are cores: for much of their time tests wait for processes to start and to end.
    at_once = max(1, min(len(found), (os.cpu_count() or 1) + 1))
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        results = list(pool.map(run, found, found.values()))
    return 0 if all(results) else 1


def run(version: str, path: str) -> bool:
    """Run the core tests on one version and print their outcome; the whole output only where they failed."""
    start = time.monotonic()
    try:
        python = str(environments.prepare(environments.VENVS / version, LOCK, path))
    except subprocess.CalledProcessError as error:
        print(f"Python {version}: no virtual environment\n{error.output}{error.stderr}", flush=True)
        return False
    said: list[str] = []
    status, summary = unsteady.run(python, ["-q", "-m", "not once"], said.append)
    if status or summary:
        print(f"Python {version}:\n{''.join(said)}", flush=True)
    last = summary or (said or [""])[-1].strip()
    print(f"Python {version}: {last} ({time.monotonic() - start:.0f} s in all)", flush=True)
    return status == 0


if __name__ == "__main__":
    sys.exit(main())
