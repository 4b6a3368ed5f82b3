"""Reads from a source file which decorators its functions have, for rules that say `decorated_by`."""

from __future__ import annotations

from autoinst.hook.trampoline import ONLY_AST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_SOURCE = 4_000_000


def decorators_of(file: str) -> dict[str, list[str]]:
    """Return for each function of source `file`, by qualified name, its decorators as dotted text (`app.task`).

    A file that cannot be read or parsed has none. The `ast` module is not imported: the parser is built in.
    """
    try:
        with open(file, "rb") as source:
            tree = compile(source.read(MAX_SOURCE), file, "exec", ONLY_AST, True)
    except (OSError, SyntaxError, ValueError):
        return {}
    found: dict[str, list[str]] = {}
    _visit(tree, "", found)
    return found


def _visit(node: Any, prefix: str, found: dict[str, list[str]]) -> None:
    for field in node._fields:
        value = getattr(node, field, None)
        children: list[Any] = value if isinstance(value, list) else [value]
        for child in children:
            kind = type(child).__name__
            if kind in ("FunctionDef", "AsyncFunctionDef"):
                found[prefix + child.name] = [name for name in map(_dotted, child.decorator_list) if name]
                _visit(child, f"{prefix}{child.name}.<locals>.", found)
            elif kind == "ClassDef":
                _visit(child, f"{prefix}{child.name}.", found)
            elif hasattr(child, "_fields"):
                _visit(child, prefix, found)


def _dotted(node: Any) -> str:
    kind = type(node).__name__
    if kind == "Call":
        return _dotted(node.func)
    if kind == "Attribute":
        inner = _dotted(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return node.id if kind == "Name" else ""
