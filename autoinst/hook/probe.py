"""The probes: what runs when an instrumented function starts, ends, raises, yields and resumes.

A probe never raises a fault of its own into the program; exceptions that signal handlers and other threads put into
it are the program's and pass.
"""

from __future__ import annotations

import sys
import time
from _weakref import ref as weak_reference

from autoinst.hook.constants import inert_probe
from autoinst.spool import layout
from autoinst.trace import faults, notifications
from autoinst.trace import recorder as recorders
from autoinst.trace.context import MOVED, current, resume, suspend
from autoinst.trace.events import Event, begin_event, end_event
from autoinst.trace.payload import Pending
from autoinst.trace.run import Kind, Run, start
from autoinst.trace.transaction import Transaction, owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from typing import Any, Literal

    from autoinst.hook.fields import Fields
    from autoinst.hook.registry import Registry, RuleState
    from autoinst.hook.target import Site, Target
    from autoinst.rules.model import Rule
    from autoinst.trace.context import Node

_clock = time.monotonic_ns
_current = current.get
_subscribers = notifications.subscribers
MAX_KINDS = 1_000  # actions of one probe kept packed: a method may be that of many classes


class NoFields:
    """The fields of a rule that has none."""

    __slots__ = ("names", "where")

    at_enter = at_exit = ()
    when = None
    title = body = False

    def __init__(self, target: Target) -> None:
        """Ask for `self` alone, which names the class."""
        first = target.parameters.first
        self.names = (first,) if target.reads_self and first else ()


class Probe:
    """One instrumented function under one rule.

    `gate`, where there is one, opens the call instead of `begin`, if it is to be opened: asked of a rule with a
    condition, and of a probe whose rule has changed meanwhile (see moved.py); `successors` are then those that act.
    """

    __slots__ = (
        "__weakref__",
        "fields",
        "gate",
        "name",
        "registry",
        "rule",
        "site",
        "state",
        "successors",
        "target",
    )

    def __init__(self, registry: Registry, state: RuleState, target: Target, site: Site) -> None:
        """Prepare the rule's fields for the parameters of `target`, at `site`."""
        self.registry = registry
        self.state = state
        self.rule = state.rule
        self.target = target
        self.name = state.rule.name
        self.fields = self.read()
        is_conditional = target.base is not None or self.fields.when is not None
        self.gate: Callable[[Probe, tuple[Any, ...]], Node | None] | None = conditional if is_conditional else None
        self.successors: tuple[Probe, ...] = ()
        self.site = site

    def read(self) -> Fields:
        """Return what the rule reads of a call."""
        if not self.rule.fields:
            return NoFields(self.target)  # type: ignore[return-value]  # what is asked where there are none
        # Imported with the first rule that needs it: expressions cost a start-up half a millisecond.
        from autoinst.hook.fields import Fields

        return Fields(self.rule, self.target, self.registry.unavailable, self.registry.tell_soon)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle (by value, as cloudpickle does with functions) as something inert that needs no autoinst."""
        return inert_probe()

    def enter(self, values: tuple[Any, ...]) -> Node | None:
        """Note the start of a call; `values` are the arguments the rule reads."""
        self.state.calls += 1
        try:
            gate = self.gate
            return self.begin(values) if gate is None else gate(self, values)
        except Exception as error:
            if not faults.absorbed(error, f"{self.rule.where}: enter"):
                raise
            return None

    def exit(self, node: Node | None, result: Any) -> None:
        """Note that the call returned `result`."""
        if node is None:
            return
        try:
            self.end(node, result, None)
        except Exception as error:
            if not faults.absorbed(error, f"{self.rule.where}: exit"):
                raise

    def error(self, node: Node | Literal[False] | None, exception: BaseException) -> None:
        """Note that the call raised `exception`; `node` is False where that kept `enter` from returning."""
        if node is None:
            return
        try:
            if node is False:
                node = self.left_open()
                if node is None:
                    return
                site: Any = node.site
                opener: Probe = site[0] if isinstance(node, Transaction) else site
                opener.end(node, None, exception)
                return
            self.end(node, None, exception)
        except Exception as error:
            if not faults.absorbed(error, f"{self.rule.where}: error"):
                raise

    def suspend(self, node: Node | None) -> None:
        """Note that a generator yields."""
        if node is not None:
            suspend(node)

    def resume(self, node: Node | None) -> None:
        """Note that a generator's body runs on."""
        if node is not None:
            resume(node)

    def first(self, generator: AsyncGenerator[Any, Any]) -> Awaitable[Any]:
        """Start an inner async generator unseen by the event loop, which knows the outer one and would close both."""
        first, last = sys.get_asyncgen_hooks()
        if first is None and last is None:
            return generator.__anext__()
        sys.set_asyncgen_hooks(firstiter=None, finalizer=None)
        try:
            return generator.__anext__()
        finally:
            sys.set_asyncgen_hooks(firstiter=first, finalizer=last)

    def begin(self, values: tuple[Any, ...]) -> Node | None:
        """Open what the rule opens; subclasses say what."""
        raise NotImplementedError

    def end(self, node: Node, result: Any, exception: BaseException | None) -> None:
        """Close what `begin` opened."""
        raise NotImplementedError

    def move_to(self, rule: Rule) -> None:
        """Go by `rule`, which says the same at another place of its file."""
        self.rule = rule
        self.fields.where = rule.where

    def left_open(self) -> Run | Transaction | None:
        """Return what was opened last in this context, where an exception kept `enter` from returning it."""
        node = current.get()
        if not isinstance(node, (Run, Transaction)) or node.site is None or node.closed:
            return None
        site: Any = node.site
        probe = site[0] if isinstance(node, Transaction) else site
        return node if probe is self or probe in self.successors else None


class JobProbe(Probe):
    """Opens a transaction, or an event where a job's call is part of another job."""

    __slots__ = (
        "bare",
        "ignored",
        "kind",
        "kinds",
        "make",
        "namespace",
        "nested_new",
        "seen_class",
        "seen_kind",
        "where",
    )

    def __init__(self, registry: Registry, state: RuleState, target: Target, site: Site) -> None:
        """Take from the rule what each call needs."""
        super().__init__(registry, state, target, site)
        self.namespace = self.rule.namespace
        self.nested_new = self.rule.nested == "new"
        self.where = self.rule.where
        self.ignored = tuple(self.rule.ignore)
        self.make: Callable[[str, str, str], Transaction] = Transaction
        if self.rule.keep is not None:
            from autoinst.trace.sampling import Sampler

            self.make = Sampler(self.rule.keep).transaction
        # Whether all that a record needs is known beforehand, but for the times.
        self.bare = not self.rule.fields and self.rule.keep is None
        self.kind = self.kind_of(target.class_name, target.method, target.action)
        self.kinds: dict[str, Kind] = {}
        self.seen_class: Callable[[], type | None] = _nothing
        self.seen_kind = self.kind

    def enter(self, values: tuple[Any, ...]) -> Node | None:
        """Note the start of a call; what most calls need of `begin` stands here, for a call of it costs as much."""
        self.state.calls += 1
        try:
            gate = self.gate
            if gate is not None:
                return gate(self, values)
            now = _clock()
            if self.bare and self.registry.look_after >= now and _current() is None:
                return start(self.kind_for(values) if self.target.reads_self else self.kind, self, now)
            return self.begin(values)
        except Exception as error:
            if not faults.absorbed(error, f"{self.rule.where}: enter"):
                raise
            return None

    def exit(self, node: Node | None, result: Any) -> None:
        """Note that the call returned `result`; what most calls need of `end` stands here."""
        try:
            if type(node) is Run and not _subscribers:
                node.finish()
                registry = self.registry
                if registry.dirty_after < node.started:
                    registry.renew(node.started)
            elif node is not None:
                self.end(node, result, None)
        except Exception as error:
            if not faults.absorbed(error, f"{self.rule.where}: exit"):
                raise

    def kind_for(self, values: tuple[Any, ...]) -> Kind:
        """Return what is known beforehand of a call with `values`, whose first is a method's `self` or `cls`."""
        if not self.target.reads_self:
            return self.kind
        seen = type(values[0])
        if seen is self.seen_class():
            return self.seen_kind
        names = self.target.names(values)
        if names[2] is self.target.action:
            kind = self.kind
        else:
            found = self.kinds.get(names[2])
            if found is None:
                if len(self.kinds) >= MAX_KINDS:
                    self.kinds.clear()
                found = self.kinds[names[2]] = self.kind_of(*names)
            kind = found
        if not issubclass(seen, type):
            # Weakly: a class made at run time must be able to go.
            self.seen_class, self.seen_kind = _nothing, kind
            self.seen_class = weak_reference(seen)
        return kind

    def kind_of(self, class_name: str, method: str, action: str) -> Kind:
        """Describe the rule's runs of that `action`."""
        return Kind(self.namespace, self.name, self.where, self.ignored, class_name, method, action)

    def move_to(self, rule: Rule) -> None:
        """Go by `rule`, which says the same at another place of its file."""
        super().move_to(rule)
        if self.where != rule.where:
            self.where = rule.where
            self.seen_class = _nothing
            self.kinds = {}
            self.kind = self.seen_kind = self.kind_of(self.target.class_name, self.target.method, self.target.action)

    def begin(self, values: tuple[Any, ...]) -> Node | None:
        """Open the transaction and store what the rule reads at the start."""
        now = _clock()
        registry = self.registry
        if registry.look_after < now and registry.look(now):
            gate = self.gate  # the rules have changed: this very call is under the new ones
            return self.begin(values) if gate is None else gate(self, values)
        node = _current()
        if node is None and self.bare:
            return start(self.kind_for(values), self, now)
        transaction = self.make(self.namespace, self.name, self.where)
        if node is not None and type(node) is not Pending:
            outer = owner(node)
            inside = not outer.closed and not outer.foreign()
            if inside and not (self.nested_new and outer.name != self.name):
                return begin_event(outer, node, self.name, self.target.names(values)[2], None)
            transaction.trace_id = outer.trace_id or outer.id
            transaction.parent_span_id = outer.id[16:]
        transaction.class_name, transaction.method, transaction._action = self.target.names(values)
        transaction.named = True
        transaction.ignored = self.ignored
        fields = self.fields
        if fields.at_enter:
            transaction._action = None
            fields.apply(transaction, fields.at_enter, values)
        # The arguments are kept only for a rule that reads them at the end: the function may give them up before.
        transaction.site = (self, values if fields.at_exit else ())
        transaction.open()
        return transaction

    def end(self, node: Node, result: Any, exception: BaseException | None) -> None:
        """Store the record, with what the rule reads at the end."""
        if node.event != -1:
            end_other(node, result, exception)
            return
        self.end_transaction(owner(node), result, exception)
        registry = self.registry
        if registry.dirty_after < node.started:
            registry.renew(node.started)

    def end_transaction(self, transaction: Transaction, result: Any, exception: BaseException | None) -> None:
        """Store what the rule reads at the end, then the record, and tell the subscribers."""
        site, transaction.site = transaction.site, None
        if exception is not None:
            transaction.add_exception(exception)
        try:
            if site is not None and self.fields.at_exit:
                self.fields.apply(transaction, self.fields.at_exit, (*site[1], result, exception))
                transaction.amend()
        finally:  # whatever lands in there, a signal's exception too, must not leave the transaction open
            transaction.finish(layout.UNSET)
        if _subscribers:
            self.publish(transaction, exception)

    def publish(self, transaction: Transaction, exception: BaseException | None) -> None:
        """Tell subscribers of the `perform_job*` notification."""
        payload: dict[str, Any] = {
            "class": transaction.class_name,
            "method": transaction.method,
            "queue": transaction.queue,
            "queue_time": transaction.queue_time if transaction.queue_time == transaction.queue_time else None,
            "attempts": transaction.attempts or None,
        }
        payload.update(transaction.details or {})
        notifications.publish(self.name, transaction.started_ns, payload, exception, transaction.id)


class EventProbe(Probe):
    """Opens an event of the transaction in progress; outside one, or inside a leaf, it does nothing."""

    __slots__ = ("is_leaf",)

    def __init__(self, registry: Registry, state: RuleState, target: Target, site: Site) -> None:
        """Take from the rule what each call needs."""
        super().__init__(registry, state, target, site)
        self.is_leaf = self.rule.nested == "none"

    def enter(self, values: tuple[Any, ...]) -> Node | None:
        """Note the start of a call, which is outside any job for most functions in most programs."""
        self.state.calls += 1
        try:
            gate = self.gate
            if gate is not None:
                return gate(self, values)
            node = _current()
            return None if node is None else self.open(node, values)
        except Exception as error:
            if not faults.absorbed(error, f"{self.rule.where}: enter"):
                raise
            return None

    def begin(self, values: tuple[Any, ...]) -> Node | None:
        """Open the event, if there is a job."""
        node = _current()
        return None if node is None else self.open(node, values)

    def open(self, node: Node, values: tuple[Any, ...]) -> Node | None:
        """Open the event with the rule's title and body inside `node`."""
        keeper: Any = node
        if type(node) is Event:
            if node.leaf:
                return None
            keeper = node.keeper
        keeper = keeper.transaction or keeper
        if keeper.closed or not keeper.spool.here[0]:
            return None
        fields = self.fields
        title = fields.text("title", values) if fields.title else None
        body = fields.text("body", values) if fields.body else None
        if title is not None or body is not None:
            title, body = recorders.get().sanitizer.event(self.name, title, body)
        return begin_event(keeper, node, self.name, title, body, leaf=self.is_leaf)

    def exit(self, node: Node | None, result: Any) -> None:
        """Close the event of a call that returned."""
        try:
            if type(node) is Event:
                end_event(node)
            elif node is not None:
                self.end(node, result, None)
        except Exception as error:
            if not faults.absorbed(error, f"{self.rule.where}: exit"):
                raise

    def end(self, node: Node, result: Any, exception: BaseException | None) -> None:
        """Close the event."""
        end_other(node, result, exception)


def conditional(probe: Probe, values: tuple[Any, ...]) -> Node | None:
    """Open a call under a rule with `subclass_of` or `when`, if these hold."""
    if probe.target.base is not None and not probe.target.is_instance(values):
        return None
    fields = probe.fields
    if fields.when is not None and not fields.holds(values):
        return None
    return probe.begin(values)


def end_other(node: Node, result: Any, exception: BaseException | None) -> None:
    """Close an event, or what the probes have opened to which a call was handed on."""
    if isinstance(node, Event):
        end_event(node)
    elif node.event == MOVED:
        node.end(result, exception)  # type: ignore[attr-defined]  # a Moved


def _nothing() -> None:
    """Be the weak reference to no class."""
