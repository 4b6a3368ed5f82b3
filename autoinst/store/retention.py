"""What the store forgets: jobs that are too old or too many. Totals by the hour and samples of errors stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from autoinst.store.rollups import HOUR_MINUTES, LEVELS, MINUTE_NS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection
    from contextlib import AbstractContextManager

DAY_NS = 86_400_000_000_000
SAMPLES = 5
STATUSES = 200  # processes that ended last whose rule statuses stay
BATCH = 5_000  # jobs removed in one transaction, so that a reader or the drain waits for a moment only
VACUUM_PAGES = 2_000  # given back to the file system at a time
HOUR_NS = MINUTE_NS * HOUR_MINUTES


@dataclass(frozen=True)
class Limits:
    """How much is kept: jobs of so many days, a store of that size, totals by the hour of so many days; None: no limit.

    `samples` are the newest jobs of each error that stay however old they are.
    """

    days: float | None = 30.0
    max_bytes: int | None = 2 * 1024**3
    rollup_days: float | None = None
    samples: int = SAMPLES


class Forgotten(NamedTuple):
    """How many jobs were removed, and whether there are more to remove at once."""

    jobs: int
    more: bool


class Retention:
    """Removes from the tables, in transactions of its own."""

    def __init__(self, con: sqlite3.Connection, transaction: Callable[[], AbstractContextManager[None]]) -> None:
        """Use `con`; `transaction` opens one."""
        self._con = con
        self._transaction = transaction

    def apply(self, limits: Limits, now_ns: int, arenas: Collection[bytes], batches: int) -> Forgotten:
        """Remove what is beyond `limits` at `now_ns` (ns since the epoch), at most `batches` times BATCH jobs.

        `arenas` are the uids of the arenas in the spool, whose counts have to be known still.
        """
        cutoff = None if limits.days is None else max(now_ns - int(limits.days * DAY_NS), 0)
        removed = 0
        for _ in range(batches):
            count = self._by_age(cutoff, limits.samples) if cutoff is not None else 0
            if not count and limits.max_bytes is not None and self._used() > limits.max_bytes:
                count = self._oldest(limits.samples) or self._oldest(0)
            removed += count
            if not count:
                break
        else:
            return Forgotten(removed, more=True)
        self._around(cutoff, now_ns, arenas)
        self._rollups(limits, now_ns)
        return Forgotten(removed, more=self._shrink(batches))

    def _by_age(self, cutoff: int, samples: int) -> int:
        with self._transaction():
            self._note_samples(samples)
            return self._con.execute(
                "DELETE FROM job WHERE n IN (SELECT n FROM job WHERE start < ? AND n NOT IN (SELECT n FROM temp.sample)"
                " ORDER BY start LIMIT ?)",
                (cutoff, BATCH),
            ).rowcount

    def _oldest(self, samples: int) -> int:
        with self._transaction():
            self._note_samples(samples)
            kept = "WHERE n NOT IN (SELECT n FROM temp.sample)" if samples else ""
            return self._con.execute(
                f"DELETE FROM job WHERE n IN (SELECT n FROM job {kept} ORDER BY start LIMIT ?)",  # noqa: S608
                (BATCH,),
            ).rowcount

    def _note_samples(self, samples: int) -> None:
        self._con.execute("CREATE TEMP TABLE IF NOT EXISTS sample(n INTEGER PRIMARY KEY)")
        self._con.execute("DELETE FROM temp.sample")
        # A walk down the index for each error, not over all that failed.
        self._con.execute(
            "INSERT INTO temp.sample SELECT job.n FROM error, job WHERE job.n IN"
            " (SELECT n FROM job j WHERE j.error = error.id ORDER BY j.start DESC LIMIT ?)",
            (samples,),
        )

    def _around(self, cutoff: int | None, now_ns: int, arenas: Collection[bytes]) -> None:
        """Remove what belongs to no job that is kept; what a living arena has counted stays known."""
        con = self._con
        with self._transaction():
            con.execute(
                "UPDATE process SET status = NULL WHERE status IS NOT NULL AND ended IS NOT NULL"
                " AND id NOT IN (SELECT id FROM process WHERE status IS NOT NULL AND ended IS NOT NULL"
                " ORDER BY ended DESC LIMIT ?)",
                (STATUSES,),
            )
            gone = [
                row
                for row in con.execute("SELECT arena, max(seen) FROM overflow GROUP BY arena")
                if row[0] not in arenas and row[1] < now_ns - DAY_NS
            ]
            con.executemany("DELETE FROM overflow WHERE arena = ?", [(row[0],) for row in gone])
            left = con.execute("SELECT arena FROM left_out WHERE seen < ?", (now_ns - DAY_NS,)).fetchall()
            con.executemany("DELETE FROM left_out WHERE arena = ?", [row for row in left if row[0] not in arenas])
            if cutoff is None:
                return
            self._forget_totals(cutoff // HOUR_NS)
            con.execute("DELETE FROM problem WHERE last < ?", (cutoff,))
            con.execute(
                "DELETE FROM process WHERE ended < ? AND id NOT IN (SELECT process FROM job WHERE start < ?)",
                (cutoff, cutoff),
            )
            con.execute(
                "DELETE FROM description WHERE id NOT IN"
                " (SELECT description FROM process WHERE description IS NOT NULL)"
            )

    def _rollups(self, limits: Limits, now_ns: int) -> None:
        """Remove totals by the hour that are too old."""
        if limits.rollup_days is not None:
            hour = max(now_ns - int(limits.rollup_days * DAY_NS), 0) // HOUR_NS
            with self._transaction():
                for table in ("hour", "error_hour", "release_hour"):
                    self._con.execute(f"DELETE FROM {table} WHERE at < ?", (hour,))  # noqa: S608
                self._con.execute("DELETE FROM overall WHERE minutes = ? AND at < ?", (HOUR_MINUTES, hour))

    def _forget_totals(self, hour: int) -> None:
        """Remove the totals before `hour` (hours since the epoch) that are finer than hours."""
        for table, minutes in LEVELS.items():
            if minutes < HOUR_MINUTES:
                at = hour * HOUR_MINUTES // minutes
                self._con.execute(f"DELETE FROM {table} WHERE at < ?", (at,))  # noqa: S608
                self._con.execute("DELETE FROM overall WHERE minutes = ? AND at < ?", (minutes, at))
        self._con.execute("DELETE FROM event_hour WHERE at < ?", (hour,))
        self._con.execute("DELETE FROM statement WHERE id NOT IN (SELECT statement FROM event_hour)")

    def _used(self) -> int:
        pages, free, size = (
            self._con.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def _shrink(self, steps: int) -> bool:
        """Give free pages back to the file system, in so many steps at most; return whether there are more."""
        before = free = self._free_pages()
        for _ in range(min(steps, -(-free // VACUUM_PAGES))):
            # It makes a row without columns for each page, of which `execute` would take only the first.
            self._con.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")
        if before:
            free = self._free_pages()
            self._con.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        return 0 < free < before

    def _free_pages(self) -> int:
        return int(self._con.execute("PRAGMA freelist_count").fetchone()[0])
