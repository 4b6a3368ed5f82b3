"""Rewrites a module's code object: the functions that rules mean get their probes before they exist."""

from __future__ import annotations

from types import CodeType

from autoinst.hook.evaluators import evaluators
from autoinst.hook.trampoline import trampoline
from autoinst.trace import faults

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from autoinst.hook.probe import Probe

    Chooser = Callable[[str, CodeType], list[Probe]]

CO_OPTIMIZED, CO_NEWLOCALS = 0x1, 0x2
NEVER = frozenset({"__annotate__", "__class_getitem__", "__conditional_annotations__"})


def functions(code: CodeType, prefix: str = "") -> list[tuple[str, CodeType]]:
    """Return (qualified name, code) of every function nested in `code`, at any depth."""
    found: list[tuple[str, CodeType]] = []
    late = evaluators(code)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            qualname = _qualname(constant, prefix)
            if id(constant) not in late and _is_function(constant):
                found.append((qualname, constant))
            found.extend(functions(constant, _inside(constant, qualname)))
    return found


def rewrite(code: CodeType, chosen: dict[int, list[Probe]], why: Callable[[CodeType], str | None]) -> CodeType:
    """Return `code` with a trampoline around each nested function for whose id `chosen` has probes.

    The same object comes back where there is none. `why` tells of a function's code why it gets no better mechanism.
    """
    constants: list[Any] = []
    changed = False
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            new = rewrite(constant, chosen, why)
            if id(constant) in chosen:
                new = wrap(new, chosen[id(constant)], why(constant))
            changed = changed or new is not constant
            constants.append(new)
        else:
            constants.append(constant)
    return code.replace(co_consts=tuple(constants)) if changed else code


def wrap(code: CodeType, probes: list[Probe], why: str | None = None) -> CodeType:
    """Return `code` inside a trampoline for each of `probes`, those of one site, the first outermost.

    `why` says why there is no better mechanism for it.
    """
    if not probes:
        return code
    original, kept = code, list(probes)
    for probe in reversed(probes):
        path = probe.target.path
        try:
            code = trampoline(code, probe, probe.fields.names)
        except (ValueError, KeyError, SyntaxError) as error:
            kept.remove(probe)
            probe.state.problem = f"{path}: {error}"
            faults.note(f"{path}: {error}")
        else:
            probe.state.add(path, "trampoline", why)
    if kept:
        probes[0].registry.keep(original, kept)
    return code


def _is_function(code: CodeType) -> bool:
    if not (code.co_flags & CO_OPTIMIZED and code.co_flags & CO_NEWLOCALS):
        return False
    name = code.co_name
    if any(variable.startswith(".") for variable in code.co_varnames[: code.co_argcount]):
        return False  # 3.14's own: evaluates an annotation or what a type statement says, and no source calls it
    return name == "<lambda>" or not (name.startswith("<") or name in NEVER)


def _qualname(code: CodeType, prefix: str) -> str:
    # 3.10 has no co_qualname: the path of names is the same but for `global` declarations.
    return getattr(code, "co_qualname", None) or f"{prefix}{code.co_name}"


def _inside(code: CodeType, qualname: str) -> str:
    return f"{qualname}.<locals>." if code.co_flags & CO_OPTIMIZED else f"{qualname}."
