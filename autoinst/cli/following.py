"""Jobs as they end, one after the other: from this machine's store, or from that past it, where all machines' come."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from autoinst.cli import sending
from autoinst.errors import StoreError
from autoinst.store.clickhouse.address import chosen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    from autoinst.cli.reading import Home
    from autoinst.config import Config
    from autoinst.record import Record
    from autoinst.store.clickhouse.address import Address
    from autoinst.store.clickhouse.reader import Server

    class Following(Protocol):
        """Where somebody is who follows; all methods raise StoreError. `seconds` lie between two looks."""

        seconds: float

        def begin(self, home: Home) -> None:
            """Take all there is for known."""

        def new(self, home: Home) -> Iterator[Record]:
            """Yield the jobs that came since the last time."""

        def close(self) -> None:
            """Close connections."""


AT_ONCE = 1000  # jobs read at a time


def following(config: Config, tell: Callable[[str], None]) -> Following:
    """Return what follows the store commands read from, and `tell`s what keeps it from sending; raises StoreError."""
    address = chosen(os.environ)
    return Here() if address is None else Past(config, address, tell)


class Here:
    """Follows this machine's store, by the numbers of its jobs."""

    seconds = 0.4

    def __init__(self) -> None:
        """Begin before the first job."""
        self._cursor = 0

    def begin(self, home: Home) -> None:
        """Take all there is for known."""
        self._cursor = home.local.last() if home.local is not None else 0

    def new(self, home: Home) -> Iterator[Record]:
        """Yield the jobs that came since the last time."""
        if home.local is None:
            return
        last = home.local.last()
        if last < self._cursor:  # another store lies there now
            self._cursor = 0
        while True:
            found = home.local.jobs_after(self._cursor, AT_ONCE, upto=last, imported=False)
            for number, record in found:
                self._cursor = number
                yield record
            if len(found) < AT_ONCE:
                self._cursor = last
                return

    def close(self) -> None:
        """Do nothing: the home is not ours."""


class Past:
    """Follows the store past this machine, and sends what this one has to it where no agent does."""

    seconds = 1.0

    def __init__(self, config: Config, address: Address, tell: Callable[[str], None]) -> None:
        """Prepare to follow the database at `address`."""
        from autoinst.store.clickhouse.arrivals import Arrivals

        self._config = config
        self._address = address
        self._arrivals = Arrivals()
        self._server: Server | None = None
        self._tell = tell
        self._troubles: list[str] = []

    def begin(self, _: Home) -> None:
        """Take all there is for known."""
        self._arrivals.begin(self._open().client)

    def new(self, _: Home) -> Iterator[Record]:
        """Yield the jobs that came since the last time."""
        before, self._troubles = self._troubles, sending.push(self._config, self._address)
        for trouble in self._troubles:
            if trouble not in before:
                self._tell(trouble)
        try:
            found = self._arrivals.new(self._open().client)
        except StoreError:
            self.close()
            raise
        yield from found

    def close(self) -> None:
        """Close connections."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _open(self) -> Server:
        if self._server is None:
            from autoinst.store.clickhouse.reader import Server

            self._server = Server(self._address)
        return self._server
