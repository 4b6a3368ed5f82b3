"""AUTOINST_GROUP: a home whose group may read it, and what keeps one from being so."""

from __future__ import annotations

import contextlib
import grp
import os
import stat

from autoinst import config as configuration
from autoinst.config import SHARED_FILE, SHARED_FOLDER, SPOOL_NAME, STORE_NAME, make_private, share

FILES = ("agent.log", "agent.log.1", "drain.lock", STORE_NAME, f"{STORE_NAME}-wal", f"{STORE_NAME}-shm")


def open_home(home: str, group: str | None) -> str:
    """Make the home, and let `group` read all that is in it already; raises HomeError."""
    make_private(home)
    number = group_id(group) if group else None
    if number is not None:
        found = os.stat(home)
        if (found.st_gid, stat.S_IMODE(found.st_mode)) != (number, SHARED_FOLDER):
            _share_all(home, number)
    return home


def sharing_problem(home: str, group: str | None) -> str | None:
    """Return why `group` cannot read `home`, in words for `doctor`; None where it can, or none is asked for."""
    if not group:
        return None
    number = group_id(group)
    if number is None:
        return f"AUTOINST_GROUP: there is no group {group!r}; the home stays this user's alone"
    if os.geteuid() and number not in {os.getegid(), *os.getgroups()}:
        return f"AUTOINST_GROUP: this user is not in group {group!r} and cannot share the home with it"
    try:
        found = os.stat(home)
    except OSError:
        return None
    if (found.st_gid, stat.S_IMODE(found.st_mode)) != (number, SHARED_FOLDER):
        return f"AUTOINST_GROUP: {home} is not shared with group {group!r} yet; `autoinst agent --once` does it"
    return None


def group_id(group: str) -> int | None:
    """Return a group's number, wherever the machine keeps its groups; None where there is none."""
    found = configuration.group_id(group)
    if found is None:
        with contextlib.suppress(KeyError):
            found = grp.getgrnam(group).gr_gid
    return found


def _share_all(home: str, group: int) -> None:
    """Share the home, its files and the arenas, in the order in which a reader asks for them, backwards."""
    spool = os.path.join(home, SPOOL_NAME)
    with contextlib.suppress(OSError):
        for entry in os.scandir(spool):
            if entry.name.endswith(".arena") and entry.is_file(follow_symlinks=False):
                share(entry.path, group, SHARED_FILE)
    for name in FILES:
        path = os.path.join(home, name)
        if os.path.isfile(path) and not os.path.islink(path):
            share(path, group, SHARED_FILE)
    if os.path.isdir(spool):
        share(spool, group, SHARED_FOLDER)
    share(home, group, SHARED_FOLDER)
