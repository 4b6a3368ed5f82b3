"""AUTOINST_STORE: where the ClickHouse server is, and as whom to ask it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from autoinst.errors import StoreError
from autoinst.rules import figures
from autoinst.store.retention import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "AUTOINST_STORE"
SCHEMES = ("clickhouse", "clickhouses")
FORM = "clickhouse://user:password@host:8123/database"
OPTIONS = ("secure", "certificate", "engine", "async_insert", "retention", "rollups")
ENGINES = ("", "replicated")
YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
PORTS = {False: 8123, True: 8443}  # ClickHouse's own defaults


class Address(NamedTuple):
    """A server, a database in it, and a user; `certificate` is a file with the authorities to trust.

    `engine` "replicated" makes replicated tables; `asynchronous` has the server gather small inserts. Tables are
    made to keep jobs for `days` and totals by the hour for `rollup_days` (None: for good).
    """

    host: str
    port: int
    database: str
    user: str
    password: str
    secure: bool = False
    certificate: str | None = None
    engine: str = ""
    asynchronous: bool = True
    days: float | None = Limits.days
    rollup_days: float | None = Limits.rollup_days

    @property
    def url(self) -> str:
        """The address of requests."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}/"

    @property
    def place(self) -> str:
        """The database's address for a person, without the password."""
        return f"{self.url}{self.database}"

    @property
    def feed(self) -> str:
        """The name in a local store of the feed of jobs to the database."""
        return f"clickhouse-{self.mark}/jobs"

    @property
    def mark(self) -> str:
        """What tells this database from others, in a few digits."""
        return hashlib.blake2b(f"{self.host}:{self.port}/{self.database}".encode(), digest_size=4).hexdigest()


def chosen(environ: Mapping[str, str]) -> Address | None:
    """Return the server that AUTOINST_STORE names, None where the store is the home's; raises StoreError."""
    text = (environ.get(VARIABLE) or "").strip()
    return parse(text) if text else None


def parse(text: str) -> Address:
    """Return what an address means; raises StoreError, which never tells the password."""
    scheme, separator, _ = text.partition("://")
    if not separator:
        raise StoreError(f"{VARIABLE} has no scheme: write {FORM}")
    if scheme.lower() not in SCHEMES:
        raise StoreError(f"{VARIABLE}: there is no store {scheme!r}; write {FORM}, or clickhouses:// for TLS")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise StoreError(f"{VARIABLE}: its host or port cannot be read; write {FORM}") from None
    database = unquote(parts.path.strip("/"))
    if not parts.hostname or not database or "/" in database:
        what = "host" if not parts.hostname else "database"
        raise StoreError(f"{VARIABLE} names no {what}: write {FORM}")
    options = _options(parts.query)
    secure = scheme.lower() == "clickhouses" or _yes("secure", options.get("secure", "0"))
    engine = options.get("engine", "")
    if engine not in ENGINES:
        raise StoreError(f"{VARIABLE}: engine={engine!r} is unknown; there is engine=replicated")
    return Address(
        parts.hostname,
        port or PORTS[secure],
        database,
        unquote(parts.username or "default"),
        unquote(parts.password or ""),
        secure,
        options.get("certificate"),
        engine,
        _yes("async_insert", options.get("async_insert", "1")),
        _age("retention", options, Limits.days),
        _age("rollups", options, Limits.rollup_days),
    )


def _options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name in options:
        if name not in OPTIONS:
            raise StoreError(f"{VARIABLE}: there is no option {name!r}; there are {', '.join(OPTIONS)}")
    return options


def _yes(name: str, text: str) -> bool:
    if text.lower() not in (*YES, *NO):
        raise StoreError(f"{VARIABLE}: {name}={text!r} is neither 1 nor 0")
    return text.lower() in YES


def _age(name: str, options: Mapping[str, str], default: float | None) -> float | None:
    if name not in options:
        return default
    try:
        return figures.age(options[name]) or None
    except ValueError as error:
        raise StoreError(f"{VARIABLE}: {name} {error}, not {options[name]!r}") from None
