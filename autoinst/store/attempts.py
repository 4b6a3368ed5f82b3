"""Counts a job's runs where its library does not: RQ lowers `retries_left` and keeps no number of the run.

The worker then knows only that a run is not the first. The first one is here, so the others can be counted from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoinst.store import details
from autoinst.store.records import pack_job_id

if TYPE_CHECKING:
    import sqlite3

    from autoinst.record import Record

RETRIES_LEFT = "retries_left"  # the tag by which a rule asks for this
RUNS = 100  # of one job that are looked at: an id may be used again and again


class Attempts:
    """Numbers the runs of the jobs that `note` was told of, within the transaction in progress."""

    def __init__(self, con: sqlite3.Connection) -> None:
        """Use `con`."""
        self._con = con
        self._jobs: set[str | bytes] = set()

    def forget(self) -> None:
        """Drop what is not numbered yet, after a rollback."""
        self._jobs.clear()

    def note(self, record: Record) -> None:
        """Take a look at the record's job in the next `flush` if it tells how many retries are left."""
        job_id = pack_job_id(record.job_id)
        if job_id is not None and type(record.tags.get(RETRIES_LEFT)) is int:
            self._jobs.add(job_id)

    def flush(self) -> None:
        """Give a number to each run that has none and comes after one that has.

        It is one more than the run before, or what the retries used up since then say, if earlier runs were recorded
        elsewhere. A job enqueued anew under the same id begins with a run that has its number.
        """
        for job_id in self._jobs:
            number = left = None
            rows = self._con.execute(
                "SELECT n, attempts, details FROM job WHERE job_id = ? ORDER BY +start DESC, n DESC LIMIT ?",
                (job_id, RUNS),
            ).fetchall()
            for n, attempts, blob in reversed(rows):
                own = _retries_left(blob)
                if own is None:
                    continue
                if attempts is not None:
                    number = attempts
                elif number is not None and left is not None:
                    number = max(number + 1, number + left - own)
                    self._con.execute("UPDATE job SET attempts = ? WHERE n = ?", (number, n))
                left = own
        self._jobs.clear()


def _retries_left(blob: bytes | None) -> int | None:
    tags = details.unpack(blob).get("tags", {}) if blob is not None else {}
    found = tags.get(RETRIES_LEFT)
    return found if type(found) is int else None
