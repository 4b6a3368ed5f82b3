"""What is going on in this context: no job, a transaction, or an event inside one."""

from __future__ import annotations

import gc
import sys
from _thread import get_ident
from contextvars import ContextVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextvars import Token
    from types import FrameType
    from typing import Any

    from autoinst.trace.transaction import Transaction

MOVED = -3  # `Node.event` of a call that other probes have opened, see autoinst.hook.moved


class Node:
    """An open transaction or event as the context sees it; `saved` and `token` serve generators' yields."""

    __slots__ = ("event", "parent", "saved", "started", "token", "transaction")

    # Index of the event in the transaction, -1 for the transaction itself, -2 for an event that is only counted, MOVED.
    event: int
    parent: Node | None
    saved: Node | None
    started: int
    token: Token[Node | None] | None
    transaction: Transaction | None

    def whole(self) -> Transaction:
        """Return the transaction that a node without one is itself, or unfolds into."""
        raise NotImplementedError


current: ContextVar[Node | None] = ContextVar("autoinst", default=None)


set_current: Callable[[Node | None], Token[Node | None] | None] = current.set

# Before 3.12 the garbage collector may run in the middle of any ContextVar.set(), the program's own too, and the
# process dies if a finalizer changes the context meanwhile. So what runs in a finalizer leaves the context alone.
_collecting = 0  # the thread that collects, there
_collecting_in: FrameType | None = None  # and where: a finalizer may let other greenlets of it run


def _finalizing() -> bool:
    if _collecting != get_ident():
        return False
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame is not _collecting_in:
        frame = frame.f_back
    return frame is _collecting_in


if sys.version_info < (3, 12):

    def _note_collection(phase: str, _info: dict[str, int]) -> None:
        global _collecting, _collecting_in
        if phase == "start":
            _collecting, _collecting_in = get_ident(), sys._getframe().f_back
        else:
            _collecting, _collecting_in = 0, None

    def _set_outside_finalizers(node: Node | None) -> Token[Node | None] | None:
        return None if _collecting and _finalizing() else current.set(node)

    gc.callbacks.append(_note_collection)
    set_current = _set_outside_finalizers


def enter(node: Node) -> None:
    """Make `node` the current one of this context."""
    node.token = set_current(node)


def leave(node: Node) -> None:
    """Make current what was before `node`; harmless in another context than the one that entered."""
    token = node.token
    if token is not None:
        node.token = None
        try:
            if not _collecting or not _finalizing():
                current.reset(token)
        except (ValueError, RuntimeError):  # closed from another context, as a collected coroutine is
            token = None
    if token is None and current.get() is node:  # or an exception from outside kept the token from being noted
        set_current(node.parent)


def suspend(node: Node) -> None:
    """Leave `node` at a generator's yield; what is current inside the body is kept for `resume`."""
    node.saved = current.get()
    leave(node)


def resume(node: Node) -> None:
    """Make current again what was at the last `suspend`."""
    node.token = set_current(node.saved)


# What a class is called, whatever its metaclass makes of these names.
class_module: Callable[[type], Any] = type.__dict__["__module__"].__get__
class_name: Callable[[type], str] = type.__dict__["__name__"].__get__
class_qualname: Callable[[type], str] = type.__dict__["__qualname__"].__get__
class_dict: Callable[[type], Mapping[str, Any]] = type.__dict__["__dict__"].__get__
class_mro: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__


def describe(value: Any) -> str:
    """Return the dotted path of a class or function without running any of its code."""
    module: Any
    name: Any
    if issubclass(type(value), type):
        module, name = class_module(value), class_qualname(value)
    else:
        module = getattr(value, "__module__", None)
        name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if type(name) is not str:
        return "?"
    if type(module) is not str or module == "builtins":
        return name
    return f"{module}.{name}"
