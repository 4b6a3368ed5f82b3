"""The jobs in flight: what the arenas of living processes say at this moment. Nothing is changed by looking."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from autoinst.config import SPOOL_NAME
from autoinst.errors import SpoolError
from autoinst.spool.owner import ARENA_NAME, Judge, Life, is_own
from autoinst.spool.reader import Arena

if TYPE_CHECKING:
    from collections.abc import Iterator

    from autoinst.record import Record
    from autoinst.spool.owner import Machine


def running(home: str, machine: Machine | None = None) -> list[Record]:
    """Return the jobs in flight, newest first, of all processes that are not known to be dead; changes nothing."""
    out: list[Record] = []
    judge = Judge(machine)
    for arena in _readable(os.path.join(home, SPOOL_NAME)):
        try:
            if judge.judge(arena).life is not Life.DEAD:
                for flight in arena.running():
                    flight.record.status = "running"
                    flight.record.duration_ns = None
                    out.append(flight.record)
        finally:
            arena.close()
    out.sort(key=lambda record: record.started_ns, reverse=True)
    return out


def _readable(spool: str) -> Iterator[Arena]:
    try:
        names = sorted(os.listdir(spool))
        owner = os.stat(spool).st_uid
    except OSError:
        return
    for name in names:
        path = os.path.join(spool, name)
        if ARENA_NAME.fullmatch(name) and not is_own(path):
            with contextlib.suppress(SpoolError):
                yield Arena.open(path, owner=owner)
