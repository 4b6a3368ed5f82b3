"""The feed of jobs to a ClickHouse that many machines write to; `changes` sends the rest.

Jobs may be sent again at any time: a row with the same key replaces itself.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from autoinst.errors import StoreError
from autoinst.export.answers import (
    REQUEST_TIMEOUT,
    SERVER_ERROR,
    TOO_EARLY,
    TOO_LARGE,
    TOO_MANY,
    Answer,
    Verdict,
    retry_after,
)
from autoinst.export.feed import Feed
from autoinst.export.source import ALL_JOBS
from autoinst.record import INT64_MAX
from autoinst.store.clickhouse import arrivals, rows, schema
from autoinst.store.clickhouse.client import LOGIN, Client, ServerError
from autoinst.store.sqlite import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autoinst.record import Record
    from autoinst.store.clickhouse.address import Address
    from autoinst.store.feeds import Batch

BATCH = 20_000  # jobs
GATHER_SECONDS = 1.0
# Error codes of ClickHouse, src/Common/ErrorCodes.cpp: a value it does not take; too little memory for so many; what
# somebody has to see to, such as a user's rights, a missing table or an unknown setting.
REFUSED = frozenset({6, 26, 27, 33, 38, 41, 53, 69, 70, 72, 117, 131, 321, 349, 469})
TOO_MUCH_MEMORY = 241
SETTINGS = frozenset({16, 47, 60, 81, 115, 164, 291, 497, *LOGIN})


def answer_of(error: StoreError, place: str) -> Answer:
    """Return what follows from a server at `place` that did not take something."""
    text = str(error).removeprefix(f"{place}: ")
    if isinstance(error, ServerError):
        if error.code == TOO_MUCH_MEMORY or (not error.code and error.status == TOO_LARGE):
            return Answer(Verdict.SPLIT, text)
        if error.code in REFUSED:
            return Answer(Verdict.REFUSED, text)
        if not error.code and (error.status in (REQUEST_TIMEOUT, TOO_EARLY, TOO_MANY) or error.status >= SERVER_ERROR):
            return Answer(Verdict.LATER, text, retry_after(error.retry_after))
        if error.code in SETTINGS or not error.code:
            return Answer(Verdict.WRONG, text)
    return Answer(Verdict.LATER, text)


class Connection:
    """A server's database as this home sends to it: `home` is the number of its local store, once it is `prepared`."""

    def __init__(self, address: Address, path: str) -> None:
        """Send what the store `path` has to `address`; raises StoreError."""
        self.address = address
        self.client = Client(address)
        self.home = 0
        self._path = path
        self._inode = 0

    def prepare(self) -> None:
        """Make tables that are missing, and have the store note what changes; raises StoreError."""
        try:
            inode = os.stat(self._path).st_ino
        except OSError as error:
            raise StoreError(f"{self._path}: {error.strerror}") from None
        if inode == self._inode:
            return
        schema.prepare(self.client, time.time_ns())
        with Store(self._path) as store, store.transaction():
            self.home = store.begin_sending(self.address.mark).home
        self._inode = inode


class Jobs(Feed):
    """The feed of jobs, imported ones among them."""

    batch = BATCH
    gather = GATHER_SECONDS
    source = ALL_JOBS
    backlog = INT64_MAX  # what waits is bounded by this machine's own retention

    def __init__(self, connection: Connection) -> None:
        """Send by `connection`."""
        self.connection = connection
        # Another database has another name, and begins with the oldest job.
        self.name = connection.address.feed
        self.place = connection.address.place

    def send(self, records: Sequence[Record], batch: Batch) -> Answer:
        """Insert the jobs of a batch; its end is their version."""
        connection = self.connection
        try:
            connection.prepare()
            made = [rows.of_record(record, batch.upto, connection.home) for record in records]
            size = connection.client.insert("job", made, batch.token)
            arrivals.note(connection.client, connection.home, batch.upto, records)
        except StoreError as error:
            return answer_of(error, self.place)
        return Answer(Verdict.ACCEPTED, "accepted", size=size)

    def test(self) -> Answer:
        """Ask for the version of server and tables."""
        client = self.connection.client
        try:
            version = client.version()
            found = schema.version(client)
            if found > schema.VERSION:
                schema.check(client)
        except StoreError as error:
            return answer_of(error, self.place)
        tables = f"tables of version {found}" if found else "no tables yet"
        return Answer(Verdict.ACCEPTED, f"ClickHouse {version.text}, {tables}")

    def close(self) -> None:
        """Close connections."""
        self.connection.client.close()
