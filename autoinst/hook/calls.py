"""Calls inside a function that rules name: `pkg.mod.work.<calls>.job.func` is the call `job.func(...)` in `work`.

A worker's loop that calls its jobs has no function for one of them; the statement with the call is put inside `with`,
as the body of an inlined function is. There is no other way to reach it, so it needs the module's source.
"""

from __future__ import annotations

from types import CodeType

from autoinst.rules.match import CALLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

COMPREHENSIONS = frozenset({"<dictcomp>", "<listcomp>", "<setcomp>"})

__all__ = ["CALLS", "Locals", "method_of"]


class Locals:
    """The variables of a function as the rule of a call inside it knows them, with what `Parameters` has."""

    __slots__ = ("free", "names")

    first = None

    def __init__(self, code: CodeType) -> None:
        """Take those of `code`, also those of its comprehensions, which are functions of their own before 3.12."""
        names = {*code.co_varnames, *code.co_cellvars}
        inside = [code]
        while inside:
            for constant in inside.pop().co_consts:
                if type(constant) is CodeType and constant.co_name in COMPREHENSIONS:
                    names.update(constant.co_varnames, constant.co_cellvars)
                    inside.append(constant)
        self.names = frozenset(names)
        self.free: tuple[str, ...] = ()

    def value_of(self, name: str) -> str:
        """Return the expression that gives variable `name`."""
        if name not in self.names:
            raise KeyError(name)
        return name

    def read(self, scope: Any, name: str) -> Any:
        """Return variable `name` from the local variables of a call in progress, None where it is not set."""
        return scope.get(name)


def method_of(qualname: str) -> str | None:
    """Return the last name of the callee where `qualname` is that of a call inside a function, else None."""
    _, calls, callee = qualname.partition(CALLS)
    return callee.rpartition(".")[2] if calls else None
