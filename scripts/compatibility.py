"""Keep what this version writes, so that later ones are tested with it: run it once the store's version has changed.

Runs tests/data/compat/program and puts its arena, its store and its jobs as JSON beside it, compressed.
"""

from __future__ import annotations

import gzip
import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from autoinst.store.schema import VERSION  # noqa: E402 - found by the line above

DATA = ROOT / "tests" / "data" / "compat"


def main() -> None:
    """Write the three files of this version."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "home")
        variables = {
            "PYTHONPATH": os.pathsep.join([str(ROOT / "sitecustomize_example"), str(ROOT)]),
            "AUTOINST_HOME": str(home),
            "AUTOINST_RULES": "rules.yaml",
            "AUTOINST_PACKS": "none",
            "AUTOINST_AGENT": "off",
        }
        environ = {name: value for name, value in os.environ.items() if not name.startswith("AUTOINST_")} | variables
        subprocess.run([sys.executable, "worker.py"], cwd=DATA / "program", env=environ, check=True)
        (arena,) = home.glob("spool/*.arena")
        keep("arena", arena.read_bytes())
        command = [sys.executable, "-m", "autoinst.cli.main", "jobs", "--json", "--limit", "0"]
        environ["AUTOINST_ENABLED"] = "0"
        keep("jsonl", subprocess.run(command, env=environ, capture_output=True, check=True).stdout)
        store = home / "store.sqlite3"
        with sqlite3.connect(store) as connection:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        keep("sqlite3", store.read_bytes())


def keep(ending: str, content: bytes) -> None:
    """Write one file."""
    path = DATA / f"store-{VERSION}.{ending}.gz"
    path.write_bytes(gzip.compress(content, mtime=0))
    print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
