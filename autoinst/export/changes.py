"""Sends what changed of totals, errors and processes to a ClickHouse: whole rows as they are now.

Nothing has to be remembered between two attempts: what was not sent for certain is sent again, or what became of it.
A row that the server refuses for good is found by halves and left out, until it changes.
"""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Any

from autoinst import __version__
from autoinst.errors import StoreError
from autoinst.export import source
from autoinst.export.answers import Answer, Verdict
from autoinst.export.clickhouse import Connection, Jobs, answer_of
from autoinst.export.feed import Feed
from autoinst.export.pump import IDLE, PARKED_IN_A_ROW, Pump, Turn
from autoinst.store.clickhouse import schema

if TYPE_CHECKING:
    import logging

    from autoinst.export.circuit import Circuit
    from autoinst.store.clickhouse.address import Address
    from autoinst.store.sqlite import Store
    from autoinst.store.unsent import Change

CHANGES = 5_000  # at once
CHANGES_SECONDS = 2.0  # between two times that changes are sent, while they come
HOME_SECONDS = 10.0  # between two times that this home says that it is there


class Rows(source.Jobs):
    """What changes are called; ChangesPump takes them from the store itself."""

    noun = "row(s) of totals"


class Changes(Feed):
    """The feed of all but jobs, which ChangesPump moves."""

    batch = CHANGES
    gather = CHANGES_SECONDS
    backlog = CHANGES
    source = Rows()

    def __init__(self, connection: Connection) -> None:
        """Send by `connection`."""
        self.connection = connection
        self.name = connection.address.feed.replace("/jobs", "/totals")
        self.place = connection.address.place

    def insert(self, tables: dict[str, list[dict[str, Any]]]) -> Answer:
        """Insert rows by table."""
        size = 0
        try:
            for table, rows in tables.items():
                size += self.connection.client.insert(table, rows)
        except StoreError as error:
            return answer_of(error, self.place)
        return Answer(Verdict.ACCEPTED, "accepted", size=size, posts=len(tables))

    def test(self) -> Answer:
        """Do as the feed of jobs does."""
        return Jobs(self.connection).test()

    def close(self) -> None:
        """Close connections."""
        self.connection.client.close()


class ChangesPump(Pump):
    """Moves changes rather than batches of jobs; used by one thread."""

    feed: Changes

    def __init__(self, feed: Changes, path: str, journal: logging.Logger, circuit: Circuit | None = None) -> None:
        """Move changes of the store `path`."""
        super().__init__(feed, path, journal, circuit)
        self._changes = CHANGES
        self._told_at = float("-inf")
        self._told_ns = 0

    def waiting(self) -> int:
        """Return how many changed rows wait; raises StoreError."""
        store = self._open()
        return store.changed() if store is not None else 0

    def _turn(self, store: Store, *, all_now: bool) -> Turn:
        pause = self.circuit.wait()
        if pause:
            return Turn(pause, troubled=True)
        early = self._last_sent + self.feed.gather - time.monotonic()
        if early > 0 and not all_now:
            return Turn(early)
        connection = self.feed.connection
        try:
            connection.prepare()
            found, tables = store.unsent(connection.home, self._changes)
            self._tell_of_home(store, all_now=all_now)
        except StoreError as error:
            return self._failed(answer_of(error, self.feed.place))
        if not found:
            return Turn(IDLE)
        answer = self.feed.insert(tables)
        self._last_sent = time.monotonic()
        if answer.verdict is not Verdict.ACCEPTED:
            return self._not_taken(store, found, next(iter(tables), ""), answer)
        with store.transaction():
            store.sent(found)
        if tables:
            self._parked = 0
        self._changes = min(self._changes * 2, CHANGES)
        self.circuit.succeeded()
        if self.trouble:
            self._journal.info("%s: %s takes totals again", self.feed.name, self.feed.place)
        self.trouble = ""
        return Turn(0, len(found))

    def _not_taken(self, store: Store, found: list[Change], table: str, answer: Answer) -> Turn:
        """Do with changes, of `table` where it is one, what the answer says."""
        self._changes = max(len(found) // 2, 1)
        if answer.verdict in (Verdict.SPLIT, Verdict.REFUSED) and len(found) > 1:
            return Turn(0)
        if answer.verdict is not Verdict.REFUSED:  # what is too large for a server one row at a time is so for a while
            return self._failed(answer)
        if self._parked >= PARKED_IN_A_ROW:
            text = f"refuses one row after the other: {answer.text}"
            return self._failed(answer._replace(text=text, verdict=Verdict.WRONG))
        detail = f"{self.feed.place}: a row of {table} was left out: {answer.text}"
        with store.transaction():
            store.note_problem("clickhouse", detail)
            store.sent(found)
        self._parked += 1
        self._journal.warning("%s: %s", self.feed.name, detail)
        return Turn(0)

    def _failed(self, answer: Answer) -> Turn:
        pause = self.circuit.failed(answer.retry_after, wrong=answer.verdict is Verdict.WRONG)
        self._trouble(f"{self.feed.place}: {answer.text}")
        return Turn(pause, troubled=True)

    def _tell_of_home(self, store: Store, *, all_now: bool) -> None:
        """Have the other side know of this home, and how many of its jobs it has not got."""
        now = time.monotonic()
        if now - self._told_at < HOME_SECONDS and not all_now:
            return
        connection = self.feed.connection
        row = store.feed(connection.address.feed)
        if not self._told_ns:
            self._told_ns = schema.heard_of(connection.client, connection.home)
        self._told_ns = max(time.time_ns(), self._told_ns + 1)  # the last one counts, though the clock was set back
        fields = {
            "home": connection.home,
            "host": socket.gethostname(),
            "path": os.path.dirname(self._path),
            "autoinst": __version__,
            "at": self._told_ns,
            "waiting": max(store.last() - (row.n if row is not None else 0), 0),
        }
        connection.client.insert("home", [fields])
        self._told_at = now


def pumps(address: Address, path: str, journal: logging.Logger) -> list[Pump]:
    """Return what moves all that the store `path` has to a database; raises StoreError."""
    return [
        Pump(Jobs(Connection(address, path)), path, journal),
        ChangesPump(Changes(Connection(address, path)), path, journal),
    ]
