"""Jobs whose callable is handed over rather than named: given as an argument to a library's function, or returned.

The callable stays the very object: its code gets the probes, as that of any function which exists already.
"""

from __future__ import annotations

from types import FunctionType, MethodType

from autoinst.hook.enrich import EnrichProbe, Watch
from autoinst.hook.live import Patcher
from autoinst.hook.probe import NoFields, end_other
from autoinst.rules.match import handed
from autoinst.rules.safe import attribute_or_none, is_partial, name_of, static_lookup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from autoinst.hook.fields import Fields
    from autoinst.hook.target import Target
    from autoinst.rules.model import Rule
    from autoinst.trace.context import Node

MAX_HOPS = 10
WRAPS = "wraps"


class Handed(NoFields):
    """What a probe reads that looks for the callable which is handed over."""

    __slots__ = ("at_exit", "name", "path")

    def __init__(self, rule: Rule, target: Target) -> None:
        """Read what `rule` says it wraps: the argument `name`, or the result where that is None."""
        super().__init__(target)
        field: Any = rule.wraps
        late = field.at == "exit"
        self.where = rule.where
        self.path = handed(target.qualname, field)
        self.name: str | None = None if late else field.names[0]
        self.at_exit: Any = ((WRAPS, None, field),) if late else ()
        if self.name in target.parameters.names and self.name not in self.names:
            self.names = (*self.names, self.name)


class HandingProbe(EnrichProbe):
    """Stands where a callable is handed over, and gives that the probes of its rule."""

    __slots__ = ("handed",)

    def read(self) -> Fields:
        """Return what tells of the callable."""
        self.handed = Handed(self.rule, self.target)
        return self.handed  # type: ignore[return-value]  # what is asked of them

    def begin(self, values: tuple[Any, ...]) -> Node | None:
        """Take the callable from the arguments, or wait for the result."""
        self.state.calls -= 1  # those of the jobs are counted
        name = self.handed.name
        if name is None:
            return Watch(None, ())
        if name in self.fields.names:
            self.take(values[self.fields.names.index(name)])
        else:
            self.registry.note(f"{self.rule.where}: {self.target.path} has no parameter {name!r}")
        return None

    def end(self, node: Node, result: Any, exception: BaseException | None) -> None:
        """Take the callable that was returned."""
        if not isinstance(node, Watch):
            end_other(node, result, exception)
        elif exception is None:
            self.take(result)

    def take(self, value: Any) -> None:
        """Give the callable `value` its probes, unless it has them."""
        if value is None:
            return
        function = behind(value)
        if function is None:
            self.registry.note(f"{self.rule.where}: a {name_of(value)} is no function of Python code")
            return
        patcher = Patcher(self.registry, None, self.target.module)
        patcher.patch(self.state, self.handed.path, function)


def behind(value: Any) -> FunctionType | None:
    """Return the function that runs when `value` is called; None where that is no Python code."""
    for _ in range(MAX_HOPS):
        if type(value) is FunctionType:
            return value
        if type(value) is MethodType:
            value = value.__func__
        elif is_partial(type(value)):
            value = attribute_or_none(value, "func")
        else:
            called = static_lookup(type(value), "__call__")
            # What is C code may say what is inside, such as a cached function.
            value = called if type(called) is FunctionType else attribute_or_none(value, "__wrapped__")
    return None
