"""A transaction: one run of a job, from its start to the record left in the spool.

The names are those of AppSignal's transactions; the numbers' units are AppSignal's and Sidekiq's (milliseconds).
"""

from __future__ import annotations

import time

from autoinst.spool import layout
from autoinst.spool.shorten import spelled_out
from autoinst.trace import faults
from autoinst.trace import recorder as recorders
from autoinst.trace.context import Node, current, leave, set_current
from autoinst.trace.exceptions import MAX_CAUSES, matches, status_of
from autoinst.trace.faults import fail_open, nothing
from autoinst.trace.null import NULL, is_ignored_exception, null
from autoinst.trace.payload import MAX_JOB_ID, adopt_pending
from autoinst.trace.run import thread_name
from autoinst.trace.tail import tail_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from typing_extensions import Self

    from autoinst.spool.slots import Slot
    from autoinst.spool.writer import Names, Spool
    from autoinst.trace.null import NullTransaction
    from autoinst.trace.run import Run
    from autoinst.trace.sanitize import Sanitizer

BACKGROUND_JOB = "background_job"
DEFAULT_NAME = "perform_job.python"
NAN = float("nan")
MAX_TAGS = 50
HEX_ID = 32  # digits

_now = time.time_ns
_clock = time.monotonic_ns


class Transaction(Node):
    """One run of a job. `Transaction.create` starts one; a matching rule does so by itself."""

    # Slots, and each set in __init__: a default in the class would cost a lookup by name at every read.
    __slots__ = (
        "_action",
        "_given_id",
        "_recorder",
        "_seq",
        "_thread",
        "attempts",
        "class_name",
        "closed",
        "details",
        "dropped_events",
        "enqueued_ns",
        "event_text",
        "events",
        "exception",
        "flags",
        "ignored",
        "method",
        "name",
        "named",
        "namespace",
        "parent_span_id",
        "queue",
        "queue_time",
        "rule",
        "run",
        "site",
        "slot",
        "spool",
        "started_ns",
        "tags",
        "trace_id",
    )

    def __init__(self, namespace: str, name: str, rule: str | None, run: Run | None = None) -> None:
        """Start the clocks, or take over those of `run`; nothing is stored before `open`."""
        recorder = recorders.active or recorders.get()
        if run is None:
            spool = recorder.spool
            if not spool.here[0]:  # a fork that ran no hooks
                spool = recorder.forked()
        else:
            spool = run.spool
        self._recorder = recorder
        self.spool = spool
        self.run = run
        self.event = -1
        self.transaction = None  # itself, by `owner`: a reference to itself would wait for the garbage collector
        self.parent = self.saved = self.token = None
        self.namespace = namespace
        self.name = name
        self.rule = rule
        self.named = False
        self.class_name: str | None = None
        self.method: str | None = None
        self._action: str | None = None  # spelled out beforehand by a rule's target
        self.queue: str | None = None
        self.queue_time = NAN  # ms
        self.enqueued_ns = 0
        self.attempts = 0
        self.events: list[list[Any]] | None = None
        self.dropped_events = 0
        self.event_text = 0
        self.details: dict[str, Any] | None = None
        self.tags: dict[str, Any] | None = None
        self.exception: BaseException | None = None
        self.ignored: tuple[str, ...] | None = None
        self.flags = 0
        self.closed = False
        self.site: tuple[Any, tuple[Any, ...]] | None = None
        self.trace_id: str | None = None
        self.parent_span_id: str | None = None
        self._given_id: str | None = None
        self.slot: Slot | None = None  # None: only counted
        if run is not None:
            self._take_over(run)
            return
        self._seq = spool.next_seq()
        self._thread = thread_name()
        self.started_ns = _now()
        self.started = _clock()

    def _take_over(self, run: Run) -> None:
        """Go on as the transaction of a `run` that is in progress, or was."""
        kind = run.kind
        self.class_name, self.method, self._action = kind.class_name, kind.method, kind.action
        self.ignored = kind.ignored
        self.named = True
        self.slot = run.slot
        self.events = run.events
        if run.events is not None:
            self.event_text, self.dropped_events = run.event_text, run.dropped_events
        self.closed = run.closed
        self._seq, self._thread, self.started_ns, self.started = run.seq, run.thread, run.started_ns, run.started

    # -- AppSignal's four steps -------------------------------------------------------------------------------------

    @classmethod
    @fail_open(null)
    def create(
        cls, id: object = None, namespace: str = BACKGROUND_JOB, env: Mapping[str, str] | None = None
    ) -> Transaction | NullTransaction:
        """Start a transaction and make it current.

        `id` that is a UUID or 32 hex digits becomes the record's id, any other text its `job_id`. Of `env` only
        allowed names are recorded. While one is open, that one is returned, with a RuntimeWarning as the gem gives.
        """
        running = cls.current()
        if isinstance(running, Transaction):
            import warnings

            warnings.warn("a transaction is already open and is used instead", RuntimeWarning, stacklevel=3)
            return running
        self = cls(str(namespace), DEFAULT_NAME, None)
        if id is not None:
            self._take_id(id)
        if env is not None:
            allowed = self._recorder.allowed_env(env)
            if allowed:
                self.set_detail("env", allowed)
        adopt_pending(self)
        self.open()
        return self

    @staticmethod
    def current() -> Transaction | NullTransaction:
        """Return the transaction of this context, a null object where there is none."""
        transaction = open_transaction()
        return NULL if transaction is None else transaction

    @fail_open(nothing)
    def add_exception(self, exception: BaseException) -> None:
        """Make `exception` the transaction's error; the first of several stays, the others become its causes."""
        if self.closed or self.foreign():
            return
        if self.exception is None:
            self.exception = exception
        elif self.exception is not exception:
            more = self._details().setdefault("more", [])
            if len(more) < MAX_CAUSES and not any(other is exception for other in more):
                more.append(exception)

    set_error = add_exception

    @fail_open(nothing)
    def complete(self) -> None:
        """Store the record. A second call does nothing."""
        self.finish(layout.UNSET)

    @fail_open(nothing)
    def discard(self) -> None:
        """Forget the transaction: it leaves no record."""
        if self.closed:
            return
        self.closed = True
        leave(self.run or self)
        self.run = None
        if self.slot is not None and not self.foreign():
            self.spool.discard(self.slot)

    is_ignored_exception = staticmethod(is_ignored_exception)

    # -- what is known of the job -----------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The record's id, 32 hex digits."""
        if self._given_id is not None:
            return self._given_id
        spool = self.spool
        uid = spool.uid if self.slot is None else spool.uid_of(self.slot)
        return layout.record_id(uid, self._seq)

    @property
    def sanitizer(self) -> Sanitizer:
        """What makes plain data of the program's values."""
        return self._recorder.sanitizer

    @property
    def action(self) -> str | None:
        """`Class#method`, or None while it is not known."""
        if self.class_name is None:
            return self.method
        return f"{self.class_name}#{self.method}" if self.method else self.class_name

    @fail_open(nothing)
    def set_action(self, action: str) -> None:
        """Name the transaction; text after the last `#` is the method."""
        class_name, mark, method = str(action).rpartition("#")
        self.class_name, self.method = (class_name, method) if mark else (method, None)
        self.named = True
        self.amend()

    @fail_open(nothing)
    def set_namespace(self, namespace: str) -> None:
        """Put the transaction in another namespace."""
        self.namespace = str(namespace)
        self.amend()

    @fail_open(nothing)
    def set_queue_start(self, start_ms: float) -> None:
        """Set when the job was put on its queue or became due, in milliseconds since the epoch."""
        try:
            start_ns = int(start_ms * 1_000_000)
        except (TypeError, ValueError, OverflowError):
            return
        self.set_enqueued(start_ns)
        self.amend()

    def set_enqueued(self, enqueued_ns: int) -> None:
        """Derive the queue time from the moment (ns since the epoch) the job was enqueued or became due."""
        self.enqueued_ns = enqueued_ns
        self.set_queue_time((self.started_ns - enqueued_ns) / 1e6)

    def set_queue_time(self, milliseconds: float) -> None:
        """Set the queue time; a negative one is kept as 0 and flagged as clock skew."""
        if milliseconds < 0:
            milliseconds = 0.0
            self.flags |= layout.FLAG_CLOCK_SKEW
        self.queue_time = milliseconds

    @fail_open(nothing)
    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Add tags: text keys, plain values; at most 50 are kept."""
        if not self.closed:
            self.merge_tags(self.sanitizer.mapping(dict(tags)))

    def merge_tags(self, tags: dict[str, Any]) -> None:
        """Add tags that are plain data already."""
        known = self.tags
        if known is None:
            known = self.tags = {}
        for key, value in tags.items():
            if len(known) < MAX_TAGS or key in known:
                known[key] = value

    @fail_open(nothing)
    def set_params(self, params: Mapping[str, Any]) -> None:
        """Set the job's parameters as a record shows them (`params`), secrets filtered."""
        if not self.closed:
            self.set_detail("params", self.sanitizer.mapping(dict(params)))

    def set_detail(self, key: str, value: Any) -> None:
        """Set one entry of the record's tail (plain data)."""
        self._details()[key] = value

    def _details(self) -> dict[str, Any]:
        details = self.details
        if details is None:
            details = self.details = {}
        return details

    def _take_id(self, given: object) -> None:
        text = str(given)
        digits = text.replace("-", "").lower()
        if len(digits) == HEX_ID and not digits.strip("0123456789abcdef"):
            self._given_id = digits
            self.set_detail("id", digits)
        else:
            self.set_detail("job_id", text[:MAX_JOB_ID])

    # -- storing ----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Claim a slot with what is known so far and make the transaction current."""
        action = self._action or self.action
        names = (action, self.queue, self.attempts, self.namespace, self.name, self.rule, self._thread)
        tail = tail_of(self, final=False) if self.details or self.tags or self.enqueued_ns or self.trace_id else b""
        self.slot = self.spool.begin(self._seq, self.started_ns, self.queue_time, names, tail)
        try:
            self.token = set_current(self)
        except BaseException as error:
            # As with a run: whatever this is, the slot is claimed, and somebody has to find whose it is.
            if current.get() is not self:
                self.token = set_current(self)
            if not faults.absorbed(error, "open"):
                raise

    def amend(self) -> None:
        """Bring the slot up to date, for the case that the process dies before the job ends."""
        if self.closed or self.slot is None or self.foreign():
            return
        tail = tail_of(self, final=False)
        self.slot = self.spool.amend(self.slot, self._seq, self.started_ns, self.queue_time, self._names(), tail)

    def _names(self) -> Names:
        return self.action, self.queue, self.attempts, self.namespace, self.name, self.rule, self._thread

    def finish(self, status: int) -> None:
        """Store the record with `status` (UNSET: ok, or what the exception says) and leave the context."""
        if self.closed:
            return
        duration = _clock() - self.started
        self.closed = True
        try:
            self._finish(duration, status)
        except BaseException as error:
            # A signal handler's exception may land in here: the record is stored all the same, then it goes on.
            self._finish(duration, status)
            if faults.is_ours(error):
                return
            raise
        finally:
            self.exception = None  # it holds the frames of the program
            self.run = None  # which refers to this
            if self.details is not None:
                self.details.pop("more", None)

    def _finish(self, duration: int, status: int) -> None:
        """Leave the context and store the record, both at most once."""
        leave(self.run or self)
        spool = self.spool
        if not spool.here[0]:
            return
        slot = self.slot
        if slot is not None and not spool.is_running(slot):
            return
        try:
            self._store(spool, duration, status)
        except Exception as error:
            if slot is None or not faults.is_ours(error):
                raise
            # Something in it cannot be marshalled: the fixed fields are better than a job that looks killed.
            faults.note(f"record without its details: {type(error).__name__}: {error}")
            status = status or (layout.OK if self.exception is None else layout.ERROR)
            flags = self.flags | layout.FLAG_TRUNCATED
            spool.finish(slot, self._seq, self.started_ns, duration, self.queue_time, status, flags, b"")

    def _store(self, spool: Spool, duration: int, status: int) -> None:
        exception = self.exception
        if status == layout.UNSET:
            status = layout.OK if exception is None else self._status(exception)
        slot = self.slot
        if slot is None:
            spool.overflow.add(self.action, status == layout.ERROR, duration)
            return
        bare = exception is None and not (self.events or self.details or self.tags or self.enqueued_ns or self.trace_id)
        tail = b"" if bare else tail_of(self, final=True)
        if spool.crowded:
            tail = spelled_out(tail, self._names())
        spool.finish(slot, self._seq, self.started_ns, duration, self.queue_time, status, self.flags, tail)

    def _status(self, exception: BaseException) -> int:
        ignored = self.ignored
        status = status_of(exception)
        if status == layout.ERROR and matches(exception, self._recorder.ignored if ignored is None else ignored):
            return layout.IGNORED
        return status

    def whole(self) -> Transaction:
        """Return itself."""
        return self

    def foreign(self) -> bool:
        """Return whether this object was inherited by a fork: the job is its parent's."""
        return not self.spool.here[0]

    def __enter__(self) -> Self:
        """Return the transaction; it is open already."""
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        """Complete the transaction with the error that left the block, if any."""
        if error is not None:
            self.add_exception(error)
        self.complete()


def open_transaction() -> Transaction | None:
    """Return the transaction that is open in this context, if it is this process's."""
    node = current.get()
    if node is None:
        return None
    transaction = owner(node)
    return None if transaction.closed or transaction.foreign() else transaction


def owner(node: Node) -> Transaction:
    """Return the transaction `node` is or belongs to."""
    return node.transaction or node.whole()
