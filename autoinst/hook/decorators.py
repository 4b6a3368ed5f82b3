"""Reads from a source file which decorators its functions have, for rules that say `decorated_by`."""

from __future__ import annotations

from types import CodeType

from autoinst.hook.rewrite import CO_OPTIMIZED, functions
from autoinst.hook.warned import NoWarnings
from autoinst.rules.match import ACCESSORS, PROPERTIES
from autoinst.rules.parsed import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_SOURCE = 4_000_000
WORDS = ACCESSORS | {name.rpartition(".")[2] for name in PROPERTIES}


class Decorators(dict[str, "list[str]"]):
    """The decorators of a module's functions, by qualified name, as far as rules ask for them.

    The source is read with the first question that is for a function of a class which has properties, or, with
    `everything`, for any; of it only the lines in question are parsed, as all of 1,000 lines would take 9 ms.
    """

    def __init__(self, code: CodeType, *, everything: bool) -> None:
        """Answer for the module with that code."""
        super().__init__()
        self._code = code
        self._classes = None if everything else frozenset(_with_properties(code, ""))
        self._source: list[bytes] | None = None
        self._first_lines: dict[str, list[int]] = {}

    def get(self, qualname: str, default: Any = ()) -> Any:
        """Return the decorators of function `qualname`, of all that are called so."""
        if self._classes is not None and qualname.rpartition(".")[0] not in self._classes:
            return default
        if self._source is None:
            self._source = _lines_of(self._code.co_filename)
            for name, code in functions(self._code):
                self._first_lines.setdefault(name, []).append(code.co_firstlineno)
        if qualname not in self:
            try:
                self[qualname] = [
                    name for line in self._first_lines.get(qualname, ()) for name in _decorators_at(self._source, line)
                ]
            except (SyntaxError, ValueError):  # lines that do not stand by themselves
                self.update(decorators_of(self._code.co_filename))
                self.setdefault(qualname, [])
        return self[qualname]

    def __bool__(self) -> bool:
        """Tell that it answers, empty as it is before the first question."""
        return True


def _lines_of(file: str) -> list[bytes]:
    try:
        with open(file, "rb") as source:
            return source.read(MAX_SOURCE).splitlines()
    except (OSError, ValueError):
        return []


def _decorators_at(source: list[bytes], line: int) -> list[str]:
    """Return the decorators of the function whose first `line` (from 1), which is its first decorator's, is given.

    Raises SyntaxError or ValueError where the lines up to its `def` cannot be read without the rest.
    """
    lines = source[line - 1 : line]
    if not lines or not lines[0].lstrip().startswith(b"@"):
        return []
    indent = lines[0][: len(lines[0]) - len(lines[0].lstrip())]
    text: list[str] = []
    for each in source[line - 1 :]:
        if each.lstrip().startswith((b"def ", b"async ")):
            break
        text.append(each.removeprefix(indent).decode())
    with NoWarnings():
        tree: Any = parse("\n".join((*text, "def f(): pass", "")), "<decorators>")
    if len(tree.body) != 1:
        raise ValueError(line)
    return [name for name in map(_dotted, tree.body[0].decorator_list) if name]


def _with_properties(code: CodeType, prefix: str) -> list[str]:
    """Return the classes, by qualified name, whose bodies name what makes properties."""
    found: list[str] = []
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            is_class = not constant.co_flags & CO_OPTIMIZED
            qualname = prefix + constant.co_name
            if is_class and not WORDS.isdisjoint(constant.co_names):
                found.append(qualname)
            found += _with_properties(constant, f"{qualname}." if is_class else f"{qualname}.<locals>.")
    return found


def decorators_of(file: str) -> dict[str, list[str]]:
    """Return for each function of source `file`, by qualified name, its decorators as dotted text (`app.task`).

    A file that cannot be read or parsed has none. The `ast` module is not imported: the parser is built in.
    """
    try:
        with open(file, "rb") as source, NoWarnings():
            tree = parse(source.read(MAX_SOURCE), file)
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
