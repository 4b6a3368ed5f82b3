"""The agent: leads one home, moves what workers record into the store, and ends when there is nothing left to do."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import select
import signal
import sys
import time
from typing import TYPE_CHECKING

from autoinst import config as configuration
from autoinst.agent import runs
from autoinst.agent.drain import Drain
from autoinst.agent.exporting import Exporting
from autoinst.agent.intake import OPEN_LIMIT
from autoinst.agent.journal import open_journal
from autoinst.agent.lead import open_wake
from autoinst.agent.limits import limits
from autoinst.agent.sharing import open_home
from autoinst.demand import has_started
from autoinst.errors import AutoinstError, HomeError, StoreError
from autoinst.leader import leader
from autoinst.record import rfc3339
from autoinst.rules.cache import load_cached

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterator

    from autoinst.agent.entry import Counts
    from autoinst.store.retention import Limits

IDLE_SECONDS = 60.0
SHORTEST, LONGER = 0.05, 0.25  # seconds between two looks while jobs come: many, and few
LONGEST = 1.0  # and when none have come for a while
BATCH = 100  # jobs to find at a look: to store any takes 1.3 ms, whose share of each is small by then
LONGEST_TROUBLE = 30.0  # seconds between two attempts where the store cannot be written
MAKE_WAY_SECONDS = 10.0  # how long a daemon waits for a reader that drains
FORGET_SECONDS = 600.0  # between two looks at what is too old or too much
CLOCK_STEP = 5.0  # seconds the clock must be set by to be told of
LONG_STEP, DAY = 3600.0, 86_400.0  # seconds: beyond it ages mean nothing, until somebody has seen to the clock
FORGET_BATCHES = 4  # in one go, so that workers are not kept waiting
DESCRIPTORS = 4 * OPEN_LIMIT
WAIT_SECONDS = 1.0  # between two looks whether another agent has gone


class Agent:
    """One agent. `idle_seconds` None: it stays until it is told to end."""

    def __init__(self, home: str, journal: logging.Logger, *, idle_seconds: float | None) -> None:
        """Prepare to lead `home`; raises HomeError."""
        self.home = home
        self.journal = journal
        self.idle_seconds = idle_seconds
        self.stopping = False
        self._drain = Drain(home, is_agent=True)
        self._exporting = Exporting(journal)
        self._wake = -1
        self._signals = -1
        self._limits, problems = limits_in_force()
        for problem in problems:
            journal.warning("%s", problem)
        self._forget_at = self._look_at = 0.0
        self._asked = False
        self._clock = time.time() - _uptime()
        self._set_by = 0.0  # seconds, since it was looked last for what is too old
        self._said: tuple[str, float] = ("", 0.0)

    def run(self) -> int:
        """Lead until told to end or idle; return the exit status."""
        with self._listening():
            try:
                if self._take_lead():
                    self._wake = open_wake(self.home)
                    self._serve()
            except HomeError as error:
                self.journal.error("ended: %s", error)
                return 1
            finally:
                self._exporting.end()
                with contextlib.suppress(StoreError):
                    self._drain.close()
                if self._wake >= 0:
                    os.close(self._wake)
        return 0

    def _take_lead(self) -> bool:
        deadline = time.monotonic() + MAKE_WAY_SECONDS
        waiting_for = 0
        while not self.stopping:
            if self._drain.lead.acquire():
                self.journal.info("leads %s", self.home)
                has_started(self.home)
                return True
            found = leader(self.home)
            if found is not None and found.is_agent:
                if self.idle_seconds is not None:
                    self.journal.info("ended: process %d leads %s already", found.pid, self.home)
                    return False
                if found.pid != waiting_for:
                    self.journal.info("waits: process %d leads %s", found.pid, self.home)
                    waiting_for = found.pid
            elif self.idle_seconds is not None and time.monotonic() > deadline:
                self.journal.info("ended: another process is draining %s", self.home)
                return False
            self._sleep(WAIT_SECONDS if waiting_for else SHORTEST)
        return False

    def _serve(self) -> None:
        interval = SHORTEST
        quiet_since = time.monotonic()
        while True:
            last = self.stopping  # a signal from now on has another look follow
            quiet = self.idle_seconds is not None and time.monotonic() - quiet_since >= self.idle_seconds
            known, began_ns = self._arenas() if quiet else None, time.time_ns()
            counts = self._round(everywhere=last or quiet)
            self._exporting.tend(new_jobs=counts is not None and bool(counts.stored or counts.replaced))
            if last:
                self.journal.info("ended: told to")
                return
            some = 0 if counts is None else counts.stored + counts.replaced + counts.counted + counts.left_out
            if counts is None:
                interval = min(max(interval, SHORTEST) * 2, LONGEST_TROUBLE)
            elif counts.more:
                interval = SHORTEST
            elif some:
                interval = min(max(interval * BATCH / some, SHORTEST), LONGER)
            else:
                interval = min(interval * 2, LONGEST)
            now = time.monotonic()
            if counts is not None and (some or counts.more or self._in_use(began_ns)):
                quiet_since = now
            elif known is not None and self._may_end(known):
                self.journal.info("ended: nothing to do for %g s", self.idle_seconds)
                return
            self._sleep(interval)

    def _in_use(self, since_ns: int) -> bool:
        """Return whether a worker or a program lives, or there are jobs that can be sent."""
        return self._drain.living(since_ns) or bool(runs.living(self.home)) or self._exporting.busy

    def _round(self, *, everywhere: bool = True) -> Counts | None:
        """Look at the arenas once; None where the store did not take what there is, which stays where it was.

        At all of them at least once a second; in between, where there are many, only at those that are in use.
        """
        try:
            if not self._drain.acquire(SHORTEST):
                raise StoreError(f"{self.home}: another process took the lead")  # noqa: TRY301
            if not self._drain.lead.in_place():
                raise HomeError(f"{self.home} was removed")  # noqa: TRY301
            now = time.monotonic()
            if everywhere or self._asked or now >= self._look_at or not self._drain.has_many():
                self._asked = False
                self._look_at = now + LONGEST
                counts = self._drain.run_dry()
            else:
                counts = self._drain.glance()
            self._watch_clock()
            if time.monotonic() >= self._forget_at:
                self._forget()
        except StoreError as error:
            self._complain(str(error))
            return None
        except HomeError as error:
            lead = self._drain.lead
            if not os.path.isdir(self._drain.spool) or (lead.held and not lead.in_place()):
                raise HomeError(f"{self.home} was removed") from error
            self._complain(str(error))
            return None
        except OSError as error:  # descriptors, memory: it passes, or the log says why it does not
            self._complain(str(error))
            return None
        for note in self._drain.notes:
            self.journal.warning("%s", note)
        self._drain.notes.clear()
        self._said = ("", 0.0)
        return counts

    def _forget(self) -> None:
        """Remove some of what is beyond the limits; the rest is the next round's."""
        step, self._set_by = self._set_by, 0.0
        if abs(step) > LONG_STEP:
            self.journal.warning("the clock was set by %+.0f s in all: nothing is removed for a day", step)
            self._forget_at = time.monotonic() + DAY
            return
        settings = load_cached(configuration.from_environ()).settings  # the rules file may have changed
        self._limits, _ = limits(os.environ, settings)
        self._drain.expect_check_ins(settings.get("check_ins") or ())
        found = self._drain.forget(self._limits, batches=FORGET_BATCHES)
        if found.jobs:
            self.journal.info("removed %d jobs beyond the limits", found.jobs)
        if not found.more:
            self._forget_at = time.monotonic() + FORGET_SECONDS

    def _watch_clock(self) -> None:
        """Tell the log and the store, for `doctor`, if the clock was set."""
        step = self._clock_step()
        if abs(step) < CLOCK_STEP:
            return
        self._set_by += step
        text = f"set by {step:+.0f} s, to {rfc3339(time.time_ns())}: times of jobs before and after do not compare"
        self.journal.warning("the clock was %s; nothing is lost", text)
        if self._drain.store is not None:
            with self._drain.store.transaction():
                self._drain.store.note_problem("clock", text)

    def _clock_step(self) -> float:
        """Return by how many seconds the clock was set since this was asked last."""
        before, self._clock = self._clock, time.time() - _uptime()
        return self._clock - before

    def _complain(self, text: str) -> None:
        """Log a trouble, the same one once a minute."""
        said, at = self._said
        now = time.monotonic()
        if text != said or now - at > IDLE_SECONDS:
            self.journal.error("%s; nothing is lost, trying again", text)
            self._said = (text, now)

    def _may_end(self, known: set[str]) -> bool:
        """Stop leading, unless a program was started at this very moment that counts on this agent.

        `known` are the arenas that were there before the last look.
        """
        with contextlib.suppress(StoreError):
            self._drain.close()
        if self._arenas() <= known and not runs.living(self.home):
            return True
        return not self._drain.lead.acquire(SHORTEST)

    def _arenas(self) -> set[str]:
        try:
            return {name for name in os.listdir(self._drain.spool) if name.endswith(".arena")}
        except OSError:
            return set()

    def _sleep(self, seconds: float) -> None:
        """Sleep until a reader asks, a signal comes, or `seconds` are over."""
        if self.stopping:
            return
        own = [fd for fd in (self._wake, self._signals) if fd >= 0]
        exporters = self._exporting.descriptor  # what they say is heard after the next look
        waiting = select.poll()  # select() knows no descriptor above 1,023
        for fd in [*own, exporters] if exporters >= 0 else own:
            waiting.register(fd, select.POLLIN)
        for fd, _ in waiting.poll(math.ceil(seconds * 1e3)):
            if fd in own:
                self._asked = True
                with contextlib.suppress(BlockingIOError):
                    os.read(fd, 4096)

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Have SIGTERM and SIGINT end the agent after a last look, out of any sleep."""
        self._signals, writing = os.pipe()
        os.set_blocking(self._signals, False)
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(-1)
            os.close(writing)
            os.close(self._signals)

    def _stop(self, _number: int, _frame: object) -> None:
        self.stopping = True


def limits_in_force() -> tuple[Limits, list[str]]:
    """Return what this process's environment and rules file keep, and what is wrong with the variables."""
    return limits(os.environ, load_cached(configuration.from_environ()).settings)


def _uptime() -> float:
    """Return a clock in seconds that nobody sets, one that goes on while the machine sleeps if there is one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _allow_descriptors() -> None:
    """Let this process open as many files as it keeps arenas mapped, where it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def idle_seconds() -> float:
    """Return AUTOINST_AGENT_IDLE, the default where it is no number of seconds."""
    try:
        seconds = float(os.environ.get("AUTOINST_AGENT_IDLE") or IDLE_SECONDS)
    except ValueError:
        return IDLE_SECONDS
    return seconds if seconds >= 0 else IDLE_SECONDS


def main(arguments: list[str]) -> int:
    """Run the agent's own process; `--foreground` logs to standard error and stays until it is told to end."""
    foreground = "--foreground" in arguments
    os.umask(0o077)
    config = configuration.from_environ()
    home = config.home
    _allow_descriptors()
    try:
        journal = open_journal(open_home(home, config.group), foreground=foreground)
        agent = Agent(home, journal, idle_seconds=None if foreground else idle_seconds())
        return agent.run()
    except (AutoinstError, OSError) as error:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"autoinst agent: {error}\n")
        return 1
