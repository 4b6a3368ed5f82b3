"""Make the virtual environments in which tests start other people's programs.

environments.py [NAME ...]      without names all of them, several at a time

Every dependency group of pyproject.toml named `library-NAME` is one environment, `.venvs/NAME`, with autoinst in it as
a user would have installed it beside the library. What exactly is installed stands in requirements/libraries/NAME.txt,
made by `lock.py NAME`. An environment is kept, and made anew when its lock changes.

A group named `peer-NAME` is the environment of a product that `make bench-peers` compares autoinst with, without
autoinst in it; its lock is requirements/peers/NAME.txt. These are made only where they are named.
"""

from __future__ import annotations

import concurrent.futures
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pythons

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
VENVS = ROOT / ".venvs"
REQUIREMENTS = ROOT / "requirements"
PEER = "peer-"
READY = ".ready"
# Environments whose libraries need another Python than the tests'.
PYTHONS = {"django6": "3.12", "oldest-young": "3.12"}
GROUP = re.compile(r"^(?:library-|(?=peer-))([a-z0-9-]+) = \[", re.MULTILINE)


def names() -> list[str]:
    """Return the names of the environments that pyproject.toml asks for: the libraries' and the peers'."""
    return GROUP.findall((ROOT / "pyproject.toml").read_text())


def libraries() -> list[str]:
    """Return the names of the libraries' environments, which are those that the tests use."""
    return [name for name in names() if not name.startswith(PEER)]


def lock_of(name: str) -> Path:
    """Return the path of the lock of environment `name`."""
    kind = "peers" if name.startswith(PEER) else "libraries"
    return REQUIREMENTS / kind / f"{name.removeprefix(PEER)}.txt"


def prepare(folder: Path, lock: Path, interpreter: str) -> Path:
    """Return the Python of virtual environment `folder` with all of `lock`, made unless it is up to date.

    autoinst is in it, too, unless it is a peer's.
    `interpreter` is the path of the Python it is made with. Raises CalledProcessError, with output and stderr as text,
    where it cannot be made.
    """
    python = folder / "bin" / "python"
    ready = folder / READY
    project = (ROOT / "pyproject.toml").read_text().partition("[dependency-groups]")[0]  # the groups are in the locks
    sources = lock.read_bytes() + (project + interpreter).encode()
    wanted = hashlib.sha256(sources).hexdigest()
    with alone(folder):
        if not (ready.is_file() and ready.read_text() == wanted):
            shutil.rmtree(folder, ignore_errors=True)
            command = ["sh", "scripts/venv.sh", str(folder), str(lock)]
            if not folder.name.startswith(PEER):
                command.append("--editable")
            environment = os.environ | {"PYTHON": interpreter}
            subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
            ready.write_text(wanted)
    return python


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Let one process at a time make `folder`."""
    folder.parent.mkdir(exist_ok=True)
    with open(folder.parent / f".{folder.name}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def library(name: str) -> Path:
    """Return the Python of library environment `name`; see `prepare`."""
    return prepare(VENVS / name, lock_of(name), interpreter_of(name))


def interpreter_of(name: str) -> str:
    """Return the path of the Python for environment `name`: this one, unless it is too old for what goes there.

    Raises CalledProcessError where there is none.
    """
    version = PYTHONS.get(name)
    if version is None or sys.version_info[:2] >= tuple(int(part) for part in version.split(".")):
        return sys.executable
    found = pythons.find(version)
    if found is None:
        raise subprocess.CalledProcessError(1, "find", stderr=f"Python {version} is not found")
    return found


def made(name: str) -> bool:
    """Make environment `name` and say how it went; return whether it is there."""
    start = time.monotonic()
    try:
        library(name)
    except subprocess.CalledProcessError as error:
        print(f"{name}: no virtual environment\n{error.output}{error.stderr}", flush=True)
        return False
    print(f"{name}: ready ({time.monotonic() - start:.0f} s)", flush=True)
    return True


def main() -> int:
    """Return 0 when all environments asked for are there, else 1."""
    known = names()
    wanted = sys.argv[1:] or libraries()
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        print(f"no group library-{unknown[0]} in pyproject.toml; there are: {', '.join(known)}", file=sys.stderr)
        return 1
    # Downloads wait for the network and unpacking for the processor, so a few more than there are cores.
    with concurrent.futures.ThreadPoolExecutor((os.cpu_count() or 1) + 1) as pool:
        return 0 if all(list(pool.map(made, wanted))) else 1


if __name__ == "__main__":
    sys.exit(main())
