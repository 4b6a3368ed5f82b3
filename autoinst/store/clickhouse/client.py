"""Questions and inserts to a ClickHouse server over HTTP."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import ssl
import time
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

import urllib3

from autoinst import __version__
from autoinst.errors import StoreError
from autoinst.store.reader import SlowStoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from autoinst.store.clickhouse.address import Address

CONNECT_SECONDS = 5.0
SECONDS = 30.0  # for an answer, where nobody set a limit
MAX_ANSWER = 256 * 1024 * 1024  # bytes of one answer
OK = 200
TOLD = 400  # characters of the server's own words
# Error codes of ClickHouse, src/Common/ErrorCodes.cpp.
UNKNOWN_TABLE, UNKNOWN_DATABASE, TIMEOUT_EXCEEDED, READONLY = 60, 81, 159, 164
UNKNOWN_USER, WRONG_PASSWORD, REQUIRED_PASSWORD, ACCESS_DENIED, AUTHENTICATION_FAILED = 192, 193, 194, 497, 516
LOGIN = (UNKNOWN_USER, WRONG_PASSWORD, REQUIRED_PASSWORD, AUTHENTICATION_FAILED)
_CODE = re.compile(r"Code: (\d+)[.,]")
_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode


class ServerError(StoreError):
    """What the server refused: `code` is ClickHouse's, 0 where it told none; `status` that of HTTP.

    `retry_after` is the header of that name as it was sent.
    """

    def __init__(self, message: str, code: int, status: int, retry_after: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.retry_after = retry_after


class UnreachableError(StoreError):
    """The server did not answer."""


class Version(NamedTuple):
    """A server's version, and what it can do that tables and requests may use."""

    text: str

    @property
    def number(self) -> tuple[int, ...]:
        """Its year and month."""
        found = re.findall(r"\d+", self.text)[:2]
        return tuple(int(part) for part in found)

    @property
    def has_ttl(self) -> bool:
        """Whether tables may have codecs, indexes of their own, texts of few values and ages (all by 20.3)."""
        return self.number >= (20, 3)

    @property
    def gathers(self) -> bool:
        """Whether it knows `async_insert` and deduplication tokens (22.3, the first with long support that does)."""
        return self.number >= (22, 3)


class Client:
    """One database of a server, for one thread at a time."""

    def __init__(self, address: Address, *, seconds: float = SECONDS) -> None:
        """Prepare to ask `address`; an answer may take `seconds`. Raises StoreError for certificates it cannot read."""
        self.address = address
        self._seconds = seconds
        self._deadline: float | None = None
        self._version: Version | None = None
        options: dict[str, Any] = {"maxsize": 2, "retries": False}
        if address.secure:
            try:
                options["ssl_context"] = ssl.create_default_context(cafile=address.certificate)
            except OSError as error:
                raise StoreError(f"certificate {address.certificate}: {error.strerror or error}") from None
        self._pool = urllib3.PoolManager(**options)

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()

    @contextlib.contextmanager
    def limited(self, seconds: float) -> Iterator[None]:
        """Let what is asked inside take so long in all; then SlowStoreError is raised."""
        before = self._deadline
        deadline = time.monotonic() + seconds
        self._deadline = deadline if before is None else min(before, deadline)
        try:
            yield
        finally:
            self._deadline = before

    def version(self) -> Version:
        """Return the server's version."""
        if self._version is None:
            self._version = Version(str(self.rows("SELECT version() AS version")[0]["version"]))
        return self._version

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """Return the rows of a question; raises StoreError."""
        settings: dict[str, Any] = {"wait_end_of_query": 1, "output_format_json_quote_64bit_integers": 0}
        seconds = self._left()
        if self._version is not None and self._version.gathers:
            settings["do_not_merge_across_partitions_select_final"] = 1  # keys never change their partition
        if self._deadline is not None:
            settings["max_execution_time"] = max(int(seconds), 1)
        body = self._post(f"{sql}\nFORMAT JSONEachRow".encode("utf-8", "backslashreplace"), settings, seconds)
        try:
            return [json.loads(line) for line in body.splitlines() if line]
        except ValueError:
            raise self._refused(OK, "") from None

    def one(self, sql: str) -> Any:
        """Return the first column of the first row, None where there is no row."""
        found = self.rows(sql)
        return next(iter(found[0].values())) if found else None

    def run(self, sql: str) -> None:
        """Run a statement that answers nothing."""
        self._post(sql.encode(), {}, self._left())

    def insert(self, table: str, rows: Iterable[Mapping[str, Any]], token: str | None = None) -> int:
        """Insert rows, and return the bytes sent when the server has them; `token` tells the same insert again."""
        text = "\n".join(map(_dumps, rows))
        body = gzip.compress(text.encode("utf-8", "replace"), 5, mtime=0)
        settings: dict[str, Any] = {"query": f"INSERT INTO {table} FORMAT JSONEachRow"}
        if self.version().gathers:
            settings["max_partitions_per_insert_block"] = 0
            if self.address.asynchronous:
                settings |= {"async_insert": 1, "wait_for_async_insert": 1}
            elif token is not None:
                settings["insert_deduplication_token"] = token
        if self._post(body, settings, self._left(), {"Content-Encoding": "gzip"}).strip():
            raise self._refused(OK, "")  # a server that has the rows says nothing: this is a proxy's page, say
        return len(body)

    def _left(self) -> float:
        return self._seconds if self._deadline is None else max(self._deadline - time.monotonic(), 0.05)

    def _post(self, body: bytes, settings: dict[str, Any], seconds: float, more: dict[str, str] | None = None) -> bytes:
        address = self.address
        headers = {
            "User-Agent": f"autoinst/{__version__}",
            "X-ClickHouse-User": address.user,
            "X-ClickHouse-Key": address.password,
            "X-ClickHouse-Database": address.database,
            **(more or {}),
        }
        query = urlencode({"database": address.database, **settings})
        try:
            answer = self._pool.request(
                "POST",
                f"{address.url}?{query}",
                body=body,
                headers={name: value.encode().decode("latin-1") for name, value in headers.items()},
                redirect=False,
                timeout=urllib3.Timeout(connect=min(CONNECT_SECONDS, seconds), read=seconds + 1),
                preload_content=False,
            )
            try:
                data: bytes = answer.read(MAX_ANSWER)
            finally:
                answer.release_conn()
        except urllib3.exceptions.ReadTimeoutError:
            raise SlowStoreError(f"{address.place}: no answer within {seconds:.0f} s") from None
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise UnreachableError(f"{address.place}: {reason(error)}") from None
        if answer.status != OK:  # the only one it answers where all is well
            raise self._refused(answer.status, data.decode("utf-8", "replace"), answer.headers.get("Retry-After"))
        return data

    def _refused(self, status: int, text: str, retry_after: str | None = None) -> StoreError:
        address = self.address
        found = _CODE.search(text)
        code = int(found[1]) if found else 0
        if code == TIMEOUT_EXCEEDED:
            return SlowStoreError(f"{address.place}: the question took too long")
        if code in LOGIN:
            text = f"user {address.user!r} and that password are not known there"
        elif code == UNKNOWN_DATABASE:
            text = f"there is no database {address.database!r}; make it: CREATE DATABASE {address.database}"
        elif code in (ACCESS_DENIED, READONLY):
            text = f"user {address.user!r} may not do that: {_words(text)}"
        elif code:
            text = _words(text)
        else:
            text = f"answered {status}, which is not ClickHouse's HTTP interface"
        return ServerError(f"{address.place}: {text}", code, status, retry_after)


def reason(error: Exception) -> str:
    """Return in a few words why there was no answer."""
    inner: BaseException = error
    for _ in range(10):
        found = getattr(inner, "reason", None)
        cause = found if isinstance(found, BaseException) else inner.__cause__ or inner.__context__
        if cause is None:
            break
        inner = cause
    if isinstance(inner, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {inner.verify_message}"
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror[0].lower() + inner.strerror[1:]
    return str(inner) or type(inner).__name__


def _words(text: str) -> str:
    """Return the server's own words without the stack trace and the version."""
    text = text.partition("e.displayText() = ")[2] or text
    text = text.partition(", e.what()")[0].partition("(version ")[0]
    return " ".join(text.removeprefix("DB::Exception: ").split())[:TOLD]


def literal(value: Any) -> str:
    """Return a text or number as SQL has it."""
    if isinstance(value, str):
        escaped = value.encode("utf-8", "backslashreplace").decode()
        return "'" + escaped.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return repr(value)
