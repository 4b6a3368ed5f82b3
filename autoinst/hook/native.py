"""Callables that are not Python code: functions and methods of C and Cython, and objects that are called.

Where such a callable is kept, a wrapper takes its place. It runs the probe around the call, in one frame, which no
traceback shows on Python 3.11 and later.
"""

from __future__ import annotations

from _weakref import ref as reference
from types import ClassMethodDescriptorType, CodeType

from autoinst.hook import place as places
from autoinst.hook.around import Several, Step, around
from autoinst.hook.live import C_FUNCTIONS
from autoinst.hook.proxies import innermost, is_wrapper, wrapper_class
from autoinst.hook.target import Site, derived
from autoinst.hook.trampoline import Parameters, kind_of
from autoinst.rules.safe import has_slot
from autoinst.trace.context import class_module, class_name, class_qualname

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

    from autoinst.hook.around import Reader
    from autoinst.hook.place import Place
    from autoinst.hook.registry import Registry, RuleState

    Names = tuple[tuple[str, str], ...]


class Signature:
    """The parameters of a callable that is not Python code, as far as it tells them, in the form rules ask for."""

    __slots__ = ("first", "names", "positional")

    co_filename = ""  # has no source
    free = ()  # variables of a function around it

    def __init__(self, value: Any, first: str | None) -> None:
        """Read them from the callable `value`; `first` is what a method is called on (`self`, `cls`)."""
        self.first = first
        positional, others = _parameters(value)
        self.positional = positional[1:] if first is not None and positional[:1] == [first] else positional
        self.names = frozenset((*self.positional, *others, *(() if first is None else (first,))))

    def reader(self, names: tuple[str, ...]) -> Reader:
        """Return a function of a call's instance and arguments that gives the values of `names`.

        A parameter that the call leaves out is None.
        """
        parts: list[str] = []
        for name in names:
            if name == self.first:
                parts.append("instance")
            elif name in self.positional:
                at = self.positional.index(name)
                parts.append(f"args[{at}] if len(args) > {at} else kwargs.get({name!r})")
            elif name in self.names:
                parts.append(f"kwargs.get({name!r})")
            else:
                parts.append(name)
        read: Reader = eval(f"lambda instance, args, kwargs: ({''.join(f'{part}, ' for part in parts)})")  # noqa: S307 - our text, of parameters' names
        return read


def _is_method(kind: type) -> bool:
    """Return whether objects of class `kind` wrap a method's function; a metaclass is not asked whether it is equal."""
    return kind is staticmethod or kind is classmethod


def code_of(value: Any) -> CodeType | None:
    """Return the code object that tells of a Cython function, None of any other callable."""
    if _is_method(type(value)):
        value = value.__func__
    code = getattr(value, "__code__", None) if class_name(type(value)) in C_FUNCTIONS else None
    return code if type(code) is CodeType else None


def _parameters(value: Any) -> tuple[list[str], list[str]]:
    """Return the names of a callable's positional parameters and of those that are only given by name."""
    code = code_of(value)
    if code is not None:
        found = Parameters(code)
        return list(found.positional), list(found.keyword_only)
    text = getattr(value, "__text_signature__", None) if class_name(type(value)) in C_FUNCTIONS else None
    names: tuple[list[str], list[str]] = ([], [])
    depth = only_by_name = 0
    for part in (text or "()")[1:-1].split(","):
        if depth == 0:
            name = part.strip().partition("=")[0].partition(":")[0].strip()
            if name.startswith("*"):
                only_by_name = 1
            elif name.isidentifier():
                names[only_by_name].append(name)
        depth += sum(map(part.count, "([{")) - sum(map(part.count, ")]}"))
    return names


class NativeSite(Site):
    """One callable that is not Python code, with its wrapper; `steps` are what its calls run, and may be exchanged.

    `step` is the same as one, None where there is none.
    """

    __slots__ = ("signature", "step", "steps")

    def __init__(self, names: Names, signature: Signature, runtime_module: str) -> None:
        """Describe a callable with the parameters of `signature`."""
        super().__init__(names, signature, runtime_module)  # type: ignore[arg-type]  # serves as code for a Target
        self.signature = signature
        self.steps: tuple[Step, ...] = ()
        self.step: Step | Several | None = None

    def take(self, registry: Registry, states: list[RuleState]) -> None:
        """Let the calls from now on be under the rules of `states`."""
        probes = registry.probes_of(self, states)
        self.steps = tuple(Step(probe, self.signature.reader(probe.fields.names)) for probe in probes)
        self.step = Several(self.steps) if self.steps[1:] else next(iter(self.steps), None)
        if probes and not self.probes:
            registry.keep(self.code, probes)
        self.probes = tuple(reference(probe) for probe in probes)
        for probe in probes:
            probe.state.add(probe.target.path, "wrapper")


def patch(registry: Registry, wanted: list[tuple[RuleState, str]], module: ModuleType, name: str) -> None:
    """Put wrappers where the names of `wanted` are kept in module `name`; problems go to the rules' states."""
    together: dict[tuple[int, str], tuple[Place, list[tuple[RuleState, str]]]] = {}
    for state, qualname in wanted:
        place = places.find(module, qualname)
        base = state.rule.subclass_of
        # Only a class that is there already can be derived from it: C code makes no others.
        if place is None or (base is not None and not (place.in_class and derived(place.kind, base))):
            continue
        problem = unfit(place)
        if problem is None:
            together.setdefault((id(place.holder), place.name), (place, []))[1].append((state, qualname))
        else:
            state.refused = f"{name}:{qualname} {problem}"
    for place, rules in together.values():
        try:
            _wrap(registry, place, name, [qualname for _, qualname in rules])
        except (TypeError, ValueError, ImportError) as error:
            for state, qualname in rules:
                state.refused = f"{name}:{qualname}: {error}"


def unfit(place: Place) -> str | None:
    """Return why what is kept at `place` cannot be wrapped, None where it can."""
    value = innermost(place.value)
    kind = type(value)
    if _is_method(kind):
        return None if callable(value.__func__) else f"is a {class_name(kind)} of no function"
    if issubclass(kind, type):
        return "is a class, not a function: name its methods"
    if class_name(kind) in C_FUNCTIONS:
        code = code_of(value)
        is_stream = code is not None and kind_of(code) == "async generator"
        return "is an async generator of C code, whose end nothing tells" if is_stream else None
    if not callable(value):
        return f"is a {class_name(kind)}, not a function"
    if has_slot(kind, "__getattr__"):
        return f"is a {class_name(kind)} that answers for another object: name that"
    return None


def _wrap(registry: Registry, place: Place, name: str, qualnames: list[str]) -> None:
    """Put a wrapper at `place`, which rules call `qualnames` of module `name`, or renew the rules of the one there."""
    raw = innermost(place.value)
    site = place.value._self_site if is_wrapper(place.value) else None
    if site is None:
        module, qualname, first = _label(place, raw, name, qualnames[0])
        signature = Signature(raw.__func__ if _is_method(type(raw)) else raw, first)
        site = NativeSite(((module, qualname),), signature, module)
    site.names = tuple(dict.fromkeys((*site.names, *((name, qualname) for qualname in qualnames))))
    states = registry.choose(site.names, None, {})
    if not states:
        return
    if not is_wrapper(place.value):
        wrapper = wrapper_class()(raw, around(site, code_of(raw)))
        wrapper._self_site = site
        also = None if place.in_class else places.defining(raw)
        place.put(wrapper)
        if also is not None:
            also.put(wrapper)  # where pickle looks for it
    site.take(registry, states)


def _label(place: Place, raw: Any, name: str, qualname: str) -> tuple[str, str, str | None]:
    """Return what a callable is called, module and qualified name, and what it is called on if it is a method."""
    kind = type(raw)
    if place.in_class:
        first = "cls" if kind is classmethod or kind is ClassMethodDescriptorType else "self"
        own = f"{class_qualname(place.holder)}.{place.name}"
        return class_module(place.holder), own, None if kind is staticmethod else first
    if class_name(kind) in C_FUNCTIONS:
        defined = places.defining(raw)
        if defined is not None:
            return raw.__module__, raw.__qualname__, None
    return name, qualname, None
