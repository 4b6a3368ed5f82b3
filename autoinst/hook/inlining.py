"""Inlines the functions of one module, from what was kept of the last time where the loader's code is still the same.

Parsing and compiling takes 9 ms for 1,000 lines, reading and comparing what was kept 0.2 ms. So a module that is not
small is inlined only where the result can be kept.
"""

from __future__ import annotations

import marshal
import os
import sys

from autoinst.config import signature
from autoinst.hook.calls import CALLS
from autoinst.hook.inline import NotInlined, Wanted, call_parts, fill, parts, reads_result, same_code
from autoinst.hook.rewrite import functions, rewrite
from autoinst.rules import cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType
    from typing import Any

    from autoinst.config import Config
    from autoinst.hook.probe import Probe
    from autoinst.hook.registry import Registry

    Key = tuple[str, int]  # qualified name and first line
    Made = tuple[CodeType, dict[Key, str]]

MAGIC = b"autoinst inline 1\n"
SMALL = 8_000  # bytes of source, about 250 lines
LAMBDA = "<lambda>"
MAKERS = ("inline_source.py", "inline_calls.py", "lines.py", "tree.py")


class Target:
    """A function that shall have probes: number and key among its module's functions, and why it is not inlined."""

    __slots__ = ("code", "is_call", "key", "number", "probes", "why")

    def __init__(self, number: int, qualname: str, code: CodeType, probes: list[Probe]) -> None:
        """Take function `number` of a module."""
        self.number = number
        self.key: Key = (qualname, code.co_firstlineno)
        self.code = code
        self.probes = probes
        self.is_call = CALLS in qualname
        self.why = "a lambda" if code.co_name == LAMBDA else None
        if self.is_call and any(reads_result(probe) for probe in probes):
            self.why = "its rule reads the result of a call inside a function"
        if any(name in code.co_freevars for probe in probes for name in probe.fields.names):
            self.why = "its rule reads variables of the functions around it"

    def wanted(self) -> Wanted:
        """Return what the source is to be edited by."""
        names = tuple(probe.fields.names for probe in self.probes)
        results = tuple(reads_result(probe) for probe in self.probes)
        return Wanted(self.number, self.code, names, results, self.key[0].partition(CALLS)[2] or None)

    def constants(self) -> dict[str, Any]:
        """Return what its placeholders stand for."""
        wanted = self.wanted()
        return {
            wanted.placeholder(i, part): value
            for i, probe in enumerate(self.probes)
            for part, value in (call_parts(probe) if self.is_call else parts(probe, self.code)).items()
        }


def inlined(
    code: CodeType,
    chosen: dict[int, list[Probe]],
    loader: Any,
    registry: Registry,
    calls: Sequence[tuple[str, CodeType, list[Probe]]] = (),
) -> CodeType:
    """Return module `code` with probes for the functions in it whose ids `chosen` has: inlined or in trampolines.

    `calls` are calls inside functions: qualified name, the function's code, probes. They are inlined or not watched.
    """
    known = functions(code)
    targets = [
        Target(number, qualname, inner, chosen[id(inner)])
        for number, (qualname, inner) in enumerate(known)
        if id(inner) in chosen
    ]
    targets += [Target(number, *each) for number, each in enumerate(calls, len(known))]
    keys = [target.key for target in targets]
    for target in targets:
        if target.why is None and keys.count(target.key) > 1:
            target.why = "its code is there twice"
    new = _inline(code, [target for target in targets if target.why is None], loader, registry.config)
    left: list[Target] = []
    for target in targets:
        if target.why is None:
            registry.keep(target.code, target.probes)
            for probe in target.probes:
                probe.state.add(probe.target.path, "inline")
        elif target.is_call:
            for probe in target.probes:
                probe.state.refused = f"{probe.target.path}: {target.why}"
        else:
            left.append(target)
    if not left:
        return new
    below = functions(new)
    by_id = {id(below[target.number][1]): target for target in left}
    return rewrite(new, {key: target.probes for key, target in by_id.items()}, lambda inner: by_id[id(inner)].why)


def _inline(code: CodeType, targets: list[Target], loader: Any, config: Config) -> CodeType:
    """Return `code` with `targets` inlined; those that are not have their `why` then."""
    if not targets:
        return code
    wanted = {target.key: target.wanted() for target in targets}
    try:
        made = _made(code, wanted, loader, config)
    except NotInlined as reason:
        made = code, dict.fromkeys(wanted, str(reason))
    new, refused = made
    constants: dict[str, Any] = {}
    for target in targets:
        target.why = refused.get(target.key)
        if target.why is None:
            constants.update(target.constants())
    return fill(new, constants)


def _made(code: CodeType, wanted: dict[Key, Wanted], loader: Any, config: Config) -> Made:
    """Return what was kept of `code` and `wanted`, or is made now and kept."""
    folder = os.path.dirname(os.path.abspath(__file__))
    makers = [signature(os.path.join(folder, name)) for name in MAKERS]
    specs = [(key, each.number, each.names, each.results) for key, each in wanted.items()]
    parts = (code.co_filename, sys.version, sys.flags.optimize, makers, specs)
    key = repr(parts).encode("utf-8", "surrogateescape")
    name = f"inline-{cache.checksum(key).hex()}"
    folders = cache.folders_of(config)
    for folder in folders:
        found = _kept(os.path.join(folder, name), key, code)
        if found is not None:
            return found
    source = _source(code, loader)
    if len(source) > SMALL and not cache.can_keep(folders):
        raise NotInlined("its source is long, and what is made of it cannot be kept")
    from autoinst.hook.inline_source import inline

    new, refused = inline(code, source, wanted)
    try:
        body = marshal.dumps((key, code, new, refused))
    except ValueError:  # a constant that another tool put there
        return new, refused
    cache.write_own(folders, name, MAGIC + cache.checksum(body) + body)
    return new, refused


def _kept(path: str, key: bytes, code: CodeType) -> Made | None:
    """Return what was kept in file `path` for this very `key` and `code`; None where there is nothing of use."""
    try:
        data = cache.read_own(path)
        head = len(MAGIC) + 8
        if data[:head] != MAGIC + cache.checksum(data[head:]):
            return None
        known, original, new, refused = marshal.loads(data[head:])
    except (OSError, ValueError, EOFError, TypeError):
        return None
    return (new, refused) if known == key and same_code(original, code) else None


def _source(code: CodeType, loader: Any) -> bytes:
    """Return the source of a module, as bytes, so that its own encoding line counts; raises NotInlined without one."""
    read = getattr(loader, "get_data", None)
    try:
        if read is not None:
            found = read(code.co_filename)
        else:
            with open(code.co_filename, "rb") as file:
                found = file.read()
    except (OSError, ImportError, ValueError, SyntaxError):
        found = None
    if type(found) is not bytes:
        raise NotInlined("its source was not found")
    return found
