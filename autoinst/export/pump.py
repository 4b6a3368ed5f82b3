"""Moves the store's jobs into one feed: batch after batch, each under a token fixed before it is first sent.

The order is everything: store the batch's end and token, send, and only then store that it was sent. Whoever is killed
in between leaves a batch that is sent again, the same jobs under the same token.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from autoinst.errors import StoreError
from autoinst.export.answers import Answer, Verdict
from autoinst.export.circuit import Circuit
from autoinst.store.sqlite import Store

if TYPE_CHECKING:
    import logging

    from autoinst.export.feed import Feed
    from autoinst.store.feeds import Feed as Row

IDLE = float("inf")
PARKED_IN_A_ROW = 20  # then it is not the jobs that are wrong
STORE_SECONDS = 2.0  # until the store is tried again
SAID_SECONDS = 60.0  # between two lines in the log that say the same


class Turn(NamedTuple):
    """What a turn did: seconds until the next makes sense (IDLE: when there are new jobs), and how many were sent."""

    wait: float
    sent: int = 0
    troubled: bool = False


class Pump:
    """One feed's mover, used by one thread."""

    def __init__(self, feed: Feed, path: str, journal: logging.Logger, circuit: Circuit | None = None) -> None:
        """Move jobs from the store `path`."""
        self.feed = feed
        self.circuit = circuit or Circuit()
        self.trouble = ""
        self._source = feed.source
        self._path = path
        self._journal = journal
        self._store: Store | None = None
        self._inode = 0
        self._most = feed.batch
        self._parked = 0
        self._last_sent = float("-inf")
        self._said: tuple[str, float] = ("", 0.0)

    def close(self) -> None:
        """Close store and connections."""
        self._close_store()
        self.feed.close()

    def turn(self, *, all_now: bool = False) -> Turn:
        """Send a batch if it is time to; `all_now` does not wait for more jobs to come."""
        try:
            store = self._open()
            return self._turn(store, all_now=all_now) if store is not None else Turn(STORE_SECONDS)
        except StoreError as error:
            self._close_store()
            self._trouble(str(error))
            return Turn(STORE_SECONDS, troubled=True)

    def waiting(self) -> int:
        """Return how many jobs wait, in numbers of the store; raises StoreError."""
        store = self._open()
        row = store.feed(self.feed.name) if store is not None else None
        return max(self._source.last(store) - row.n, 0) if store is not None and row is not None else 0

    def _turn(self, store: Store, *, all_now: bool) -> Turn:
        row = store.feed(self.feed.name) or self._begin(store)
        self.feed.look(store, answering=not self.circuit.wait())
        last = self._source.last(store)
        if row.batch is None:
            if last - row.n > self.feed.backlog:
                self._leave_out(store, row, last - self.feed.backlog)
            upto = self._source.upto(store, row.n, self._most)
            if upto == row.n:
                return Turn(IDLE)
            early = self._last_sent + self.feed.gather - time.monotonic()
            if early > 0 and (self.feed.strict or last - row.n < self._most) and not all_now:
                return Turn(early)
        pause = self.circuit.wait()
        if pause:
            return Turn(pause, troubled=True)
        if row.batch is None:
            with store.transaction():
                store.fix_batch(row, upto)
        batch = row.batch
        assert batch is not None
        records = self._source.items(store, batch)
        if not records:
            with store.transaction():
                store.finish_batch(row, jobs=0, posts=0)
            return Turn(0)
        try:
            answer = self.feed.send(records, batch)
        except Exception as error:  # of a record nobody thought of: found by halves and parked, as a refused one is
            answer = Answer(Verdict.REFUSED, f"cannot be encoded: {type(error).__name__}: {error}")
        self._last_sent = time.monotonic()
        return self._settle(store, row, records, answer)

    def _begin(self, store: Store) -> Row:
        with store.transaction():
            return store.add_feed(self.feed.name, self._source.last(store) if self.feed.from_now else 0)

    def _settle(self, store: Store, row: Row, records: list[Any], answer: Answer) -> Turn:
        """Do with the batch what the answer says."""
        if answer.verdict is Verdict.ACCEPTED:
            return self._accepted(store, row, len(records), answer)
        if answer.verdict in (Verdict.SPLIT, Verdict.REFUSED):
            if len(records) > 1:
                self._most = max(len(records) // 2, 1)
                with store.transaction():
                    store.fix_batch(row, self._source.upto(store, row.n, self._most))
                return Turn(0)
            name = self._source.name(records[0])
            if self._parked < PARKED_IN_A_ROW:
                with store.transaction():
                    store.park(row, f"{name}: {answer.text}")
                self._parked += 1
                self._journal.warning("%s: %s parked: %s", self.feed.name, name, answer.text)
                return Turn(0)
            answer = answer._replace(text=f"refuses one job after the other: {answer.text}", verdict=Verdict.WRONG)
        wrong = answer.verdict is Verdict.WRONG
        pause = self.circuit.failed(answer.retry_after, wrong=wrong)
        text = f"{self.feed.place}: {answer.text}"
        with store.transaction():
            store.tell_of_feed(row, "refused" if wrong else "waiting", text)
        self._trouble(text)
        return Turn(pause, troubled=True)

    def _accepted(self, store: Store, row: Row, jobs: int, answer: Answer) -> Turn:
        if answer.rejected:
            row.detail = f"{self.feed.place}: rejected {answer.rejected} of what it took: {answer.text}"
            self._journal.warning("%s: %s", self.feed.name, row.detail)
        with store.transaction():
            store.finish_batch(row, jobs=jobs, posts=answer.posts, size=answer.size, rejected=answer.rejected)
        if self.trouble:
            self._journal.info("%s: %s takes jobs again", self.feed.name, self.feed.place)
        self.circuit.succeeded()
        self.trouble = ""
        self._said = ("", 0.0)
        self._parked = 0
        self._most = min(self._most * 2, self.feed.batch)
        return Turn(0, jobs)

    def _leave_out(self, store: Store, row: Row, upto: int) -> None:
        with store.transaction():
            jobs = self._source.count(store, row.n, upto)
            store.leave_out(row, upto, jobs)
        self._journal.warning(
            "%s: more than %d jobs wait; the oldest %d are left out", self.feed.name, self.feed.backlog, jobs
        )

    def _trouble(self, text: str) -> None:
        """Log a trouble, the same one once a minute."""
        self.trouble = text
        said, at = self._said
        now = time.monotonic()
        if text != said or now - at > SAID_SECONDS:
            self._journal.error("%s: %s; nothing is lost, trying again", self.feed.name, text)
            self._said = (text, now)

    def _open(self) -> Store | None:
        """Return the store, opened anew where a damaged one was moved aside; None where there is none."""
        try:
            inode = os.stat(self._path).st_ino
        except OSError:
            self._close_store()
            return None
        if self._store is None or inode != self._inode:
            self._close_store()
            self._store = Store(self._path)
            self._inode = os.stat(self._path).st_ino
        return self._store

    def _close_store(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            try:
                store.close()
            except StoreError:
                return
