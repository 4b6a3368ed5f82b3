"""What the editors of functions' source have in common: a walk through its tree, and new nodes.

The `ast` module is not imported: the parser and its classes are built in.
"""

from __future__ import annotations

import _ast

from autoinst.rules.parsed import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from autoinst.hook.calls import Locals
    from autoinst.hook.trampoline import Parameters

NOWHERE = {"lineno": -1, "end_lineno": -1, "col_offset": -1, "end_col_offset": -1}  # so that no line is traced
SIMPLE = (_ast.Expr, _ast.Assign, _ast.AugAssign, _ast.AnnAssign, _ast.Return, _ast.Delete, _ast.Assert, _ast.Raise)
SCOPES = (_ast.FunctionDef, _ast.AsyncFunctionDef, _ast.ClassDef)
BODIES = ("body", "orelse", "finalbody")


def contains(node: Any, kinds: Any, left_out: Any = ()) -> bool:
    """Return whether there is a node of `kinds` in `node`, functions inside it and the lists `left_out` aside."""
    if isinstance(node, kinds):
        return True
    if isinstance(node, _ast.Lambda):
        return False
    if isinstance(node, list):
        return not any(node is body for body in left_out) and any(contains(item, kinds, left_out) for item in node)
    return isinstance(node, _ast.AST) and any(contains(value, kinds, left_out) for _, value in fields_of(node))


def fields_of(node: Any) -> list[tuple[str, Any]]:
    """Return the names and values of what is below a node."""
    return [(name, getattr(node, name, None)) for name in node._fields]


def bodies_of(statement: Any) -> list[list[Any]]:
    """Return the lists of statements in a compound statement that is no function and no class."""
    found = [body for name in BODIES if isinstance(body := getattr(statement, name, None), list)]
    parts = (*(getattr(statement, "handlers", None) or ()), *(getattr(statement, "cases", None) or ()))
    return [*found, *(part.body for part in parts)]


def values_of(parameters: Parameters | Locals, names: tuple[str, ...]) -> Any:
    """Return the expression that gives the arguments `names` as a tuple."""
    text = f"({''.join(f'{parameters.value_of(name)}, ' for name in names)})"
    tree: Any = parse(text, "<autoinst>", "eval")
    return tree.body


def move(node: Any, place: dict[str, int]) -> None:
    """Put `node` and all below it at `place`."""
    move_one(node, place)
    for _, value in fields_of(node):
        for item in value if isinstance(value, list) else (value,):
            if isinstance(item, _ast.AST):
                move(item, place)


def move_one(node: Any, place: dict[str, int]) -> None:
    """Put `node` alone at `place`."""
    if "lineno" in node._attributes:
        for name, value in place.items():
            setattr(node, name, value)


def place_of(node: Any) -> dict[str, int]:
    """Return the line of `node` as a place: what is put there is no line more for tracers."""
    return {"lineno": node.lineno, "end_lineno": node.lineno, "col_offset": -1, "end_col_offset": -1}


def constant(value: Any) -> Any:
    """Return a constant that is on no line."""
    return _ast.Constant(value=value, kind=None, **NOWHERE)


def call(placeholder: str, argument: Any) -> Any:
    """Return the call of what `placeholder` stands for."""
    return _ast.Call(func=constant(placeholder), args=[argument], keywords=[], **NOWHERE)
