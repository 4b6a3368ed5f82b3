"""Reaches functions that exist already: their code object is exchanged, the function stays the same object.

Objects of the program are asked for their type, never by `isinstance`: a lazy object's `__class__` may load it.
"""

from __future__ import annotations

import sys
from _weakref import ref as reference
from types import FunctionType, MethodType

from autoinst.hook.mechanism import instrument_one
from autoinst.hook.place import find
from autoinst.hook.rewrite import functions
from autoinst.hook.target import Site
from autoinst.hook.trampoline import probe_of
from autoinst.rules.match import is_handed
from autoinst.rules.safe import attribute_or_none
from autoinst.trace.context import class_dict, class_module, class_name, class_qualname

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from typing import Any

    from autoinst.hook.registry import Candidates, Registry, RuleState

METHODS = (staticmethod, classmethod, MethodType)
C_FUNCTIONS = frozenset(  # by name: Cython brings its own types
    {
        "builtin_function_or_method",
        "classmethod_descriptor",
        "cython_function_or_method",
        "fused_cython_function",
        "method_descriptor",
        "wrapper_descriptor",
    }
)
MAX_UNWRAP = 20
MAX_NESTING = 4  # of classes in classes


def patch_missing(
    registry: Registry,
    candidates: list[tuple[RuleState, list[str]]],
    module: ModuleType,
    name: str,
    *,
    shown: CodeType | None,
    alias: str | None = None,
) -> None:
    """Patch what `candidates` mean in the loaded `module`, also called `alias`, and its `shown` code did not show.

    With that the module's own functions have their probes; re-exports and functions made at run time have not.
    """
    patcher = Patcher(registry, module, name, alias)
    for state, patterns in candidates:
        for pattern in patterns:
            if "*" in pattern:
                if shown is None:
                    patcher.patch_glob(state, pattern)
                continue
            function = resolve(module, pattern)
            if type(function) is property and state.rule.kind == "enrich":
                function = unwrap(function.fget)
            if type(function) is FunctionType:
                patcher.patch(state, pattern, function)
            elif function is not None:
                patcher.others.append((state, pattern))
    others = patcher.others
    if others and shown is not None:
        known = {qualname for qualname, _ in functions(shown)}  # what decorators made of these is the program's
        others = [(state, pattern) for state, pattern in others if pattern not in known]
    if others:
        from autoinst.hook import native

        native.patch(registry, others, module, name)


class Patcher:
    """Gives functions of one loaded module their probes."""

    def __init__(self, registry: Registry, module: ModuleType | None, name: str, alias: str | None = None) -> None:
        """Patch functions of `module`, called `name`, or also `alias`, by rules; globs need the module."""
        self.registry = registry
        self.module = module
        self.name = name
        self.alias = alias
        self.others: list[tuple[RuleState, str]] = []  # what is no Python function
        self._functions: list[tuple[str, Any]] | None = None
        self._known: dict[str, Candidates] = {}
        self._decorators: dict[str, dict[str, list[str]]] = {}

    def patch_glob(self, state: RuleState, pattern: str) -> None:
        """Patch every function of the module's own that `pattern` means."""
        from autoinst.rules.match import matches_qualname

        if self._functions is None and self.module is not None:
            self._functions = functions_of(self.module)
        for qualname, function in self._functions or ():
            if matches_qualname(pattern, qualname):
                if type(function) is FunctionType:
                    self.patch(state, qualname, function)
                else:
                    self.others.append((state, qualname))

    def patch(self, state: RuleState, qualname: str, function: FunctionType) -> None:
        """Patch `function`, which the rule of `state` reaches as `qualname`, unless it has its probes already."""
        code = function.__code__
        probe = self.registry.choice.probe_of(code)
        given = is_handed(qualname)
        if given and self.registry.choice.monitor is not None and not _is_known(function, probe):
            # What is watched is the code, and all that a decorator has made may have the same.
            function.__code__ = code = code.replace()
            probe = None
        if probe is not None:
            site = getattr(probe, "site", None)
            if site is not None and qualname not in {other for _, other in site.names}:
                self._also(site, qualname, function)  # which another class inherits
            elif not state.found:
                state.add(f"{function.__module__}:{function.__qualname__}", self.registry.choice.name)
            return
        if self.registry.watches(code):
            return
        name = self.name
        module: Any = function.__module__
        if not isinstance(module, str):
            module = name
        real = function.__qualname__
        own_name = not given and (module == "__main__" or module not in sys.modules or "<" in real)
        label = (name, qualname) if own_name else (module, real)
        names: tuple[tuple[str, str], ...] = (label,) if label == (name, qualname) else (label, (name, qualname))
        if self.alias is not None:
            names = (*names, (self.alias, qualname))
        decorators = decorators_in(code.co_filename, self._decorators) if state.rule.decorated_by else None
        states = self.registry.choose(names, decorators, self._known)
        if states:
            site = Site(names, code, module)
            new = instrument_one(code, self.registry.probes_of(site, states), self.registry)
            if new is not code:
                function.__code__ = new
            site.functions.append(reference(function))

    def _also(self, site: Site, qualname: str, function: FunctionType) -> None:
        """Give `function`, which has the probes of `site`, those of the rules that mean it as `qualname` too."""
        names = (*site.names, (self.name, qualname))
        if is_handed(qualname):  # a decorator's closure is called after the function inside
            names = ((function.__module__, function.__qualname__), *names)
        states = self.registry.choose(names, None, self._known)
        if states != site.states:
            again = Site(names, site.code, site.runtime_module)
            bare = function.__code__ if site.in_place else site.code
            new = instrument_one(bare, self.registry.probes_of(again, states), self.registry)
            if new is not function.__code__:
                function.__code__ = new
            again.functions = [*site.functions, reference(function)]


def _is_known(function: FunctionType, probe: Any) -> bool:
    """Return whether `probe` is one of this very function, and not of others with the same code."""
    site = getattr(probe, "site", None)
    return site is not None and any(known() is function for known in site.functions)


def decorators_in(file: str, known: dict[str, dict[str, list[str]]]) -> dict[str, list[str]]:
    """Return the decorators of the functions in source `file`, read once as long as `known` is kept."""
    if file not in known:
        from autoinst.hook.decorators import decorators_of

        known[file] = decorators_of(file)
    return known[file]


def functions_of(module: ModuleType) -> list[tuple[str, Any]]:
    """Return (qualified name, function) of the functions and methods, those of C code too, that `module` defines."""
    found: list[tuple[str, Any]] = []

    def visit(namespace: Any, prefix: str, depth: int) -> None:
        for key, value in list(namespace.items()):
            function = unwrap(value)
            if type(function) is FunctionType:
                if function.__module__ == module.__name__:
                    found.append((f"{prefix}{key}", function))
            elif class_name(type(function)) in C_FUNCTIONS:
                if prefix or function.__module__ == module.__name__:
                    found.append((f"{prefix}{key}", function))
            elif (
                issubclass(type(value), type)
                and depth < MAX_NESTING
                and (class_module(value), class_qualname(value)) == (module.__name__, f"{prefix}{key}")
            ):
                visit(class_dict(value), f"{prefix}{key}.", depth + 1)

    visit(vars(module), "", 0)
    return found


def functions_of_site(site: Site) -> list[FunctionType]:
    """Return the functions that have the probes of `site` and were seen, or are found by its names."""
    found = [function for known in site.functions if (function := known()) is not None]
    for module, qualname in site.names:
        loaded = sys.modules.get("__main__" if site.runtime_module == "__main__" else module)
        if issubclass(type(loaded), type(sys)):
            function = resolve(loaded, qualname)  # type: ignore[arg-type]  # checked
            if type(function) is FunctionType and all(function is not other for other in found):
                found.append(function)
    return [function for function in found if getattr(probe_of(function.__code__), "site", None) is site]


def resolve(module: ModuleType, qualname: str) -> Any:
    """Return the function `qualname` of `module` below its decorators, what else is there, or None."""
    place = find(module, qualname)
    return None if place is None else unwrap(place.value)


def unwrap(value: Any) -> Any:
    """Return the plain function inside static and class methods, bound methods and `functools.wraps` chains."""
    for _ in range(MAX_UNWRAP):
        if issubclass(type(value), METHODS):
            value = object.__getattribute__(value, "__func__")
        else:
            inner = _wrapped(value)
            if inner is None or (type(value) is FunctionType and probe_of(value.__code__) is not None):
                return value
            value = inner
    return value


def _wrapped(value: Any) -> FunctionType | None:
    """Return the function that `functools.wraps` and `lru_cache` leave in an object's dictionary."""
    inner = attribute_or_none(value, "__wrapped__")
    return inner if type(inner) is FunctionType else None


def not_found(module: str, patterns: list[str], names: list[str]) -> str:
    """Say that `module` has none of `patterns`, with the nearest of the `names` it has."""
    wanted = patterns[0]
    last = wanted.rpartition(".")[2]
    # Only the cheap guess here: difflib would cost a worker 5 ms, and `autoinst check` has it.
    near = [name for name in names if name.rpartition(".")[2] == last][:2]
    hint = f" (did you mean {' or '.join(near)}?)" if near else ""
    return f"{module} has no {wanted}{hint}"
