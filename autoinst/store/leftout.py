"""Counts the jobs of which no record is kept, each once, whatever is offered again.

A record has a row whose id keeps it from being stored twice. These have none: so the ids of those whose slots may not
be free yet are kept by arena, in the transaction that counts them, for a leader that comes after one that was killed
between the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoinst.store import unsent
from autoinst.store.records import KILLED, STATUS_NUMBERS, queue_ns

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from autoinst.record import Record
    from autoinst.store.insert import Inserter
    from autoinst.store.records import Names

ID_BYTES = 8  # low half of a record id: the job within its arena


class LeftOut:
    """The table `left_out`, within the transaction in progress."""

    def __init__(self, con: sqlite3.Connection, names: Names, inserter: Inserter) -> None:
        """Use `con`, share its `names`, and count in the rollups of `inserter`."""
        self._con = con
        self._names = names
        self._inserter = inserter

    def count(self, arena_uid: bytes, records: Sequence[Record], now_ns: int, *, freed: bool) -> int:
        """Count `records` of one arena; see Store.count_left_out."""
        known = self._known(arena_uid)
        offered = {bytes.fromhex(record.id)[ID_BYTES:]: record for record in records}
        new = {key: record for key, record in offered.items() if key not in known}
        self._replace_killed(list(new.values()))
        for record in new.values():
            self._count(record)
        kept = offered.keys() if freed else offered.keys() | known
        if kept != known:
            self._con.execute(
                "INSERT OR REPLACE INTO left_out(arena, ids, seen) VALUES(?,?,?)", (arena_uid, b"".join(kept), now_ns)
            )
        return len(new)

    def _known(self, arena_uid: bytes) -> set[bytes]:
        row = self._con.execute("SELECT ids FROM left_out WHERE arena = ?", (arena_uid,)).fetchone()
        ids = row[0] if row else b""
        return {ids[at : at + ID_BYTES] for at in range(0, len(ids), ID_BYTES)}

    def _count(self, record: Record) -> None:
        self._inserter.rollups.add(
            STATUS_NUMBERS[record.status],
            record.started_ns,
            record.duration_ns,
            queue_ns(record),
            self._names.number(record.action),
            self._names.number(record.queue),
            self._inserter.revision,
            left_out=True,
        )

    def _replace_killed(self, records: list[Record]) -> None:
        """Take back what was said to be killed and has ended well: its owner only seemed to be dead."""
        if not records:
            return
        starts = [record.started_ns for record in records]
        rows = self._con.execute(
            "SELECT id, n, status, start, action, queue, error FROM job"
            " WHERE status = ? AND status <> 1 AND start BETWEEN ? AND ?",
            (KILLED, min(starts), max(starts)),
        ).fetchall()
        ids = {bytes.fromhex(record.id) for record in records} if rows else ()
        gone = [row for row in rows if row[0] in ids]
        for row in gone:
            self._inserter.remove(*row[1:])
        unsent.note_gone(self._con, [(row[0], row[3]) for row in gone])
