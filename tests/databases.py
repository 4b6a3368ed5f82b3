"""Databases of which each side of a comparison has one, with the same in it at first."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING, Any

import redis
import services

from tests.workers import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.servers import Postgres, Redis


class Database:
    """What both sides have one of; `variables` tell the program where."""

    variables: dict[str, str]

    def make(self) -> None:
        """Make it, empty."""
        raise NotImplementedError

    def copy_to(self, other: Any) -> None:
        """Make `other`, one of the same class, the same."""
        raise NotImplementedError

    def rows(self, query: str) -> list[str]:
        """Return what a query finds, a line each."""
        raise NotImplementedError

    def all(self, queries: Iterable[str]) -> list[str]:
        """Return what is there to compare, a line each."""
        return [f"row {row}" for query in queries for row in self.rows(query)]


class SQLite(Database):
    """A database in a side's folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "db.sqlite3"
        self.variables = {}

    def make(self) -> None:
        """Make it, empty: it is made when it is written to."""

    def copy_to(self, other: SQLite) -> None:
        """Make `other` the same."""
        shutil.copy(self.path, other.path)

    def rows(self, query: str) -> list[str]:
        """Return what a query finds, a line each."""
        with closing(sqlite3.connect(self.path, timeout=DEADLINE)) as connection:
            connection.text_factory = lambda text: text.decode(errors="backslashreplace")
            return [repr(row) for row in connection.execute(query)]


class PostgresDatabase(Database):
    """A database of a server."""

    def __init__(self, server: Postgres, name: str) -> None:
        self.server, self.name = server, name
        self.variables = {"DSN": server.dsn.replace("dbname=postgres", f"dbname={name}")}

    def make(self) -> None:
        """Make it, empty."""
        self._ask("postgres", f"CREATE DATABASE {self.name}")

    def copy_to(self, other: PostgresDatabase) -> None:
        """Make `other`, the same."""
        self._ask("postgres", f"CREATE DATABASE {other.name} TEMPLATE {self.name}")

    def rows(self, query: str) -> list[str]:
        """Return what a query finds, a line each."""
        return self._ask(self.name, f"COPY ({query}) TO STDOUT").splitlines()

    def _ask(self, database: str, command: str) -> str:
        program = services.find("psql")
        assert program is not None
        words = [program, "-X", "-q", "-h", "127.0.0.1", "-p", str(self.server.port), "-U", "test", "-c", command]
        done = subprocess.run([*words, database], check=True, stdout=subprocess.PIPE, text=True, timeout=DEADLINE)
        return done.stdout


class RedisDatabase(Database):
    """One of the databases of a Redis server."""

    def __init__(self, server: Redis, number: int = 0) -> None:
        self.url = server.database(number)
        self.variables = {"REDIS": self.url}

    def make(self) -> None:
        """Empty it."""
        with redis.Redis.from_url(self.url) as client:
            client.flushdb()

    def copy_to(self, other: RedisDatabase) -> None:
        """Make `other` the same."""
        other.make()
        with redis.Redis.from_url(self.url) as client, redis.Redis.from_url(other.url) as copy:
            for key in client.scan_iter(count=10_000):
                copy.restore(key, 0, client.dump(key))

    def all(self, queries: Iterable[str] = ()) -> list[str]:
        """Return the parts of what is kept under each key; a worker's own record of itself counts for nothing."""
        with redis.Redis.from_url(self.url) as client:
            return [
                f"{key.decode()}: {part}"
                for key in client.scan_iter(count=10_000)
                if not (key.startswith(b"rq:worker") or b"worker_info" in key or b":cluster:" in key)
                for part in _parts(client, key)
            ]

    def has(self, key: str, wanted: bytes) -> bool:
        """Return whether there is a `key`, and in it what is `wanted`, if anything is."""
        with redis.Redis.from_url(self.url) as client:
            return wanted in (client.get(key) or b"") if wanted else bool(client.exists(key))


def _parts(client: Any, key: bytes) -> list[str]:
    found: dict[str, Any] = {
        "none": list,  # gone meanwhile
        "string": lambda: [client.get(key)],
        "list": lambda: client.lrange(key, 0, -1),
        "set": lambda: client.smembers(key),
        "zset": lambda: client.zrange(key, 0, -1),
        "hash": lambda: [b"=".join(item) for item in client.hgetall(key).items()],
        "stream": lambda: [repr(entry).encode() for _, entry in client.xrange(key)],
    }
    parts = found[client.type(key).decode()]()
    return [part.decode() if part.isascii() else "BINARY" for part in parts]  # a pickle has times in it
