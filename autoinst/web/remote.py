"""The pages over a store past one machine: what is recorded is of all machines, what is in progress of this one."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from autoinst.store.clickhouse.reader import Server
from autoinst.web.source import POOLED, Source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from autoinst.store.clickhouse.address import Address
    from autoinst.store.interface import Readable, Writable

IN_PROGRESS = (
    "Jobs in progress are those of this machine only: those of others are here when they have ended or were killed."
)


class RemoteSource(Source):
    """A database on a server, and the jobs in progress in a home of this machine."""

    def __init__(self, home: str, address: Address) -> None:
        """Read from `address`."""
        super().__init__(home)
        self.home = address.place
        self._own_home = home
        self._address = address
        self._servers: list[Server] = []
        self.remarks = {"running": IN_PROGRESS}

    @property
    def drained(self) -> str:
        """The home whose arenas are looked at."""
        return self._own_home

    def close(self) -> None:
        """Stop looking and close all connections."""
        super().close()
        with self._lock:
            servers, self._servers = self._servers, []
        for server in servers:
            server.close()

    @contextlib.contextmanager
    def store(self) -> Iterator[Readable]:
        """Lend the open database; raises StoreError."""
        with self._lock:
            server = self._servers.pop() if self._servers else None
        if server is None:
            server = Server(self._address)
        kept = False
        try:
            yield server
            kept = True
        finally:
            with self._lock:
                if kept and len(self._servers) < POOLED and not self._closing.is_set():
                    self._servers.append(server)
                    server = None
            if server is not None:
                server.close()

    @contextlib.contextmanager
    def writable(self) -> Iterator[Writable]:
        """Lend the database to write into; raises StoreError."""
        with Server(self._address) as server:
            yield server
        self.version += 1
