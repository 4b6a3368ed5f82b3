"""The programs that `autoinst run` started: while one lives the agent stays, though no job may have come yet."""

from __future__ import annotations

import os
import time

from autoinst.config import make_folder
from autoinst.spool import process

FOLDER_NAME = "runs"
FORGET_SECONDS = 86_400  # when the mark of a process that cannot be judged from here is removed


def announce(home: str) -> None:
    """Say that this process is about to become a program under autoinst; raises HomeError, OSError."""
    folder = make_folder(os.path.join(home, FOLDER_NAME))
    pid = os.getpid()
    name = f"{pid}-{process.start_time(pid)}-{process.pid_namespace()}"
    os.close(os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))


def living(home: str) -> list[int]:
    """Return the pids of announced programs that live; the marks of dead ones are removed."""
    folder = os.path.join(home, FOLDER_NAME)
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    found = []
    for name in names:
        pid, start, namespace = _numbers(name)
        here = namespace == process.pid_namespace()
        if here and _lives(pid, start):
            found.append(pid)
        elif here or _is_old(os.path.join(folder, name)):
            try:
                os.unlink(os.path.join(folder, name))
            except OSError:  # a folder, or removed by another: nothing of ours
                continue
    return found


def _numbers(name: str) -> tuple[int, int, int]:
    parts = name.split("-")
    if len(parts) == 3 and all(part.isascii() and part.isdigit() for part in parts):  # noqa: PLR2004 - as announced
        return int(parts[0]), int(parts[1]), int(parts[2])
    return -1, -1, -1


def _lives(pid: int, start: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb", 0) as file:
            fields = file.read(4096).rsplit(b")", 1)[1].split()
    except (OSError, IndexError):
        return False
    return fields[0] not in b"ZXx" and int(fields[19]) == start


def _is_old(path: str) -> bool:
    try:
        return time.time() - os.lstat(path).st_mtime > FORGET_SECONDS
    except OSError:
        return False
