"""The processes that ran jobs: what they said of themselves, when they were seen, how they ended."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

from autoinst.record import INT64_MAX
from autoinst.store import details

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from autoinst.record import Record
    from autoinst.store.records import Names

REMEMBERED = 10_000  # processes whose texts are kept in memory
IMPORTED = "imported"  # how a process ended of which nothing but its jobs is known


class ProcessInfo(NamedTuple):
    """What an arena's header and description say of its process; times in ns since the epoch.

    `uid` are the 8 bytes that tell it from every other process.
    """

    uid: bytes
    pid: int
    started_ns: int
    description: dict[str, Any]


class Process(NamedTuple):
    """A row of the table `process`; `how` tells how it ended (None: it lives, or nothing is known)."""

    id: int
    uid: str
    pid: int
    host: str | None
    service: str | None
    environment: str | None
    revision: str | None
    description: dict[str, Any]
    started_ns: int
    first_seen_ns: int
    last_seen_ns: int
    ended_ns: int | None
    how: str | None
    status: dict[str, Any] | None


class Processes:
    """The tables `process` and `description`."""

    def __init__(self, con: sqlite3.Connection, names: Names) -> None:
        """Use `con` and share its `names`."""
        self._con = con
        self._names = names
        self._texts: dict[int, tuple[Any, ...]] = {0: (None, None, None, None, None)}

    def forget(self) -> None:
        """Drop what is remembered, after a rollback."""
        self._texts = {0: (None, None, None, None, None)}

    def enter(self, info: ProcessInfo, now_ns: int) -> int:
        """Return the row number of a process seen alive or dead at `now_ns`, adding it if it is new."""
        found = self._con.execute("SELECT id FROM process WHERE uid = ?", (info.uid,)).fetchone()
        if found is not None:
            return int(found[0])
        texts = [info.description.get(key) for key in ("host", "service", "environment", "revision")]
        numbers = [self._names.number(text if isinstance(text, str) else None) for text in texts]
        if numbers[-1] and info.started_ns:
            self._note_deploy(numbers[-1], numbers[1], info.started_ns)
        return int(
            self._con.execute(
                "INSERT INTO process(uid, pid, host, service, environment, revision, description, started, first_seen,"
                " last_seen) VALUES(?,?,?,?,?,?,?,?,?,?)",
                (
                    info.uid,
                    info.pid,
                    *numbers,
                    self._description(info.description),
                    info.started_ns,
                    min(info.started_ns, now_ns),
                    info.started_ns,
                ),
            ).lastrowid
            or 0
        )

    def enter_unknown(self, texts: tuple[Any, ...]) -> int:
        """Return the row number that stands for records of which only pid, host, service, ... are known."""
        if texts == (None, None, None, None, None):
            return 0
        uid = hashlib.blake2b(repr(texts).encode("utf-8", "backslashreplace"), digest_size=9).digest()
        pid, host, service, environment, revision = texts
        said = {"host": host, "service": service, "environment": environment, "revision": revision}
        return self.enter(ProcessInfo(uid, pid or 0, 0, said), 0)

    def enter_imported(self, texts: tuple[Any, ...], records: Sequence[Record]) -> int:
        """Return the row number of another machine's process, which lived at least as long as these of its records.

        Where one of them is known already, its process is, by whatever name it came.
        """
        known = self._of_known(texts, records)
        if known:
            return known
        number = self.enter_unknown(texts)
        if not number:
            return 0
        first = min(record.started_ns for record in records)
        last = max(record.started_ns + (record.duration_ns or 0) for record in records)
        last = min(last, INT64_MAX)
        self._con.execute(
            "UPDATE process SET started = CASE started WHEN 0 THEN ?1 ELSE min(started, ?1) END, first_seen ="
            " CASE first_seen WHEN 0 THEN ?1 ELSE min(first_seen, ?1) END, last_seen = max(last_seen, ?2),"
            " ended = max(ifnull(ended, 0), ?2), how = ifnull(how, ?3) WHERE id = ?4",
            (first, last, IMPORTED, number),
        )
        _, _, service, _, revision = texts
        if revision:
            self._note_deploy(self._names.number(revision), self._names.number(service), first)
        return number

    def _of_known(self, texts: tuple[Any, ...], records: Iterable[Record]) -> int:
        """Return the process that told of itself and ran one of `records`, 0 if there is none."""
        for record in records:
            found = self._con.execute(
                "SELECT p.id FROM job JOIN process p ON p.id = job.process WHERE job.id = ? AND p.how IS NOT ?",
                (bytes.fromhex(record.id), IMPORTED),
            ).fetchone()
            if found is not None and self.texts(found[0]) == texts:
                return int(found[0])
        return 0

    def _note_deploy(self, revision: int, service: int, started_ns: int) -> None:
        self._con.execute(
            "INSERT INTO deploy(revision, service, first) VALUES(?,?,?)"
            " ON CONFLICT DO UPDATE SET first = min(first, excluded.first)",
            (revision, service, started_ns),
        )

    def _description(self, description: dict[str, Any]) -> int:
        # Forked workers all say the same, so that 100,000 of them share one row.
        data = details.pack(description)
        key = hashlib.blake2b(data, digest_size=12).digest()
        self._con.execute("INSERT OR IGNORE INTO description(hash, data) VALUES(?,?)", (key, data))
        return int(self._con.execute("SELECT id FROM description WHERE hash = ?", (key,)).fetchone()[0])

    def seen(self, process: int, alive_ns: int) -> None:
        """Note that a process was alive at `alive_ns`."""
        self._con.execute("UPDATE process SET last_seen = max(last_seen, ?) WHERE id = ?", (alive_ns, process))

    def last_seen(self, uid: bytes) -> int | None:
        """Return when the process was last known alive."""
        found = self._con.execute("SELECT last_seen FROM process WHERE uid = ?", (uid,)).fetchone()
        return int(found[0]) if found else None

    def set_status(self, process: int, status: dict[str, Any]) -> None:
        """Keep the rule statuses a process told of."""
        self._con.execute("UPDATE process SET status = ? WHERE id = ?", (details.pack(status), process))

    def end(self, process: int, now_ns: int, how: str) -> None:
        """Note that a process was found dead at `now_ns` and how it ended; "gone" is all one knows without jobs."""
        self._con.execute(
            "UPDATE process SET ended = ifnull(ended, ?), how = ? WHERE id = ? AND (how IS NULL OR how = 'gone')",
            (now_ns, how, process),
        )

    def texts(self, process: int) -> tuple[Any, ...]:
        """Return pid, host, service, environment and revision of a process."""
        found = self._texts.get(process)
        if found is None:
            row = self._con.execute(
                "SELECT pid, host, service, environment, revision FROM process WHERE id = ?", (process,)
            ).fetchone()
            found = (row[0] or None, *(self._names.text(item) for item in row[1:])) if row else (None,) * 5
            if len(self._texts) > REMEMBERED:
                self.forget()
            self._texts[process] = found
        return found

    def list(self, *, living: bool | None = None, limit: int = 200) -> list[Process]:
        """Return processes, the last seen first; `living` chooses those that have (not) ended."""
        rows = self._con.execute(
            "SELECT p.id, uid, pid, host, service, environment, revision, d.data, started, first_seen, last_seen,"
            " ended, how, status FROM process p LEFT JOIN description d ON d.id = p.description"
            " WHERE ? IS NULL OR (p.ended IS NULL) = ? ORDER BY last_seen DESC LIMIT ?",
            (living, living, limit if limit > 0 else -1),
        )
        return [
            Process(
                row[0],
                row[1].hex(),
                row[2],
                self._names.text(row[3]),
                self._names.text(row[4]),
                self._names.text(row[5]),
                self._names.text(row[6]),
                {} if row[7] is None else details.unpack(row[7]),
                row[8],
                row[9],
                row[10],
                row[11],
                row[12],
                None if row[13] is None else details.unpack(row[13]),
            )
            for row in rows
        ]
