"""The exporters' own process beside the agent: a thread for each feed, so that none holds up another, nor the drain.

The agent starts it with a pipe as its standard input. A byte there means that there may be new jobs; its end, that the
agent has ended or is gone. What it has to say it writes to standard output, a line each, for the agent's log.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

from autoinst import config as configuration
from autoinst.config import STORE_NAME, share_file
from autoinst.errors import AutoinstError, StoreError
from autoinst.export.changes import pumps
from autoinst.export.choice import BUSY_MARK, GRACE_SECONDS, IDLE_MARK, LOCK_NAME
from autoinst.export.pump import IDLE, Pump
from autoinst.export.settings import choose
from autoinst.rules.cache import load_cached

if TYPE_CHECKING:
    from collections.abc import Mapping

    from autoinst.config import Config
    from autoinst.export.feed import Service
    from autoinst.export.settings import Chosen

LOCK_POLL = 0.2
LONGEST = 30.0  # seconds between two looks where nobody asks for one


class Lines(logging.Handler):
    """Writes each record as one line to a descriptor."""

    def __init__(self, descriptor: int) -> None:
        """Write to `descriptor`."""
        super().__init__()
        self._descriptor = descriptor

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; where nobody reads any more there is nobody to tell."""
        line = record.getMessage().replace("\n", " ") + "\n"
        with contextlib.suppress(OSError):
            os.write(self._descriptor, line.encode("utf-8", "backslashreplace"))


class Runner:
    """Runs the pumps of a home, each in a thread of its own."""

    def __init__(self, chosen: Chosen, store: str, journal: logging.Logger) -> None:
        """Prepare to move jobs of `store`."""
        self.pumps = pumps_of(chosen, store, journal)
        self._services = chosen.services
        self._store = store
        self._journal = journal
        self._events = [threading.Event() for _ in self.pumps]
        self._stop = threading.Event()
        self._deadline = float("inf")
        self._busy: set[int] = set()
        self._threads = [
            threading.Thread(target=self._run, args=(number,), name=pump.feed.name, daemon=True)
            for number, pump in enumerate(self.pumps)
        ]
        self._threads += [
            threading.Thread(target=self._serve, args=(service,), name=service.name, daemon=True)
            for service in self._services
        ]

    def start(self) -> None:
        """Start all threads."""
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Have all feeds look for new jobs."""
        for event in self._events:
            event.set()

    def stop(self, grace: float) -> None:
        """Let the feeds send what they can within `grace` seconds, and end."""
        self._deadline = time.monotonic() + grace
        self._stop.set()
        self.wake()
        for thread in self._threads:
            thread.join(max(self._deadline - time.monotonic(), 0.0) + 0.1)

    def _run(self, number: int) -> None:
        pump, event = self.pumps[number], self._events[number]
        try:
            while True:
                event.clear()
                stopping = self._stop.is_set()
                turn = pump.turn(all_now=stopping)
                self._tell(number, busy=turn.wait != IDLE and not turn.troubled)
                if stopping and (turn.wait or time.monotonic() >= self._deadline):
                    return
                if turn.wait:
                    self._wait(event, min(turn.wait, LONGEST), asked=turn.wait == IDLE)
        except Exception:  # a defect in one exporter must not end the others
            self._tell(number, busy=False)
            self._journal.exception("%s: ended by a defect", pump.feed.name)
        finally:
            pump.close()

    def _serve(self, service: Service) -> None:
        try:
            service.run(self._store, self._journal, self._stop)
        except Exception:  # a defect in one exporter must not end the others
            self._journal.exception("%s: ended by a defect", service.name)

    def _wait(self, event: threading.Event, seconds: float, *, asked: bool) -> None:
        """Wait; new jobs end it only where it waits for them."""
        deadline = time.monotonic() + seconds
        while not self._stop.is_set() and (left := deadline - time.monotonic()) > 0:
            if event.wait(left):
                if asked or self._stop.is_set():
                    return
                event.clear()

    def _tell(self, number: int, *, busy: bool) -> None:
        before = bool(self._busy)
        (self._busy.add if busy else self._busy.discard)(number)
        if bool(self._busy) != before:
            self._journal.info("%s", BUSY_MARK if self._busy else IDLE_MARK)


def pumps_of(chosen: Chosen, store: str, journal: logging.Logger) -> list[Pump]:
    """Return what moves jobs of `store` to all that is chosen."""
    moved = [Pump(feed, store, journal) for feed in chosen.feeds]
    return [*moved, *pumps(chosen.store, store, journal)] if chosen.store is not None else moved


def take_lock(home: str, *, wait: bool) -> int:
    """Return a descriptor that holds the lock of the home's exporters; -1 where another process does.

    With `wait`, wait for it until standard input ends. Raises OSError.
    """
    fd = os.open(os.path.join(home, LOCK_NAME), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    share_file(fd, home)
    if wait:
        os.set_blocking(0, False)
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait or _ended():
                os.close(fd)
                return -1
            time.sleep(LOCK_POLL)
        else:
            return fd


def _ended() -> bool:
    try:
        return not os.read(0, 4096)
    except BlockingIOError:
        return False


def run_once(config: Config, environ: Mapping[str, str], journal: logging.Logger) -> tuple[list[str], bool]:
    """Send all there is, each feed until it has nothing more or fails; return a line for each, and if all is well."""
    lock = take_lock(config.home, wait=False)
    if lock < 0:
        return ["the exporters of this home run already, in another process"], True
    try:
        return _send_all(config, choose(environ, load_cached(config).settings, config.home), journal)
    finally:
        os.close(lock)


def _send_all(config: Config, chosen: Chosen, journal: logging.Logger) -> tuple[list[str], bool]:
    path = os.path.join(config.home, STORE_NAME)
    results: dict[str, str] = {}
    failed: set[str] = set()

    def work(pump: Pump) -> None:
        sent = 0
        try:
            while True:
                turn = pump.turn(all_now=True)
                sent += turn.sent
                if turn.wait:
                    break
            text = f"{pump.feed.name}: {sent} {pump.feed.source.noun} sent"
            if pump.trouble:
                failed.add(pump.feed.name)
                text += f", {pump.waiting()} wait: {pump.trouble}"
        except StoreError as error:
            failed.add(pump.feed.name)
            text = f"{pump.feed.name}: {error}"
        finally:
            pump.close()
        results[pump.feed.name] = text

    def serve(service: Service) -> None:
        try:
            results[service.name] = service.once(path)
        except (AutoinstError, OSError) as error:
            failed.add(service.name)
            results[service.name] = f"{service.name}: {service.place}: {getattr(error, 'strerror', None) or error}"

    everyone = pumps_of(chosen, path, journal)
    threads = [threading.Thread(target=work, args=(pump,)) for pump in everyone]
    threads += [threading.Thread(target=serve, args=(service,)) for service in chosen.services]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = [results.get(name) for name in (*(p.feed.name for p in everyone), *(s.name for s in chosen.services))]
    lines = [*chosen.problems, *filter(None, told)]
    return lines, not (chosen.problems or failed)


def main() -> int:
    """Run as the agent's child until standard input ends; return the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C means the agent, which ends this one
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.umask(0o077)
    logging.raiseExceptions = False
    journal = logging.getLogger("autoinst.export")
    journal.setLevel(logging.INFO)
    journal.propagate = False
    journal.handlers[:] = [Lines(1)]
    config = configuration.from_environ()
    try:
        lock = take_lock(config.home, wait=True)
        if lock < 0:
            return 0
        chosen = choose(os.environ, load_cached(config).settings, config.home)
    except (AutoinstError, OSError) as error:
        journal.error("exporters: %s", error)
        return 1
    for problem in chosen.problems:
        journal.error("%s", problem)
    runner = Runner(chosen, os.path.join(config.home, STORE_NAME), journal)
    runner.start()
    for pump in runner.pumps:
        journal.info("%s: to %s", pump.feed.name, pump.feed.place)
    os.set_blocking(0, True)
    while os.read(0, 4096):
        runner.wake()
    runner.stop(GRACE_SECONDS)
    os.close(lock)
    return 0
