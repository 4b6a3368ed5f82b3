"""What arenas have only counted: as much of it as is stored, so that the same is never added to the totals twice."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from autoinst.store import histogram

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from autoinst.spool.counted import Counted
    from autoinst.store.records import Names
    from autoinst.store.rollups import Rollups


def bring_up_to_date(
    con: sqlite3.Connection, names: Names, rollups: Rollups, arena_uid: bytes, rows: Iterable[Counted]
) -> int:
    """Add to the totals what is new in `rows`, which an arena has counted since it was made; return how many jobs.

    No number falls: one seen while its owner stores it may look smaller than it was.
    """
    now = time.time_ns()
    added = 0
    for row in rows:
        action = names.number(row.action)
        *numbers, packed = con.execute(
            "SELECT count, errors, sum, durations FROM overflow WHERE arena = ? AND action = ?", (arena_uid, action)
        ).fetchone() or (0, 0, 0, b"")
        known = histogram.unpack(packed)
        values = [max(old, new) for old, new in zip(numbers, (row.jobs, row.errors, row.sum_ns), strict=True)]
        durations = {bucket: max(jobs, known.get(bucket, 0)) for bucket, jobs in row.durations.items()}
        durations = known | durations
        if values == numbers and durations == known:
            continue
        jobs, errors, sum_ns = (new - old for old, new in zip(numbers, values, strict=True))
        fresh = {bucket: n - known.get(bucket, 0) for bucket, n in durations.items() if n > known.get(bucket, 0)}
        # The longest may have been counted before: no fresh one is longer than its bucket allows.
        longest = min(row.max_ns, histogram.end(max(fresh))) if fresh else 0
        rollups.add_counted(now, action, jobs, errors, sum_ns, longest, fresh)
        con.execute(
            "INSERT OR REPLACE INTO overflow(arena, action, count, errors, sum, durations, seen) VALUES(?,?,?,?,?,?,?)",
            (arena_uid, action, *values, histogram.pack(durations), now),
        )
        added += jobs
    return added
