"""Errors grouped by fingerprint: the same class raised along the same path through the program's own code."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import sqlite3

    from autoinst.record import ExceptionInfo, Frame

HOUR_NS = 3_600_000_000_000
FRAMES = 12  # innermost frames that count
PATH_PARTS = 3  # trailing parts of a file's path that count: the same code is deployed at different places
MAX_MESSAGE = 500
STATES = ("open", "resolved", "ignored")

_NUMBERS = re.compile(r"0x[0-9a-f]+|[0-9a-f]{8,}(?:-[0-9a-f]{4,})*|\d+", re.IGNORECASE)
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


class ErrorGroup(NamedTuple):
    """One fingerprint's errors; `total` is exact whatever became of the jobs, `last_job` a record id.

    `state` is one of STATES: a resolved one that came again is open and `reopened`.
    """

    id: int
    fingerprint: str
    class_name: str
    message: str
    action: str | None
    frames: list[list[Any]]
    total: int
    first_ns: int
    last_ns: int
    last_job: str
    state: str = "open"
    reopened: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the group as JSON; times in seconds since the epoch."""
        return {
            "fingerprint": self.fingerprint,
            "state": self.state,
            "reopened": self.reopened,
            "class": self.class_name,
            "message": self.message,
            "action": self.action,
            "total": self.total,
            "first": self.first_ns / 1e9,
            "last": self.last_ns / 1e9,
            "last_job": self.last_job,
        }


def deciding_frames(info: ExceptionInfo) -> list[Frame]:
    """Return the frames that decide the fingerprint: the program's own, else the innermost; recursion only once."""
    own = [frame for frame in info.backtrace if frame.in_app] or info.backtrace[-3:]
    found: list[Frame] = []
    seen: set[tuple[str, str]] = set()
    for frame in reversed(own):
        key = (frame.file, frame.function)
        if key not in seen:
            seen.add(key)
            found.append(frame)
    return found[:FRAMES][::-1]


def fingerprint(info: ExceptionInfo) -> bytes:
    """Return the 8-byte fingerprint of an exception. Line numbers and messages do not count, if there are frames."""
    parts = [info.class_name]
    for frame in deciding_frames(info):
        path = frame.file.replace("\\", "/").split("/")[-PATH_PARTS:]
        parts.append(_NUMBERS.sub("#", "/".join(path)) + ":" + frame.function)
    if len(parts) == 1:
        parts.append(normal_message(info.message))
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "backslashreplace"), digest_size=8).digest()


def normal_message(message: str) -> str:
    """Return `message` without what varies from one error to the next: numbers, ids, quoted values."""
    return _NUMBERS.sub("#", _QUOTED.sub("'?'", message[:MAX_MESSAGE]))


class Failures:
    """The tables `error` and `error_hour`, for one transaction after the other."""

    def __init__(self, con: sqlite3.Connection) -> None:
        """Use `con`."""
        self._con = con
        self._ids: dict[bytes, int] = {}

    def forget(self) -> None:
        """Drop what is remembered, after a rollback."""
        self._ids.clear()

    def number(self, info: ExceptionInfo, action: int, start_ns: int, job: bytes) -> int:
        """Return the id of the group of `info`, made with a count of 0 if it is new."""
        key = fingerprint(info)
        found = self._ids.get(key)
        if found is None:
            self._con.execute(
                "INSERT OR IGNORE INTO error(fingerprint, class, message, action, frames, count, first, last, last_job)"
                " VALUES(?,?,?,?,?,0,?,?,?)",
                (
                    key,
                    info.class_name,
                    info.message[:MAX_MESSAGE],
                    action,
                    json.dumps([[f.file, f.line, f.function, int(f.in_app)] for f in deciding_frames(info)]),
                    start_ns,
                    start_ns,
                    job,
                ),
            )
            found = int(self._con.execute("SELECT id FROM error WHERE fingerprint = ?", (key,)).fetchone()[0])
            self._ids[key] = found
        return found

    def count(self, rows: list[tuple[int, int, bytes, str]]) -> None:
        """Count stored errors: (group, start of the job, record id, message) each."""
        groups: dict[int, list[Any]] = {}
        hours: dict[tuple[int, int], int] = {}
        for group, start, job, message in rows:
            entry = groups.setdefault(group, [0, start, start, job, message])
            entry[0] += 1
            entry[1] = min(entry[1], start)
            if start >= entry[2]:
                entry[2:] = start, job, message
            key = (start // HOUR_NS, group)
            hours[key] = hours.get(key, 0) + 1
        self._con.executemany(
            "UPDATE error SET count = count + ?, first = min(first, ?),"
            " last_job = CASE WHEN ? >= last THEN ? ELSE last_job END,"
            " message = CASE WHEN ? >= last THEN ? ELSE message END, last = max(last, ?) WHERE id = ?",
            [
                (count, first, last, job, last, message[:MAX_MESSAGE], last, group)
                for group, (count, first, last, job, message) in groups.items()
            ],
        )
        self._con.executemany(
            "INSERT INTO error_hour(at, error, count) VALUES(?,?,?)"
            " ON CONFLICT(at, error) DO UPDATE SET count = count + excluded.count",
            [(at, group, count) for (at, group), count in hours.items()],
        )

    def uncount(self, group: int, start_ns: int) -> None:
        """Take back one error whose job turned out to have ended otherwise."""
        self._con.execute("UPDATE error SET count = count - 1 WHERE id = ?", (group,))
        self._con.execute(
            "UPDATE error_hour SET count = count - 1 WHERE at = ? AND error = ?", (start_ns // HOUR_NS, group)
        )
