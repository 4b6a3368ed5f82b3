"""Carries the job in progress into the threads and executor calls it starts: contextvars stop at threads.

Four functions of the standard library get probes for it, once there is a job at all: where a thread or a call is made,
the current node is remembered, and where it runs, the node is made current.
"""

from __future__ import annotations

import sys
from _weakref import ref as weak_reference
from contextvars import Context

from autoinst.trace import faults
from autoinst.trace.context import current
from autoinst.trace.transaction import owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FunctionType, ModuleType
    from typing import Any

    from autoinst.hook.mechanism import Choice
    from autoinst.trace.context import Node

# module -> (class, method that makes, method that runs, whether the runner lives on and serves others)
CARRIED = {
    "threading": ("Thread", "start", "_bootstrap_inner", False),
    "concurrent.futures.thread": ("_WorkItem", "__init__", "run", True),
}


class Carrier:
    """Remembers, by object, the node in which a thread or a call was made."""

    def __init__(self) -> None:
        """Begin with nothing remembered."""
        self._nodes: dict[int, tuple[Node, Any]] = {}

    def remember(self, made: Any) -> None:
        """Keep the current node for `made`, if it is part of an open transaction of this process."""
        node = current.get()
        if node is None:
            return
        transaction = owner(node)
        if transaction.closed or transaction.foreign():
            return
        key = id(made)
        nodes = self._nodes

        def forget(_reference: Any) -> None:
            nodes.pop(key, None)

        nodes[key] = (node, weak_reference(made, forget))

    def take(self, running: Any) -> Node | None:
        """Return the node kept for `running`, once."""
        entry = self._nodes.pop(id(running), None)
        return None if entry is None else entry[0]


class MadeProbe:
    """Stands where a thread or a call is made."""

    def __init__(self, carrier: Carrier) -> None:
        """Remember into `carrier`."""
        self.carrier = carrier

    def enter(self, values: tuple[Any, ...]) -> None:
        """Remember the current node."""
        try:
            self.carrier.remember(values[0])
        except Exception as error:
            if not faults.absorbed(error, "carry"):
                raise

    def exit(self, _token: None, _result: Any) -> None:
        """Do nothing."""

    def error(self, _token: None, _exception: BaseException) -> None:
        """Do nothing: what was remembered goes with the object."""

    def suspend(self, _token: None) -> None:
        """Do nothing: it is no generator."""


class RunProbe:
    """Stands where it runs: the node is current until the call ends."""

    def __init__(self, carrier: Carrier, *, shared: bool) -> None:
        """Take from `carrier`; a `shared` thread's own context counts for nothing."""
        self.carrier = carrier
        self.shared = shared

    def enter(self, values: tuple[Any, ...]) -> Any:
        """Make the remembered node current; return the token that undoes it, or None."""
        node = self.carrier.take(values[0])
        if node is not None and sys.version_info >= (3, 14):  # there a thread runs in a context of its own
            own_context = object.__getattribute__(values[0], "__dict__").get("_context")
            if type(own_context) is Context:
                own_context.run(current.set, node)
                return None
        if node is None and not (self.shared and current.get() is not None):
            return None
        return current.set(node)

    def exit(self, token: Any, _result: Any) -> None:
        """Make current what was before."""
        if token is not None:
            current.reset(token)

    def error(self, token: Any, _exception: BaseException) -> None:
        """Make current what was before; `token` is False where the exception kept `enter` from returning."""
        if token is not None and token is not False:
            current.reset(token)

    def suspend(self, _token: Any) -> None:
        """Do nothing: it is no generator."""


_carrier = Carrier()


def install(choice: Choice) -> None:
    """Put the probes into the modules that are loaded; `loaded` serves those that come later."""
    for name in CARRIED:
        module = sys.modules.get(name)
        if module is not None:
            loaded(name, module, choice)


def loaded(name: str, module: ModuleType, choice: Choice) -> None:
    """Put the probes into module `name`, which has just been loaded."""
    kind_name, maker, runner, shared = CARRIED[name]
    kind = vars(module).get(kind_name)
    if not isinstance(kind, type):
        return
    for method, probe in ((maker, MadeProbe(_carrier)), (runner, RunProbe(_carrier, shared=shared))):
        function: FunctionType | None = vars(kind).get(method)
        code = getattr(function, "__code__", None)
        if function is None or code is None or choice.has_probe(code):
            continue
        try:
            new = choice.attach(code, probe, ("self",))
            if new is not code:
                function.__code__ = new
        except (ValueError, KeyError) as error:
            faults.note(f"carry: {name}.{kind_name}.{method}: {error}")
