"""Questions and inserts to a ClickHouse server over HTTP."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import time
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

from autoinst import posting
from autoinst.errors import StoreError
from autoinst.store.clickhouse.address import VARIABLE
from autoinst.store.reader import ForbiddenStoreError, SlowStoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from autoinst.posting import Response
    from autoinst.store.clickhouse.address import Address

SECONDS = 30.0  # for a request in all, where nobody set a limit
SLOWEST = 20_000  # bytes a second: what is inserted gets the time that takes beside
MAX_ANSWER = 256 * 1024 * 1024  # bytes of one answer
OK, REDIRECTIONS, TOO_LARGE, TOO_MANY, SERVER_ERROR = 200, range(300, 400), 413, 429, 500
ANOTHERS = posting.Response(OK, {}, b"")  # what is not ClickHouse's own, such as a proxy's page
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


class ForbiddenError(ServerError, ForbiddenStoreError):
    """The server does not let this user do that."""


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
        try:
            self._poster = posting.Poster(context=posting.tls(address.certificate) if address.secure else None)
        except posting.SettingsError as error:
            raise StoreError(str(error)) from None

    def close(self) -> None:
        """Close all connections."""
        self._poster.close()

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
            raise self._refused(ANOTHERS) from None

    def one(self, sql: str) -> Any:
        """Return the first column of the first row, None where there is no row."""
        found = self.rows(sql)
        return next(iter(found[0].values())) if found else None

    def run(self, sql: str, more: float = 0.0) -> None:
        """Run a statement that answers nothing, and may take `more` seconds than a question."""
        self._post(sql.encode(), {}, self._left(more))

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
        seconds = self._left(len(body) / SLOWEST)
        if self._post(body, settings, seconds, {"Content-Encoding": "gzip"}).strip():
            raise self._refused(ANOTHERS)  # a server that has the rows says nothing
        return len(body)

    def _left(self, more: float = 0.0) -> float:
        if self._deadline is None:
            return self._seconds + more
        return max(self._deadline - time.monotonic(), 0.05)

    def _post(self, body: bytes, settings: dict[str, Any], seconds: float, more: dict[str, str] | None = None) -> bytes:
        address = self.address
        headers = {
            "User-Agent": posting.USER_AGENT,
            "X-ClickHouse-User": address.user,
            "X-ClickHouse-Key": address.password,
            "X-ClickHouse-Database": address.database,
            **(more or {}),
        }
        headers = {name: value.encode().decode("latin-1") for name, value in headers.items()}
        url = f"{address.url}?{urlencode({'database': address.database, **settings})}"
        try:
            answer = self._poster.post(url, body, headers, seconds=seconds, most=MAX_ANSWER)
        except posting.NoAnswerError as error:
            kind = SlowStoreError if error.late else UnreachableError
            raise kind(f"{address.place}: {error}") from None
        if answer.status != OK:  # the only one it answers where all is well
            raise self._refused(answer)
        if not answer.whole:
            raise StoreError(f"{address.place}: the answer is larger than {MAX_ANSWER // 2**20} MiB")
        return answer.body

    def _refused(self, answer: Response) -> StoreError:
        address = self.address
        text = answer.body.decode("utf-8", "replace")
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
            text = _of_another(answer)
        kind = ForbiddenError if code in (ACCESS_DENIED, READONLY) else ServerError
        return kind(f"{address.place}: {text}", code, answer.status, answer.headers.get("retry-after"))


def _of_another(answer: Response) -> str:
    """Return in words what something answered that is no ClickHouse, or stands before one."""
    status = answer.status
    text = f"answered {status}"
    if status in REDIRECTIONS:
        return f"{text}, {answer.redirection}: set {VARIABLE} to where it is"
    if status == TOO_LARGE:
        return f"{text}: what is sent at once is too large for what stands before it"
    if status == TOO_MANY or status >= SERVER_ERROR:
        return f"{text}, not as ClickHouse does: something before it, or it is not up yet"
    return f"{text}, which is not ClickHouse's HTTP interface"


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
