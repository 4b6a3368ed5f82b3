"""What people are to be told of (new errors, killed jobs and their like), in the order it was found out.

`notice.n` only grows, so that a webhook's cursor is one number. `error_told` says under which revisions an error was
known, or told of, and when the job of that began.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from autoinst.record import INT64_MAX
from autoinst.store.records import FLAG_IMPORTED, KILLED, STATUS_NUMBERS

if TYPE_CHECKING:
    import sqlite3

    from autoinst.store.records import Names

DAY_NS = 86_400 * 10**9
KEPT_DAYS = 30
ERROR = STATUS_NUMBERS["error"]


class Notice(NamedTuple):
    """One thing to tell: `subject` is what it is about, within its kind; `data` plain values."""

    n: int
    kind: str
    subject: str
    at_ns: int
    data: dict[str, Any]


class Trouble(NamedTuple):
    """A job that may be worth telling of; `fingerprint` and `state` are those of its error, `revision` is a number."""

    n: int
    id: str
    is_killed: bool
    started_ns: int
    queue_ns: int | None
    action: str | None
    queue: str | None
    fingerprint: bytes | None
    state: str | None
    changed_ns: int | None
    revision: int


def after(con: sqlite3.Connection, n: int, limit: int, upto: int = INT64_MAX) -> list[Notice]:
    """Return up to `limit` notices after cursor `n` up to `upto`; -1: all of them."""
    rows = con.execute(
        "SELECT n, kind, subject, at, data FROM notice WHERE n > ? AND n <= ? ORDER BY n LIMIT ?", (n, upto, limit)
    )
    return [_notice(row) for row in rows]


def _notice(row: Any) -> Notice:
    n, kind, subject, at, data = row
    return Notice(n, kind, subject, at, json.loads(data))


def last(con: sqlite3.Connection) -> int:
    """Return the cursor of the last notice, 0 where there has been none."""
    found = con.execute("SELECT seq FROM sqlite_sequence WHERE name = 'notice'").fetchone()
    return int(found[0]) if found else 0


def latest(con: sqlite3.Connection, kind: str, subject: str) -> Notice | None:
    """Return what was told of a subject last."""
    row = con.execute(
        "SELECT n, kind, subject, at, data FROM notice WHERE kind = ? AND subject = ? ORDER BY n DESC LIMIT 1",
        (kind, subject),
    ).fetchone()
    return None if row is None else _notice(row)


def troubles(
    con: sqlite3.Connection, names: Names, n: int, upto: int, queue_ns: int | None, limit: int
) -> list[Trouble]:
    """Return up to `limit` jobs after cursor `n` up to `upto` that failed, were killed, or waited longer than that.

    Not those that were recorded elsewhere and imported.
    """
    rows = con.execute(
        "SELECT j.n, j.id, j.status, j.start, j.queue_time, j.action, j.queue, e.fingerprint, i.state, i.changed,"
        " coalesce(p.revision, 0) FROM job j LEFT JOIN error e ON e.id = j.error"
        " LEFT JOIN incident i ON i.error = j.error LEFT JOIN process p ON p.id = j.process"
        " WHERE j.n > ? AND j.n <= ? AND j.flags & ? = 0 AND (j.status = ? OR j.status = ? OR j.queue_time > ?)"
        " ORDER BY j.n LIMIT ?",
        (n, upto, FLAG_IMPORTED, ERROR, KILLED, INT64_MAX if queue_ns is None else queue_ns, limit),
    )
    return [
        Trouble(
            *(row[0], row[1].hex(), row[2] == KILLED, row[3], row[4], names.text(row[5]), names.text(row[6])),
            *(row[7] if row[2] == ERROR else None, *row[8:]),
        )
        for row in rows
    ]


def told(con: sqlite3.Connection, fingerprint: bytes) -> dict[int, int]:
    """Return by number of the revision when the job began by which an error was known under it."""
    return dict(con.execute("SELECT revision, at FROM error_told WHERE fingerprint = ?", (fingerprint,)))


# -- within a transaction ----------------------------------------------------------------------------------------


def begin(con: sqlite3.Connection) -> None:
    """Take all errors there are for known, under the revisions they have jobs of."""
    con.execute("INSERT OR IGNORE INTO error_told SELECT fingerprint, 0, last FROM error")
    con.execute(
        "INSERT OR IGNORE INTO error_told SELECT e.fingerprint, p.revision, max(j.start) FROM job j"
        " JOIN error e ON e.id = j.error JOIN process p ON p.id = j.process GROUP BY e.fingerprint, p.revision"
    )


def mark_told(con: sqlite3.Connection, fingerprint: bytes, revision: int, at_ns: int) -> None:
    """Note that an error was told of under a revision."""
    con.execute("INSERT OR REPLACE INTO error_told VALUES(?,?,?)", (fingerprint, revision, at_ns))


def add(con: sqlite3.Connection, kind: str, subject: str, at_ns: int, data: dict[str, Any]) -> None:
    """Add a notice."""
    text = json.dumps(data)
    con.execute("INSERT INTO notice(kind, subject, at, data) VALUES(?,?,?,?)", (kind, subject, at_ns, text))


def forget(con: sqlite3.Connection, now_ns: int) -> None:
    """Remove notices that are a month old, told or not."""
    con.execute("DELETE FROM notice WHERE at < ?", (now_ns - KEPT_DAYS * DAY_NS,))
