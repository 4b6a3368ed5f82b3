"""What of the store's totals, errors and processes has changed since it was sent to the store past one machine.

Triggers note it, whoever writes: they are made when this store first sends, and cost nothing before. A row of `unsent`
names a row that changed; its number `seq` grows with each change and is the version of what is sent. What is sent is
the row as it is then, whole, so that sending it again changes nothing.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, NamedTuple

from autoinst.store.rollups import LEVELS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence

# Table -> the columns of its key that a row of `unsent` has; 0 stands for those it lacks.
KEYS = {
    "minute": ("at", "action", "queue"),
    "ten": ("at", "action", "queue"),
    "hour": ("at", "action", "queue"),
    "overall": ("minutes", "at"),
    "release_hour": ("at", "revision", "action"),
    "event_hour": ("at", "action", "statement"),
    "error_hour": ("at", "error"),
    "error": ("id",),
    "process": ("id",),
    "deploy": ("revision", "service"),
}
OVERALL = "overall"  # has spans of several lengths, which are removed each by itself
TIMED = tuple(table for table, keys in KEYS.items() if keys[0] == "at")
JOB, GONE = "job", "gone"  # a job whose number of the run was found later; one that is no longer kept (start, id)
_TABLES = """
CREATE TABLE IF NOT EXISTS sender(home INTEGER NOT NULL, destination TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS unsent(
  seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, a, b, c, UNIQUE(kind, a, b, c));
CREATE TABLE IF NOT EXISTS removed(kind TEXT PRIMARY KEY, at INTEGER NOT NULL, times INTEGER NOT NULL) WITHOUT ROWID
"""
# Deleted first: the conflict clause of the statement that fires a trigger would win over one in here.
_NOTE = "DELETE FROM unsent WHERE kind = '{kind}' AND a = {a} AND b = {b} AND c = {c};"
_ADD = "INSERT INTO unsent(kind, a, b, c) VALUES('{kind}', {a}, {b}, {c});"
_REMOVED = (
    "INSERT INTO removed(kind, at, times) VALUES({removed}, old.at, 1)"
    " ON CONFLICT(kind) DO UPDATE SET at = max(at, excluded.at), times = times + 1;"
)
_TRIGGER = "CREATE TRIGGER IF NOT EXISTS unsent_{kind}_{name} AFTER {event} ON {kind} BEGIN {body} END"


class Sender(NamedTuple):
    """Who sends: a random number of 63 bits for this store, and what tells where to."""

    home: int
    destination: str


class Change(NamedTuple):
    """A row that changed: its table, or JOB or GONE, and its key."""

    seq: int
    kind: str
    key: tuple[int, ...]

    def generation(self, removed: Mapping[str, tuple[int, int]]) -> int:
        """Return 0, or how often (see `generations`) rows of its time had been removed when it was made anew."""
        if self.kind == OVERALL:
            kind, at = f"{OVERALL}{self.key[0]}", self.key[1]
        elif self.kind in TIMED:
            kind, at = self.kind, self.key[0]
        else:
            return 0
        last, times = removed.get(kind, (-1, 0))
        return times if at <= last else 0


def sender(con: sqlite3.Connection) -> Sender | None:
    """Return who sends, None where this store has never sent anything."""
    if not _exists(con):
        return None
    row = con.execute("SELECT home, destination FROM sender").fetchone()
    return None if row is None else Sender(*row)


def begin(con: sqlite3.Connection, destination: str) -> Sender:
    """Begin to note changes for `destination`, within the transaction in progress; all there is counts as changed."""
    for statement in _TABLES.split(";"):
        con.execute(statement)
    found = sender(con)
    known = _noted(con)
    for statement in _triggers():
        con.execute(statement)
    if found is not None and found.destination == destination:
        for table in KEYS.keys() - known:  # sent since this version of autoinst
            _note_all(con, table)
        return found
    home = secrets.randbits(63) if found is None else found.home
    con.execute("DELETE FROM sender")
    con.execute("INSERT INTO sender(home, destination) VALUES(?,?)", (home, destination))
    con.execute("DELETE FROM unsent")
    for table in KEYS:
        _note_all(con, table)
    return Sender(home, destination)


def _noted(con: sqlite3.Connection) -> set[str]:
    """Return the tables whose changes are noted; those of all levels have been removed as each level has."""
    names = {row[0] for row in con.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")}
    known = {table for table in KEYS if f"unsent_{table}_insert" in names}
    if OVERALL not in known:
        for table, minutes in LEVELS.items():
            con.execute(
                "INSERT OR IGNORE INTO removed(kind, at, times) SELECT ?, at, times FROM removed WHERE kind = ?",
                (f"{OVERALL}{minutes}", table),
            )
    return known


def _note_all(con: sqlite3.Connection, table: str) -> None:
    columns = ", ".join([*KEYS[table], "0", "0"][:3])
    con.execute(f"INSERT INTO unsent(kind, a, b, c) SELECT '{table}', {columns} FROM {table}")  # noqa: S608


def changes(con: sqlite3.Connection, limit: int) -> list[Change]:
    """Return what changed, the longest ago first."""
    rows = con.execute("SELECT seq, kind, a, b, c FROM unsent ORDER BY seq LIMIT ?", (limit,))
    return [Change(row[0], row[1], row[2:]) for row in rows]


def number(con: sqlite3.Connection) -> int:
    """Return how many rows have changed."""
    return int(con.execute("SELECT count(*) FROM unsent").fetchone()[0]) if _exists(con) else 0


def sent(con: sqlite3.Connection, changed: Iterable[Change]) -> None:
    """Note that these were sent; what has changed meanwhile has another number and stays."""
    con.executemany("DELETE FROM unsent WHERE seq = ?", [(change.seq,) for change in changed])


def generations(con: sqlite3.Connection) -> dict[str, tuple[int, int]]:
    """Return by table the last span that retention has removed, and which generation those made anew up to it are."""
    return {row[0]: (row[1], row[2]) for row in con.execute("SELECT kind, at, times FROM removed")}


def note_gone(con: sqlite3.Connection, ids: Sequence[tuple[bytes, int]]) -> None:
    """Note (id, start) of jobs that are no longer kept, if anything is sent."""
    if ids and _exists(con):
        half = len(ids[0][0]) // 2
        con.executemany(
            "INSERT OR REPLACE INTO unsent(kind, a, b, c) VALUES(?,?,?,?)",
            [(GONE, start, job[:half], job[half:]) for job, start in ids],
        )


def _exists(con: sqlite3.Connection) -> bool:
    return con.execute("SELECT 1 FROM sqlite_master WHERE name = 'unsent'").fetchone() is not None


def _triggers() -> list[str]:
    out = []
    for table, keys in KEYS.items():
        for event, row in (("INSERT", "new"), ("UPDATE", "new"), ("DELETE", "old")):
            a, b, c = [*(f"{row}.{key}" for key in keys), "0", "0"][:3]
            words = {"kind": table, "a": a, "b": b, "c": c, "removed": f"'{table}'"}
            body = _NOTE.format(**words)
            if event != "DELETE":
                body += _ADD.format(**words)
            elif table in TIMED:
                body += _REMOVED.format(**words)
            elif table == OVERALL:
                body += _REMOVED.format(**words | {"removed": f"'{table}' || old.minutes"})
            out.append(_TRIGGER.format(kind=table, name=event.lower(), event=event, body=body))
    body = "".join(part.format(kind=JOB, a="new.n", b="0", c="0") for part in (_NOTE, _ADD))
    out.append(_TRIGGER.format(kind="job", name="attempts", event="UPDATE OF attempts", body=body))
    return out
