"""How far each exporter's feeds have come: cursor, the batch that is under way, what was parked, and how it went.

A batch is a stretch of `job.n` and a token. Both are stored before it is sent for the first time, so that whoever
sends it again after a crash sends the same jobs under the same token.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import sqlite3

NOTICES = "webhook"  # what the names of the feeds begin with that send notices, not jobs
MAX_DETAIL = 500  # characters kept of what a receiver said
MAX_PARKED = 1_000  # of a feed; the oldest are forgotten, their number is not
COLUMNS = (
    "name, n, upto, token, at, since, jobs, posts, bytes, parked, rejected, left_out, missing, state, detail, changed,"
    " sent"
)


class Batch(NamedTuple):
    """Jobs after cursor `after` up to `upto`, under a token fixed before they were first sent.

    `at_ns` is when the batch was made, `since_ns` when the one before it was (ns since the epoch).
    """

    after: int
    upto: int
    token: str
    at_ns: int
    since_ns: int


@dataclass(slots=True)
class Feed:
    """One feed's row; times in ns since the epoch.

    `n` is the cursor. Counted are jobs sent, posts and bytes that were accepted, jobs parked because the receiver
    refuses them, items it dropped of what it accepted (`rejected`), jobs left out because too many waited, and numbers
    without a job (`missing`: removed by retention, or replaced by a later record). `state` is ok, waiting or refused;
    `detail` is what the receiver, or the network, said last.
    """

    name: str
    n: int = 0
    upto: int | None = None
    token: str | None = None
    at_ns: int = 0
    since_ns: int = 0
    jobs: int = 0
    posts: int = 0
    bytes: int = 0
    parked: int = 0
    rejected: int = 0
    left_out: int = 0
    missing: int = 0
    state: str = "ok"
    detail: str | None = None
    changed_ns: int = 0
    sent_ns: int | None = None

    @property
    def of_notices(self) -> bool:
        """Whether its cursor is one of notices rather than of jobs."""
        return self.name.startswith(NOTICES)

    @property
    def batch(self) -> Batch | None:
        """The batch that is under way, if one is."""
        if self.upto is None or self.token is None:
            return None
        return Batch(self.n, self.upto, self.token, self.at_ns, self.since_ns)


class Parked(NamedTuple):
    """A job that a receiver refuses for good: its id (None where it is gone), when that was, and why."""

    feed: str
    n: int
    job: str | None
    at_ns: int
    reason: str


def feed(con: sqlite3.Connection, name: str) -> Feed | None:
    """Return a feed, None where it has never been there."""
    row = con.execute(f"SELECT {COLUMNS} FROM feed WHERE name = ?", (name,)).fetchone()  # noqa: S608
    return None if row is None else Feed(*row)


def feeds(con: sqlite3.Connection) -> list[Feed]:
    """Return all feeds by name."""
    return [Feed(*row) for row in con.execute(f"SELECT {COLUMNS} FROM feed ORDER BY name")]  # noqa: S608


def parked(con: sqlite3.Connection, limit: int) -> list[Parked]:
    """Return parked jobs, the latest first."""
    rows = con.execute(
        "SELECT p.feed, p.n, job.id, p.at, p.reason FROM parked p LEFT JOIN job ON job.n = p.n"
        " AND substr(p.feed, 1, ?) <> ? ORDER BY p.at DESC, p.n DESC LIMIT ?",
        (len(NOTICES), NOTICES, limit),
    )
    return [Parked(name, n, None if job is None else job.hex(), at, reason) for name, n, job, at, reason in rows]


# -- within a transaction ----------------------------------------------------------------------------------------


def add(con: sqlite3.Connection, name: str, n: int, now_ns: int) -> Feed:
    """Begin a feed behind cursor `n`, if it is new; return it."""
    con.execute("INSERT OR IGNORE INTO feed(name, n, since, changed) VALUES(?,?,?,?)", (name, n, now_ns, now_ns))
    found = feed(con, name)
    assert found is not None
    return found


def fix(con: sqlite3.Connection, of: Feed, upto: int, now_ns: int) -> Batch:
    """Make what comes after the feed's cursor up to `upto` its batch, under a new token."""
    # A clock that was set back must not make a batch that ends before it begins.
    of.upto, of.token, of.at_ns = upto, secrets.token_hex(16), max(now_ns, of.since_ns + 1)
    con.execute("UPDATE feed SET upto = ?, token = ?, at = ? WHERE name = ?", (upto, of.token, of.at_ns, of.name))
    assert of.batch is not None
    return of.batch


def finish(con: sqlite3.Connection, of: Feed, *, jobs: int, posts: int, size: int, rejected: int, now_ns: int) -> None:
    """Move the cursor behind the batch under way; `jobs` of it were sent in `posts` of `size` bytes in all."""
    assert of.upto is not None
    of.missing += max(of.upto - of.n - jobs, 0)
    of.n, of.upto, of.token, of.since_ns = of.upto, None, None, of.at_ns
    of.jobs += jobs
    of.posts += posts
    of.bytes += size
    of.rejected += rejected
    if jobs:
        of.state, of.sent_ns = "ok", now_ns
        of.changed_ns = now_ns
        if not rejected:
            of.detail = None
    _store(con, of)


def park(con: sqlite3.Connection, of: Feed, reason: str, now_ns: int) -> None:
    """Put the only job of the batch under way aside, and move the cursor behind it."""
    assert of.upto is not None
    con.execute(
        "INSERT OR REPLACE INTO parked(feed, n, at, reason) VALUES(?,?,?,?)",
        (of.name, of.upto, now_ns, reason[:MAX_DETAIL]),
    )
    con.execute(
        "DELETE FROM parked WHERE feed = ? AND n IN (SELECT n FROM parked WHERE feed = ? ORDER BY n DESC"
        " LIMIT -1 OFFSET ?)",
        (of.name, of.name, MAX_PARKED),
    )
    of.missing += of.upto - of.n - 1
    of.n, of.upto, of.token = of.upto, None, None
    of.parked += 1
    _store(con, of)


def tell(con: sqlite3.Connection, of: Feed, state: str, detail: str, now_ns: int) -> None:
    """Keep what went wrong for `doctor`; the batch stays under way."""
    of.state, of.detail, of.changed_ns = state, detail[:MAX_DETAIL], now_ns
    _store(con, of)


def move(con: sqlite3.Connection, of: Feed, upto: int) -> None:
    """Move the cursor to `upto`, where nothing is sent."""
    of.n = upto
    _store(con, of)


def leave_out(con: sqlite3.Connection, of: Feed, upto: int, jobs: int) -> None:
    """Move the cursor to `upto` without sending the `jobs` that lie between."""
    of.missing += upto - of.n - jobs
    of.n, of.upto, of.token = upto, None, None
    of.left_out += jobs
    _store(con, of)


def _store(con: sqlite3.Connection, of: Feed) -> None:
    con.execute(
        f"INSERT OR REPLACE INTO feed({COLUMNS}) VALUES({','.join('?' * 17)})",
        (
            *(of.name, of.n, of.upto, of.token, of.at_ns, of.since_ns, of.jobs, of.posts, of.bytes, of.parked),
            *(of.rejected, of.left_out, of.missing, of.state, of.detail, of.changed_ns, of.sent_ns),
        ),
    )
