"""What the pages are read from: a home that is kept up to date while somebody looks, or a store as it lies there."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING

from autoinst.agent.drain import catch_up
from autoinst.agent.inflight import running
from autoinst.config import STORE_NAME
from autoinst.errors import AutoinstError, HomeError
from autoinst.store.sqlite import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from autoinst.record import Record
    from autoinst.store.interface import Readable, Writable

LOOK_SECONDS = 0.5  # between two looks while somebody looks
IDLE_SECONDS = 15.0  # after the last request
FIRST_SECONDS = 3.0  # how long a first page waits for the first look
AGENT_SECONDS = 1.0  # how long an agent that leads is waited for
LOCK_SECONDS = 1.0
POOLED = 8


class Source:
    """A home, or with `frozen` only what its store has already. `note` says why nothing new is read, if so."""

    def __init__(self, home: str, *, frozen: bool = False) -> None:
        """Read from the folder `home`, or from `home` itself where it is a file."""
        is_file = os.path.isfile(home)
        self.path = home if is_file else os.path.join(home, STORE_NAME)
        self.home = os.path.dirname(home) if is_file else home
        self.frozen = frozen or is_file
        self.note: str | None = None
        self.remarks: dict[str, str] = {}  # by page: what has to be known to read it
        self.flying: list[Record] = []
        self.version = 0  # changes whenever a page may look different
        self._seen: tuple[object, ...] = ()
        self._pool: list[tuple[int, Store]] = []
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._looked = threading.Event()
        self._closing = threading.Event()
        self._last_request = 0.0
        self._thread: threading.Thread | None = None

    @property
    def drained(self) -> str:
        """The home whose arenas are looked at."""
        return self.home

    def start(self) -> None:
        """Begin to look while somebody looks."""
        self._thread = threading.Thread(target=self._run, name="autoinst-source", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop looking and close all that is open."""
        self._closing.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join(LOOK_SECONDS + AGENT_SECONDS + 1)
        with self._lock:
            pool, self._pool = self._pool, []
        for _, store in pool:
            store.close()

    def touch(self) -> None:
        """Say that somebody looks; the first time wait until there is something to see."""
        self.listen()
        if self._thread is not None:
            self._looked.wait(FIRST_SECONDS)

    def listen(self) -> None:
        """Say that somebody looks, without waiting."""
        self._last_request = time.monotonic()
        self._wanted.set()

    @contextlib.contextmanager
    def store(self) -> Iterator[Readable]:
        """Lend what the pages are read from; raises StoreError."""
        with self.own() as store:
            yield store

    @contextlib.contextmanager
    def own(self) -> Iterator[Store]:
        """Lend the open store of the home, an empty one where nothing was recorded yet; raises StoreError."""
        found = self._file()
        store = self._take(found)
        kept = False
        try:
            yield store
            kept = True
        finally:
            self._give_back(found, store, kept=kept)

    def _file(self) -> int:
        try:
            return os.stat(self.path).st_ino
        except OSError:
            return 0

    def _take(self, file: int) -> Store:
        with self._lock:
            while self._pool:
                was, store = self._pool.pop()
                if was == file:
                    return store
                store.close()  # another file lies there now
        if not file:
            return Store.empty()
        return Store(self.path, readonly=True, timeout=LOCK_SECONDS, any_thread=True)

    def _give_back(self, file: int, store: Store, *, kept: bool) -> None:
        with self._lock:
            if kept and len(self._pool) < POOLED and not self._closing.is_set():
                self._pool.append((file, store))
                return
        store.close()

    @contextlib.contextmanager
    def writable(self) -> Iterator[Writable]:
        """Lend the store inside a transaction; raises HomeError where only reading is allowed, StoreError."""
        if self.frozen or not os.access(self.path, os.W_OK):
            raise HomeError(f"{self.path} may only be read here")
        with Store(self.path, timeout=LOCK_SECONDS * 3) as store, store.transaction():
            yield store
        self.version += 1

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wanted.wait()
            if self._closing.is_set():
                return
            self._look()
            self._looked.set()
            if time.monotonic() - self._last_request > IDLE_SECONDS:
                self._wanted.clear()
            self._closing.wait(LOOK_SECONDS)

    def _look(self) -> None:
        """Bring the store up to date and note what changed; what goes wrong is told on the pages."""
        note = None
        if not self.frozen:
            # First what runs, then what has ended: so a job that ends meanwhile is seen twice, never lost.
            try:
                self.flying = running(self.drained)
                if os.path.isdir(self.drained) and not catch_up(self.drained, AGENT_SECONDS):
                    note = "The agent has not answered: this is what was stored already."
            except AutoinstError as error:
                note = f"Nothing new is read: {error}"
        try:
            with self.store() as store:
                seen: tuple[object, ...] = (store.last(), [record.id for record in self.flying], note)
        except AutoinstError as error:
            seen = (str(error),)
        self.note = note
        if seen != self._seen:
            self._seen = seen
            self.version += 1
