"""A run of a job as a rule opens it: the little that its record needs. It unfolds into a Transaction if more is.

Most jobs of a rule without fields begin and end, with events at the most, and nothing looks at them; these never make
a Transaction.
"""

from __future__ import annotations

import sys
import time
from _thread import get_ident

from autoinst.spool import layout
from autoinst.trace import faults
from autoinst.trace import recorder as recorders
from autoinst.trace.context import Node, current, leave, set_current
from autoinst.trace.tail import tail_of_events

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from autoinst.spool.slots import Slot
    from autoinst.spool.writer import Names, Spool
    from autoinst.trace.transaction import Transaction

UNKNOWN_THREAD = "?"
NAN = float("nan")

_now = time.time_ns
_clock = time.monotonic_ns
_modules = sys.modules
_making: dict[int, Transaction] = {}  # by run: where two threads ask for its transaction at once, both get the same


class Kind:
    """What all runs of one job have in common; the spool keeps it packed, by identity."""

    __slots__ = ("action", "class_name", "ignored", "method", "name", "namespace", "rule")

    def __init__(
        self, namespace: str, name: str, rule: str, ignored: tuple[str, ...], class_name: str, method: str, action: str
    ) -> None:
        """Describe the job `action` (`Class#method`) of the rule at `rule` (`file:line`)."""
        self.namespace = namespace
        self.name = name
        self.rule = rule
        self.ignored = ignored
        self.class_name = class_name
        self.method = method
        self.action = action

    def names(self, thread: str) -> Names:
        """Return the texts of a slot for a run in `thread`."""
        return self.action, None, 0, self.namespace, self.name, self.rule, thread


class Run(Node):
    """One run in progress, stored in `slot` (None: it can only be counted); `site` is the probe that opened it."""

    __slots__ = (
        "closed",
        "dropped_events",
        "event_text",
        "events",
        "kind",
        "seq",
        "site",
        "slot",
        "spool",
        "started_ns",
        "thread",
    )

    closed: bool
    dropped_events: int  # this and event_text: set with the first of the events
    event_text: int
    events: list[list[Any]] | None
    kind: Kind
    seq: int
    site: Any
    slot: Slot | None
    spool: Spool
    started_ns: int
    thread: str

    def finish(self) -> None:
        """Store the record of a run that ended well, and leave the context."""
        if self.transaction is not None:
            self.transaction.complete()
            return
        duration = _clock() - self.started
        spool = self.spool
        slot = self.slot
        if slot is None or spool.crowded or not spool.here[0]:
            self.whole().complete()
            return
        try:
            leave(self)
            if self.events is None:
                spool.complete(slot, self.seq, self.started_ns, duration)
            else:
                spool.finish(slot, self.seq, self.started_ns, duration, NAN, layout.OK, 0, tail_of_events(self))
            self.closed = True
            if self.transaction is not None:  # of another thread, made meanwhile
                self.transaction.closed = True
        except BaseException as error:
            # A signal handler's exception may land in here: the record is stored all the same, then it goes on.
            self.whole().complete()
            if not faults.absorbed(error, "run"):
                raise

    def whole(self) -> Transaction:
        """Return the Transaction that this run is, made now if nothing has asked for it before."""
        if self.transaction is None:
            from autoinst.trace.transaction import Transaction

            kind = self.kind
            made = _making.setdefault(id(self), Transaction(kind.namespace, kind.name, kind.rule, self))
            if self.transaction is None:
                self.transaction = made
                made.closed = made.closed or self.closed
            _making.pop(id(self), None)
        return self.transaction


def start(kind: Kind, site: Any, now: int) -> Run:
    """Open a run of `kind` that begins `now` (monotonic ns), outside any other: claim a slot and make it current."""
    run = Run()
    run.event = -1
    run.parent = run.saved = run.token = run.transaction = run.slot = run.events = None
    run.closed = False
    run.kind = kind
    run.site = site
    spool = (recorders.active or recorders.get()).spool
    if not spool.here[0]:  # a fork that ran no hooks
        spool = recorders.get().forked()
    run.spool = spool
    # As `thread_name` has it, which costs this a call.
    threading = _modules.get("threading")
    if threading is None:
        thread = "MainThread"
    else:
        found = threading._active.get(get_ident())
        thread = UNKNOWN_THREAD if found is None else found._name
        if type(thread) is not str:
            thread = UNKNOWN_THREAD
    run.thread = thread
    run.seq = seq = spool.next_seq()
    run.started_ns = started_ns = _now()
    run.started = now
    try:
        spool.start(run, seq, started_ns, kind, thread)
        run.token = set_current(run)
    except BaseException as error:
        # A signal handler's exception: the probe finds the run that it has opened as the current one.
        if run.slot is not None and current.get() is not run:
            run.token = set_current(run)
        # After a fault of ours the run goes on, if it has begun: else it would stay open for good.
        if run.slot is None or not faults.absorbed(error, "start"):
            raise
    return run


def thread_name() -> str:
    """Return the name of the running thread, without making a dummy object of one that Python did not start."""
    threading = _modules.get("threading")
    if threading is None:
        return "MainThread"
    thread = threading._active.get(get_ident())
    name = UNKNOWN_THREAD if thread is None else thread._name
    return name if type(name) is str else UNKNOWN_THREAD
