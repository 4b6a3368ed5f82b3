"""A function a rule matched: where it is defined, how a record calls its class and method, and its probes."""

from __future__ import annotations

from types import CodeType

from autoinst.hook.calls import Locals, method_of
from autoinst.hook.trampoline import Parameters
from autoinst.trace.context import class_dict, class_module, class_mro, class_qualname, describe
from autoinst.trace.exceptions import module_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _weakref import ReferenceType
    from types import FunctionType
    from typing import Any

    from autoinst.hook.native import Signature
    from autoinst.hook.probe import Probe
    from autoinst.hook.registry import Registry, RuleState


class Target:
    """`module` and `qualname` as the rule names them; `runtime_module` is what `__module__` says (`__main__`)."""

    __slots__ = (
        "action",
        "base",
        "class_name",
        "class_qualname",
        "earlier",
        "method",
        "module",
        "parameters",
        "qualname",
        "reads_self",
        "runtime_module",
    )

    def __init__(
        self,
        module: str,
        qualname: str,
        code: CodeType | Signature,
        runtime_module: str,
        base: tuple[str, ...] | None = None,
        earlier: tuple[Target, ...] = (),
    ) -> None:
        """Describe function `qualname` of `module`, whose code or parameters are `code`.

        Unless `base` is None only calls are meant whose `self` or `cls` is of a class derived from all of `base`, and
        which none of the `earlier` targets of the same function means.
        """
        self.module = module
        self.qualname = qualname
        self.runtime_module = runtime_module
        self.base = base
        self.earlier = earlier
        called = method_of(qualname)
        self.class_qualname, _, self.method = qualname.rpartition(".") if called is None else ("", "", called)
        self.class_name = f"{module}.{self.class_qualname}" if self.class_qualname else module
        self.action = f"{self.class_name}#{self.method}"
        if type(code) is CodeType:
            code = Locals(code) if called is not None else Parameters(code)  # type: ignore[assignment]
        self.parameters: Parameters = code  # type: ignore[assignment]
        # Only a function inside a class can be a method, whatever its first parameter is called.
        self.reads_self = (
            self.parameters.first is not None
            and bool(self.class_qualname)
            and not self.class_qualname.endswith("<locals>")
        )

    @property
    def path(self) -> str:
        """The exact path, `module:qualname`."""
        return f"{self.module}:{self.qualname}"

    def names(self, values: tuple[Any, ...]) -> tuple[str, str, str]:
        """Return class, method and action of a call; an inherited method counts for the class of its `self`."""
        if self.reads_self:
            first = values[0]
            # Its type, not isinstance(): a proxy's `__class__` may be a property that does much.
            kind = type(first)
            if issubclass(kind, type):
                kind = first
            own = self.class_qualname
            if class_qualname(kind) != own or class_module(kind) != self.runtime_module:
                for base in class_mro(kind) or ():  # None while its metaclass makes it
                    if class_qualname(base) == own and class_module(base) == self.runtime_module:
                        name = describe(kind)
                        return name, self.method, f"{name}#{self.method}"
        return self.class_name, self.method, self.action

    def is_instance(self, values: tuple[Any, ...]) -> bool:
        """Return whether a call is one of those meant, by the class of its `self` or `cls`."""
        if self.base and not (self.reads_self and all(derived(values[0], base) for base in self.base)):
            return False
        return not any(target.is_instance(values) for target in self.earlier)


def derived(first: Any, path: str) -> bool:
    """Return whether `first` is of a class, or is one, that is derived from the one at `path` (a.b.C or a.b:C)."""
    bases = class_mro(first if issubclass(type(first), type) else type(first)) or ()
    dotted = path.replace(":", ".")
    if any(describe(base) == dotted for base in bases):
        return True
    module, colon, name = path.partition(":")
    if not colon:
        module, _, name = path.rpartition(".")
    found: Any = module_names(module)
    for part in name.split("."):
        found = class_dict(found) if issubclass(type(found), type) else found
        found = found.get(part) if hasattr(type(found), "get") else None
    return any(base is found for base in bases)


class Site:
    """One code object with probes; it lives as long as that code does.

    The probes hold it and the registry has a weak reference, so that all functions made of that code are reached when
    rules change, however many there are and wherever they are kept.

    `names` are the (module, qualified name) pairs by which rules may mean the function; `code` is what the probes were
    put around, without them; `states` are those of the rules in force for it; `functions` those seen with this code;
    `in_place` says that nothing was put around the code, which is watched as it is.
    """

    __slots__ = ("__weakref__", "code", "functions", "in_place", "names", "probes", "runtime_module", "states")

    def __init__(self, names: tuple[tuple[str, str], ...], code: CodeType, runtime_module: str) -> None:
        """Describe a function of module `runtime_module`, whose own name comes first in `names`."""
        self.names = names
        self.code = code
        self.runtime_module = runtime_module
        self.states: list[RuleState] = []
        # Those in the code itself; no cycle with the code, which the garbage collector does not look into.
        self.probes: tuple[ReferenceType[Probe], ...] = ()
        self.functions: list[ReferenceType[FunctionType]] = []
        self.in_place = False

    def take(self, registry: Registry, states: list[RuleState]) -> None:
        """Let the calls from now on be under the rules of `states`: the probes in the code hand them on."""
        from autoinst.hook import moved

        before = self.states
        moved.move([probe for known in self.probes if (probe := known()) is not None], registry.probes_of(self, states))
        mechanism = next((state.mechanism for state in before if state.mechanism), None)
        for state in states:
            state.add(f"{self.module}:{self.qualname}", mechanism or "trampoline")

    @property
    def module(self) -> str:
        """The module by which the function is known."""
        return self.names[0][0]

    @property
    def qualname(self) -> str:
        """The qualified name by which the function is known."""
        return self.names[0][1]
