"""`autoinst import`: jobs that `autoinst export` wrote, here or on another machine, into this home's store."""

from __future__ import annotations

import gzip
import os
import sys
import time
import zlib
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from autoinst.agent.drain import catch_up
from autoinst.agent.service import limits_in_force
from autoinst.cli.output import Output, message
from autoinst.cli.progress import Bar
from autoinst.config import from_environ
from autoinst.errors import AutoinstError, UsageError
from autoinst.store.clickhouse.address import chosen
from autoinst.store.incoming import NotAJobError, parse
from autoinst.store.insert import Inserted, total
from autoinst.store.sqlite import Store

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from autoinst.config import Config
    from autoinst.record import Record

BATCH = 2_000  # jobs in one transaction
MAX_LINE = 32 * 1024 * 1024  # bytes
SHOWN = 20  # wrong lines that are told one by one
GZIP = b"\x1f\x8b"
DAY_NS = 86_400 * 10**9


class Stopped(Exception):  # noqa: N818 - no error, but the end that --strict asks for
    """A line was wrong, and --strict was said."""


@dataclass
class Outcome:
    """What came of it; `problems` are the first SHOWN lines that are wrong."""

    inserted: Inserted = field(default_factory=lambda: Inserted(0, 0, 0))
    lines: int = 0
    running: int = 0
    wrong: int = 0
    old: int = 0
    problems: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return {
            "lines": self.lines,
            "new": self.inserted.new,
            "replaced": self.inserted.replaced,
            "known": self.inserted.known,
            "running": self.running,
            "wrong": self.wrong,
            "beyond_retention": self.old,
            "problems": self.problems,
        }


def run(options: argparse.Namespace) -> int:
    """Import `options.files`; returns 0, 1 where lines were wrong. Raises UsageError, HomeError, StoreError."""
    config = from_environ()
    for path in options.files:
        if path != "-" and not os.path.exists(path):
            raise UsageError(f"{path}: there is no such file")
        if os.path.isdir(path):
            raise UsageError(f"{path}: this is a folder")
        if path == "-" and sys.stdin is None:
            raise UsageError("standard input is closed")
    if not catch_up(config.home):
        message("the agent has not answered; what workers recorded meanwhile comes later")
    importer = Importer(config, strict=options.strict)
    try:
        for path in options.files:
            importer.read(path)
    except Stopped:
        pass
    finally:
        importer.close()
    _send(config)
    done = importer.outcome
    if options.json:
        Output().data(done.to_json())
    else:
        Output().line(summary(done))
    if done.wrong > len(done.problems):
        message(f"and {done.wrong - len(done.problems):,} more lines are wrong")
    if done.old:
        message(
            f"{done.old:,} of them are older than is kept here, and the agent will remove them:"
            " AUTOINST_RETENTION_DAYS says how many days are kept"
        )
    return 1 if done.wrong else 0


def summary(done: Outcome) -> str:
    """Return in a sentence what was done."""
    new, replaced, known = done.inserted
    parts = [f"{new:,} job{'s' if new != 1 else ''} imported"]
    if replaced:
        parts.append(f"{replaced:,} ended otherwise than was known here")
    if known:
        parts.append(f"{known:,} known already")
    if done.running:
        parts.append(f"{done.running:,} still running and left out")
    if done.wrong:
        parts.append(f"{done.wrong:,} line{'s' if done.wrong != 1 else ''} wrong and left out")
    return ", ".join(parts)


class Importer:
    """Puts files of jobs into a home's store, a batch in one transaction."""

    def __init__(self, config: Config, *, strict: bool) -> None:
        """Open the store of a home that there is; `strict`: end at the first line that is wrong."""
        self.outcome = Outcome()
        self._store = Store(config.store)
        self._strict = strict
        self._batch: list[Record] = []
        self._bar = Bar("lines")
        days = limits_in_force()[0].days
        self._oldest = time.time_ns() - int(days * DAY_NS) if days else 0

    def close(self) -> None:
        """Store what was read, and close the store."""
        try:
            self._flush()
        finally:
            self._store.close()

    def read(self, path: str) -> None:
        """Import one file; raises Stopped, AutoinstError."""
        number = 0
        try:
            with ExitStack() as stack:
                raw = sys.stdin.buffer if path == "-" else stack.enter_context(open(path, "rb"))
                total = os.fstat(raw.fileno()).st_size if path != "-" else 0  # 0 of a pipe, too
                bar = self._bar = stack.enter_context(Bar("lines"))
                for number, line in enumerate(lines(stack, raw), 1):
                    self.outcome.lines += 1
                    if len(line) > MAX_LINE:
                        self._wrong(path, number, f"longer than {MAX_LINE // 2**20} MB")
                    elif line.strip():
                        self._take(path, number, line)
                    bar.show(number, raw.tell() / total if total else None)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self._wrong(path, number + 1, f"the compressed file ends or is damaged here: {error}")
        except OSError as error:
            raise AutoinstError(f"{path}: {error.strerror or error}") from error

    def _take(self, path: str, number: int, line: bytes) -> None:
        try:
            record = parse(line)
        except NotAJobError as error:
            if number == 1 and line.startswith(b"id,status,"):
                raise UsageError(f"{path}: CSV cannot be imported; `autoinst export` writes JSON Lines") from None
            self._wrong(path, number, str(error))
            return
        if record.status == "running":
            self.outcome.running += 1
            return
        # Jobs that began at the same time are listed by their order in the store: they stay in one batch.
        if len(self._batch) >= BATCH and record.started_ns != self._batch[-1].started_ns:
            self._flush()
        self.outcome.old += record.started_ns < self._oldest
        self._batch.append(record)

    def _wrong(self, path: str, number: int, reason: str) -> None:
        done = self.outcome
        done.wrong += 1
        place = "standard input" if path == "-" else path
        if len(done.problems) < SHOWN:
            done.problems.append({"file": place, "line": number, "reason": reason})
            self._bar.clear()
            message(f"{place}:{number}: {reason}")
        if self._strict:
            raise Stopped

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        if not batch:
            return
        # An export has the newest first, a store the oldest.
        batch.reverse()
        with self._store.transaction():
            found = self._store.import_(batch)
        self.outcome.inserted = total((self.outcome.inserted, found))


def lines(stack: ExitStack, raw: Any) -> Iterator[bytes]:
    """Yield the lines of a file, decompressed if it is gzip's; one that is too long is cut after MAX_LINE bytes."""
    file = raw
    if raw.peek(len(GZIP))[: len(GZIP)] == GZIP:
        file = gzip.GzipFile(fileobj=raw)
        stack.callback(file.close)
    while True:
        line = file.readline(MAX_LINE + 1)
        if not line:
            return
        yield line
        while len(line) > MAX_LINE and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE + 1)


def _send(config: Config) -> None:
    """Have the store past this machine get what was imported, if there is one."""
    address = chosen(os.environ)
    if address is not None:
        from autoinst.cli import sending

        sending.catch_up(config, address)
