"""Records the jobs of this process, and of those it forks, while a block runs; nothing of it is left behind."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import TYPE_CHECKING

from autoinst.agent.drain import drain_once
from autoinst.agent.inflight import running
from autoinst.config import Config
from autoinst.hook.scope import Scope
from autoinst.spool.reader import Arena
from autoinst.store.query import JobFilter
from autoinst.store.sqlite import Store
from autoinst.testing.jobs import Jobs
from autoinst.testing.rules import load
from autoinst.trace import recorder as recorders
from autoinst.trace.recorder import Recorder

if TYPE_CHECKING:
    from types import TracebackType

    from autoinst.record import Record
    from autoinst.testing.rules import Rules


class record:  # noqa: N801 - a context manager reads as a verb
    """Record the jobs inside a block: `with autoinst.testing.record("rules.yaml") as jobs: ...`.

    `rules` (a file or folder, its text, or a mapping) are in force inside the block, for modules that are loaded
    already and those that are imported in it; `packs` as AUTOINST_PACKS. Without `rules` what is recorded are
    `autoinst.monitor` and `Transaction`, and in a process started under autoinst what its own rules name. Jobs are
    there as soon as they have ended, and stay after the block; those in progress have the status `running`.

    Raises RulesError for rules with problems, RuntimeError for rules where others are in force already.
    """

    def __init__(self, rules: Rules | None = None, *, packs: str = "none") -> None:
        """Prepare the recording; nothing happens before the block."""
        self._rules = rules
        self._packs = packs
        self._home = ""
        self._records: list[Record] | None = None
        self._scope: Scope | None = None
        self._before: Recorder | None = None
        self._recorder: Recorder | None = None

    def __enter__(self) -> Jobs:
        """Begin, and return the jobs, which grow with each that ends."""
        self._home = tempfile.mkdtemp(prefix="autoinst-testing-")
        self._records = None
        try:
            self._begin()
        except BaseException:
            shutil.rmtree(self._home)
            raise
        return Jobs(self._read)

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """End, and remove all but the records read so far."""
        try:
            self._records = self._read()
        finally:
            if self._scope is not None:
                self._scope.end()
            recorders.active = self._before
            if self._recorder is not None:
                self._recorder.spool.abandon()
            self._scope = self._recorder = self._before = None  # its arenas are mapped as long as it lives
            shutil.rmtree(self._home, ignore_errors=True)

    def _begin(self) -> None:
        config = Config({"AUTOINST_HOME": os.path.join(self._home, "home"), "AUTOINST_SPOOL_MAX": "0"}, "/")
        self._before = recorders.active
        if self._rules is not None:
            self._scope = Scope(config, load(self._rules, self._home, self._packs))
        else:
            settings = {} if self._before is None else self._before.settings
            recorders.configure(Recorder(config, settings))
        self._recorder = recorders.active

    def _read(self) -> list[Record]:
        if self._records is not None:
            return self._records
        assert self._recorder is not None
        spool = self._recorder.spool
        found: dict[str, Record] = {}
        for arena in tuple(spool.arenas):
            # A copy: to open the file would have the kernel take this process for dead.
            copy = Arena(bytes(arena.mm), arena.path)
            for flight in copy.running():
                flight.record.status = "running"
                found[flight.record.id] = flight.record
            done = copy.done()
            found.update((record.id, record) for record in (*done.records, *done.left_out))
        own = {os.path.basename(arena.path) for arena in spool.arenas}
        home = self._recorder.config.home
        if any(name.endswith(".arena") and name not in own for name in _listing(spool.folder)):
            found.update((record.id, record) for record in running(home))
            drain_once(home)
        found.update((record.id, record) for record in stored(home))
        return sorted(found.values(), key=lambda record: record.started_ns)


def stored(home: str) -> list[Record]:
    """Return the jobs in the store of a home, the first started first."""
    path = os.path.join(home, "store.sqlite3")
    if not os.path.isfile(path):
        return []
    with Store(path, readonly=True) as store:
        return list(store.jobs(JobFilter(limit=0)))[::-1]


def _listing(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
