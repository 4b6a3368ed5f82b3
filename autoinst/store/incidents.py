"""Errors by fingerprint as people deal with them: open, resolved until they come again, or ignored."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from autoinst.store.failures import HOUR_NS, STATES, ErrorGroup

if TYPE_CHECKING:
    import sqlite3

    from autoinst.store.records import Names

_STATE = "CASE WHEN i.state IS NULL OR i.state = 'resolved' AND e.last > i.changed THEN 'open' ELSE i.state END"
_COLUMNS = "e.id, e.fingerprint, e.class, e.message, e.action, e.frames, e.count, e.first, e.last, e.last_job"
_SELECT = f"SELECT {_COLUMNS}, {_STATE} AS now, i.state FROM error e LEFT JOIN incident i ON i.error = e.id"  # noqa: S608


def errors(
    con: sqlite3.Connection, names: Names, *, since_ns: int | None, limit: int, state: str | None = None
) -> list[ErrorGroup]:
    """Return error groups (of one of STATES, or all), the latest first."""
    rows = con.execute(
        f"{_SELECT} WHERE e.count > 0 AND e.last >= ? AND (? IS NULL OR now = ?) ORDER BY e.last DESC LIMIT ?",
        (since_ns or 0, state, state, limit if limit > 0 else -1),
    )
    return [_group(row, names) for row in rows]


def error(con: sqlite3.Connection, names: Names, fingerprint: str) -> ErrorGroup | None:
    """Return the group with a fingerprint of 16 hexadecimal digits, None where there is none."""
    try:
        key = bytes.fromhex(fingerprint)
    except ValueError:
        return None
    row = con.execute(f"{_SELECT} WHERE e.fingerprint = ?", (key,)).fetchone()
    return None if row is None else _group(row, names)


def states(con: sqlite3.Connection, since_ns: int) -> dict[str, int]:
    """Return how many groups seen since then are in each of STATES."""
    found = dict.fromkeys(STATES, 0)
    found.update(
        con.execute(
            f"SELECT {_STATE}, count(*) FROM error e LEFT JOIN incident i ON i.error = e.id"  # noqa: S608
            " WHERE e.count > 0 AND e.last >= ? GROUP BY 1",
            (since_ns,),
        )
    )
    return found


def set_state(con: sqlite3.Connection, group: ErrorGroup, state: str, now_ns: int) -> None:
    """Put a group into one of STATES, within the transaction in progress; raises ValueError for another."""
    if state not in STATES:
        raise ValueError(f"{state!r} is none of {', '.join(STATES)}")
    con.execute("DELETE FROM incident WHERE error = ?", (group.id,))
    if state != "open":
        con.execute(
            "INSERT INTO incident(error, state, changed, count) VALUES(?,?,?,?)",
            (group.id, state, now_ns, group.total),
        )


def error_hours(con: sqlite3.Connection, since_ns: int, group: int | None = None) -> dict[int, dict[int, int]]:
    """Return by id of the group how often it occurred, by start of the hour; of one group or of all."""
    out: dict[int, dict[int, int]] = {}
    for at, error_id, count in con.execute(
        "SELECT at, error, count FROM error_hour WHERE at >= ? AND (? IS NULL OR error = ?) AND count > 0 ORDER BY at",
        (since_ns // HOUR_NS, group, group),
    ):
        out.setdefault(error_id, {})[at * HOUR_NS] = count
    return out


def _group(row: Any, names: Names) -> ErrorGroup:
    return ErrorGroup(
        row[0],
        row[1].hex(),
        row[2],
        row[3],
        names.text(row[4]),
        json.loads(row[5]),
        row[6],
        row[7],
        row[8],
        row[9].hex(),
        row[10],
        row[10] == "open" and row[11] is not None,
    )
