"""`autoinst tail`: jobs as they end, until it is told to stop."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from autoinst.cli.filters import asked_for
from autoinst.cli.following import following
from autoinst.cli.output import Output, display_width, is_steerable, message
from autoinst.cli.reading import Home, short_id
from autoinst.config import from_environ
from autoinst.errors import StoreError
from autoinst.wording import clock, duration

if TYPE_CHECKING:
    import argparse

    from autoinst.record import Record
    from autoinst.store.query import JobFilter

ACTION_WIDTH = 44


def run(options: argparse.Namespace) -> int:
    """Print the last `options.limit` jobs, then each one as it ends; returns 0 at SIGINT. Raises UsageError."""
    tail = Tail(asked_for(options), Output(), as_json=options.json)
    try:
        tail.begin()
        if not options.no_follow:
            tail.follow()
    except KeyboardInterrupt:
        pass
    finally:
        tail.close()
    return 0


class Status:
    """A line below the jobs that says what is running now; only on a terminal, on standard error."""

    def __init__(self) -> None:
        """Use standard error."""
        self._out = Output(sys.stderr)
        self._shown = False

    def show(self, flying: list[Record]) -> None:
        """Say how many jobs run, and which has run longest."""
        if not is_steerable(sys.stderr):
            return
        self.clear()
        if not flying:
            text = "nothing is running"
        else:
            longest = min(flying, key=lambda record: record.started_ns)
            took = duration(longest.elapsed_ms(time.time_ns()))
            text = f"{len(flying)} running, the longest {longest.action or longest.name} for {took}"
        width = (self._out.width or 1) - 1
        sys.stderr.write(self._out.cut(" ".join(text.split()), width))
        sys.stderr.flush()
        self._shown = True

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
            self._shown = False


class Tail:
    """Writes the last jobs, then those that come."""

    def __init__(self, wanted: JobFilter, out: Output, *, as_json: bool) -> None:
        """Write the jobs that `wanted` asks for to `out`; raises StoreError."""
        self._wanted = wanted
        self._out = out
        self._json = as_json
        self.status = Status()
        self._config = from_environ()
        self._following = following(self._config, self._tell)
        self._written: frozenset[str] = frozenset()  # of the first ones, which may come again

    def begin(self) -> None:
        """Write the last jobs that ended, the latest at the end."""
        with Home(self._config) as home:
            if home.store is None or not home.store.last():
                message(f"no job is recorded in {home.path} yet")
                if home.store is None:
                    return
            self._following.begin(home)
            last = [] if self._wanted.limit == 0 else list(home.store.jobs(self._wanted))
            self._written = frozenset(record.id for record in last)
            for record in reversed(last):
                self._print(record)
            sys.stdout.flush()

    def follow(self) -> None:
        """Write jobs as they end, for good."""
        trouble = ""
        while True:
            try:
                self._look()
                trouble = ""
            except StoreError as error:  # one that is just being replaced, say; a later look tells
                if str(error) != trouble:
                    self._tell(f"{error}; looking again")
                trouble = str(error)
            time.sleep(self._following.seconds)

    def close(self) -> None:
        """Take the last line away, and close connections."""
        self.status.clear()
        self._following.close()

    def _tell(self, text: str) -> None:
        self.status.clear()
        message(text)

    def _look(self) -> None:
        anything = replace(self._wanted, limit=0)
        with Home(self._config, local=True) as home:
            for record in self._following.new(home):
                if record.id not in self._written and anything.matches(record):
                    self.status.clear()
                    self._print(record)
            sys.stdout.flush()
            self.status.show([record for record in home.flying if self._wanted.matches(record)])

    def _print(self, record: Record) -> None:
        if self._json:
            self._out.data(record.to_json())
            return
        out = self._out
        action = " ".join((record.action or record.name).split())
        parts = [
            out.style(clock(record.started_ns, time.time_ns()), "dim"),
            _padded(out.status(record.status), len(record.status) + 2, 9),
            f"{out.cut(action, ACTION_WIDTH):{ACTION_WIDTH}}",
            f"{duration(record.elapsed_ms(time.time_ns())) or '?':>9}",
            out.style(short_id(record.id), "dim"),
        ]
        if record.queue:
            waited = duration(record.queue_time_ms)
            parts.append(f"{record.queue}{f' (waited {waited})' if waited else ''}")
        if record.attempts is not None and record.attempts > 1:
            parts.append(f"attempt {record.attempts}")
        problem = record.problem()
        line = "  ".join(parts)
        if problem:
            room = None if out.width is None else max(out.width - display_width(line) - 2, 12)
            text = problem if room is None else out.cut(" ".join(problem.split()), room)
            line += "  " + out.style(text, "magenta" if record.status == "killed" else "red")
        out.line(line)


def _padded(styled: str, shown: int, width: int) -> str:
    return styled + " " * (width - shown)
