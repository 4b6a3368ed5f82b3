"""What is sent of changed totals, errors and processes: rows as ClickHouse's tables have them, by table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from autoinst.store import details
from autoinst.store.clickhouse import rows as jobs
from autoinst.store.rollups import LEVELS, VALUES, cell_of
from autoinst.store.unsent import GONE, JOB, KEYS, OVERALL, changes, generations

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping

    from autoinst.store import histogram
    from autoinst.store.reader import Reader
    from autoinst.store.records import Names
    from autoinst.store.unsent import Change

    Row = dict[str, Any]

HOUR_SECONDS = 3600
EMPTY = ""


class Sending:
    """Reads what changed from an open store, of the home with that number."""

    def __init__(self, store: Reader, con: sqlite3.Connection, names: Names, home: int) -> None:
        """Read from `store`, whose connection is `con`."""
        self._store = store
        self._con = con
        self._names = names
        self._home = home
        self._makers: Mapping[str, Callable[[Change, str, int], Row | None]] = {
            OVERALL: self._overall,
            "release_hour": self._release,
            "event_hour": self._statement,
            "error_hour": self._error_hour,
            "error": self._error,
            "process": self._process,
            "deploy": self._deploy,
            JOB: self._job,
            GONE: self._gone,
        } | dict.fromkeys(LEVELS, self._total)

    def take(self, limit: int) -> tuple[list[Change], dict[str, list[Row]]]:
        """Return up to `limit` changes, and the rows they mean, by ClickHouse's table; those of rows gone have none."""
        found = changes(self._con, limit)
        removed = generations(self._con)
        out: dict[str, list[Row]] = {}
        for change in found:
            table = _TABLES.get(change.kind, change.kind)
            row = self._makers[change.kind](change, change.kind, change.generation(removed))
            if row is not None:
                out.setdefault(table, []).append(row)
        return found, out

    def _find(self, change: Change, columns: str) -> Any:
        keys = KEYS[change.kind]
        where = " AND ".join(f"{key} = ?" for key in keys)
        return self._con.execute(
            f"SELECT {columns} FROM {change.kind} WHERE {where}",
            change.key[: len(keys)],
        ).fetchone()

    def _text(self, number: int) -> str:
        return self._names.text(number) or EMPTY

    def _total(self, change: Change, table: str, generation: int) -> Row | None:
        row = self._find(change, VALUES)
        if row is None:
            return None
        minutes = LEVELS[table]
        at, action, queue = change.key
        key = {"minutes": minutes, "at": at * minutes * 60, "action": self._text(action), "queue": self._text(queue)}
        return self._own(change, generation) | key | _cell(row)

    def _overall(self, change: Change, _: str, generation: int) -> Row | None:
        row = self._find(change, VALUES)
        if row is None:
            return None
        minutes, at = change.key[:2]
        return self._own(change, generation) | {"minutes": minutes, "at": at * minutes * 60} | _cell(row)

    def _release(self, change: Change, _: str, generation: int) -> Row | None:
        row = self._find(change, VALUES)
        if row is None:
            return None
        at, revision, action = change.key
        key = {"at": at * HOUR_SECONDS, "revision": self._text(revision), "action": self._text(action)}
        return self._own(change, generation) | key | _cell(row)

    def _statement(self, change: Change, _: str, generation: int) -> Row | None:
        row = self._find(change, "jobs, count, sum, self, max, repeats, worst")
        at, action, number = change.key
        found = self._con.execute("SELECT name, text FROM statement WHERE id = ?", (number,)).fetchone()
        if row is None or found is None:
            return None
        names = ("jobs", "times", "total", "own", "longest", "repeats")
        key = {"at": at * HOUR_SECONDS, "action": self._text(action), "name": found[0], "text": found[1]}
        values = dict(zip(names, row[:-1], strict=True))
        return self._own(change, generation) | key | values | {"worst": row[-1].hex()}

    def _error_hour(self, change: Change, _: str, generation: int) -> Row | None:
        row = self._find(change, "count")
        key = self._con.execute("SELECT fingerprint FROM error WHERE id = ?", (change.key[1],)).fetchone()
        if row is None or key is None:
            return None
        fields = {"at": change.key[0] * HOUR_SECONDS, "fingerprint": int.from_bytes(key[0], "big"), "count": row[0]}
        return self._own(change, generation) | fields

    def _error(self, change: Change, *_: Any) -> Row | None:
        row = self._find(change, "fingerprint, class, message, action, frames, count, first, last, last_job")
        if row is None:
            return None
        fingerprint, class_name, message, action, frames, count, first, last, last_job = row
        return {
            "fingerprint": int.from_bytes(fingerprint, "big"),
            "home": self._home,
            "class": class_name,
            "message": message,
            "action": self._text(action),
            "frames": frames,
            "count": count,
            "first": first,
            "last": last,
            "last_job": last_job.hex(),
            "version": change.seq,
        }

    def _process(self, change: Change, *_: Any) -> Row | None:
        row = self._find(
            change,
            "uid, pid, host, service, environment, revision, description, started, first_seen, last_seen,"
            " ifnull(ended, 0), ifnull(how, ''), status",
        )
        if row is None:
            return None
        said = self._con.execute("SELECT data FROM description WHERE id = ?", (row[6],)).fetchone()
        names = ("host", "service", "environment", "revision")
        texts = {name: self._text(number) for name, number in zip(names, row[2:6], strict=True)}
        times = dict(zip(("started", "first_seen", "last_seen", "ended"), row[7:11], strict=True))
        plain = {
            "description": EMPTY if said is None else _json(said[0]),
            "status": EMPTY if row[12] is None else _json(row[12]),
        }
        own = {"uid": row[0].hex(), "home": self._home, "pid": row[1], "how": row[11], "version": change.seq}
        return own | texts | times | plain

    def _deploy(self, change: Change, *_: Any) -> Row | None:
        row = self._find(change, "first")
        revision, service, _zero = change.key
        texts = {"revision": self._text(revision), "service": self._text(service)}
        return None if row is None else {"home": self._home, **texts, "first": row[0], "version": change.seq}

    def _job(self, change: Change, *_: Any) -> Row | None:
        n = change.key[0]
        found = self._store.jobs_after(n - 1, 1, upto=n)
        return jobs.of_record(found[0][1], n, self._home) if found and found[0][1].status != "running" else None

    def _gone(self, change: Change, *_: Any) -> Row:
        start, high, low = change.key
        return jobs.gone(int.from_bytes(_bytes(high), "big"), int.from_bytes(_bytes(low), "big"), start, self._home)

    def _own(self, change: Change, generation: int) -> Row:
        return {"home": self._home, "generation": generation, "version": change.seq}


_TABLES = dict.fromkeys(LEVELS, "total") | {"release_hour": "release", "event_hour": "statement", GONE: JOB}


def _cell(values: Any) -> Row:
    cell = cell_of(values)
    return {
        "ok": cell.ok,
        "error": cell.error,
        "ignored": cell.ignored,
        "killed": cell.killed,
        "counted": cell.counted,
        "counted_errors": cell.counted_errors,
        "total": cell.sum_ns,
        "longest": cell.max_ns,
        **_histogram("duration", cell.durations),
        "queue_total": cell.queue_sum_ns,
        **_histogram("queue", cell.queue_times),
        "left_out": cell.left_out,
    }


def _histogram(name: str, of: histogram.Histogram) -> Row:
    return {f"{name}_keys": list(of), f"{name}_counts": list(of.values())}


def _json(blob: bytes) -> str:
    return json.dumps(details.unpack(blob), ensure_ascii=False, separators=(",", ":"))


def _bytes(value: Any) -> bytes:
    assert isinstance(value, bytes)
    return value
