"""What the code of a function with a probe has of autoinst among its constants: methods, and how they are pickled.

cloudpickle and its like send a function's code to other machines, constants and all. Where it arrives there may be no
autoinst, and the probe's process is another one: so each of these pickles as something inert of the standard library.
A method is bound to an object that does; its function uses no name of a module, so that it travels by its code.
"""

from __future__ import annotations

from _thread import get_ident
from types import FunctionType, MethodType, SimpleNamespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


# Where there is no room left for these, the function's own calls are to say so.
def _enter(self: Any, values: Any) -> Any:
    try:
        return self.enter(values)
    except RecursionError:
        return None


def _exit(self: Any, node: Any, result: Any) -> None:
    try:
        self.exit(node, result)
    except RecursionError:
        return


def _error(self: Any, node: Any, exception: Any) -> None:
    try:
        self.error(node, exception)
    except RecursionError:
        return


def _first(self: Any, generator: Any) -> Any:
    return self.first(generator)


def _delegating(self: Any, function: Any) -> Any:
    return self.delegating(function)


def _trim(self: Any, exception: Any) -> None:
    try:
        self.trim(exception)
    except RecursionError:
        return


def _suspend(self: Any, value: Any) -> Any:
    try:
        self.suspend(value)
    except RecursionError:
        return value
    return value


def _resume(self: Any, value: Any) -> Any:
    try:
        self.resume(value)
    except RecursionError:
        return value
    return value


def _give(self: Any, value: Any) -> Any:
    try:
        self.give(value)
    except RecursionError:
        return value
    return value


def _begin(self: Any, value: Any, values: Any) -> Any:
    try:
        self.begin(values)
    except RecursionError:
        return value
    return value


def _call(self: Any, values: Any) -> Any:
    try:
        call = self.new(self.kind)
    except RecursionError:  # the function's own calls are to raise it, with no frame of this in its traceback
        return self.nothing
    call.node = values
    return call


# In a module that nobody can import: by reference they would need autoinst.
_FUNCTIONS = {
    function.__name__[1:]: FunctionType(function.__code__, {"__name__": "autoinst by value"})
    for function in (_enter, _exit, _error, _first, _delegating, _trim, _suspend, _resume, _give, _begin, _call)
}


def method(name: str, owner: Any) -> Callable[..., Any]:
    """Return method `name` of `owner` as it may stand in a program's code; `owner` must pickle as something inert."""
    return MethodType(_FUNCTIONS[name], owner)


class Nothing:
    """Stands around a body that has no room for a call of Python code."""

    __slots__ = ()

    __enter__ = get_ident
    __exit__ = "".format  # takes anything and gives what is false


class Calls:
    """The calls of one inlined function under one probe: `kind` is their class, the others tell of them."""

    __slots__ = ("begin", "give", "kind", "new", "nothing", "probe", "resume", "suspend")

    def __init__(self, probe: Any, kind: type, **tellers: Callable[[Any], None]) -> None:
        """Make calls of `kind`, which `tellers` are told about by frame (begin, give, suspend, resume)."""
        self.probe = probe
        self.kind = kind
        self.new = object.__new__
        self.nothing = _nothing
        for name, teller in tellers.items():
            setattr(self, name, teller)

    def methods(self) -> dict[str, Any]:
        """Return the constants of the function, by what a placeholder calls them."""
        names = ("begin", "give", "suspend", "resume")
        return {"call": method("call", self)} | {name: method(name, self) for name in names if hasattr(self, name)}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as something inert that needs no autoinst."""
        from contextlib import nullcontext
        from operator import methodcaller

        return (
            SimpleNamespace,
            (),
            {
                "new": methodcaller("__call__"),  # makes one
                "kind": nullcontext,
                "nothing": nullcontext(),
                "begin": id,
                "give": id,
                "suspend": id,
                "resume": id,
            },
        )


_nothing = Nothing()


class InnerCalls(Calls):
    """The calls of something inside a function, which itself has no probe by that: `probe_of` passes them over."""

    __slots__ = ()


def inert_probe() -> tuple[Any, ...]:
    """Return what a probe is pickled as: an object with its methods, which do nothing."""
    from operator import is_

    return SimpleNamespace, (), {"enter": id, "suspend": id, "resume": id, "first": anext, "exit": is_, "error": is_}


def inert_helpers() -> tuple[Any, ...]:
    """Return what the trampolines' helpers are pickled as."""
    import copy

    return SimpleNamespace, (), {"trim": id, "delegating": copy.copy}  # of a function that is the function itself


def inert_context() -> tuple[Any, ...]:
    """Return what stands for a context manager that is ready made."""
    from contextlib import nullcontext

    return nullcontext, ()
