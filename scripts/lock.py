"""Renew requirements/: every tool's version and hashes, and no index address.

`uv` does the resolving; it is taken from PATH or installed for this run only.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import environments

ROOT = Path(__file__).resolve().parent.parent
GROUPS = ("test", "dev")
OPTIONS = (
    "--quiet",
    "--universal",
    "--generate-hashes",
    "--no-emit-index-url",
    "--no-annotate",
    "--no-header",
)


def main() -> None:
    """Write one lock for each dependency group; `lock.py NAME` only that of environment NAME."""
    wanted = {}
    for name in sys.argv[1:] or [*environments.names(), *GROUPS]:
        own = name in GROUPS
        wanted[name if own or name.startswith(environments.PEER) else f"library-{name}"] = (
            ROOT / "requirements" / f"{name}.txt" if own else environments.lock_of(name)
        )
    with tempfile.TemporaryDirectory() as folder:
        uv = shutil.which("uv") or install_uv(Path(folder))
        for group, lock in wanted.items():
            lock.parent.mkdir(parents=True, exist_ok=True)
            python = environments.PYTHONS.get(group.removeprefix("library-"), "3.10")
            options = (*OPTIONS, f"--python-version={python}", "--upgrade", "--group", group, "-o", str(lock))
            command = [uv, "pip", "compile", *options]
            if group in GROUPS:  # their environments have autoinst without its dependencies; the libraries' name them
                command.append("pyproject.toml")
            subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)


def install_uv(folder: Path) -> str:
    """Install uv in a virtual environment in `folder` and return the program's path."""
    venv.create(folder / "uv", with_pip=True)
    bin_folder = folder / "uv" / "bin"
    subprocess.run([bin_folder / "python", "-m", "pip", "install", "-qq", "uv"], check=True)
    return str(bin_folder / "uv")


if __name__ == "__main__":
    main()
