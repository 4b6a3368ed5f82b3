"""Puts the bodies of functions inside `with`, by their module's source, where that gives the very code that is loaded.

The `ast` module is not imported: the parser and its classes are built in.
"""

from __future__ import annotations

import _ast

from autoinst.hook import lines
from autoinst.hook.calls import CALLS
from autoinst.hook.inline import NotInlined, same_code
from autoinst.hook.inline_calls import find_calls
from autoinst.hook.trampoline import Parameters, kind_of
from autoinst.hook.tree import NOWHERE, SCOPES, SIMPLE, bodies_of, call, constant, contains, fields_of, move, values_of
from autoinst.hook.warned import NoWarnings
from autoinst.rules.parsed import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType
    from typing import Any, TypeVar

    from autoinst.hook.inline import Wanted

    Edited = TypeVar("Edited")

MAX_SOURCE = 2_000_000  # bytes; parsing takes 100 times that in memory


def inline(
    code: CodeType, source: bytes, wanted: dict[tuple[str, int], Wanted]
) -> tuple[CodeType, dict[tuple[str, int], str]]:
    """Return module `code` with the `wanted` functions inlined, and why some are not.

    `wanted` has (qualified name, first line) as keys. Raises NotInlined where `source` does not give `code`.
    """
    if len(source) > MAX_SOURCE:
        raise NotInlined("the source is too long")
    with NoWarnings():
        try:
            tree: Any = parse(source, code.co_filename)
            same = same_code(compile(tree, code.co_filename, "exec", 0, True), code)
        except (SyntaxError, ValueError, RecursionError, MemoryError, TypeError):
            same = False
        if not same:
            raise NotInlined("the source does not match the compiled code")
        editor = _Editor(wanted)
        editor.visit(tree.body, "")
        try:
            new = compile(tree, code.co_filename, "exec", 0, True)
        except (SyntaxError, ValueError, RecursionError, MemoryError, TypeError) as error:
            raise NotInlined(f"it does not compile with probes: {error}") from None
    return lines.mend(new, wanted.keys() - editor.refused.keys()), editor.refused


class _Editor:
    """Goes through a module's tree and puts the wanted functions' bodies, and calls in them, inside `with`."""

    def __init__(self, wanted: dict[tuple[str, int], Wanted]) -> None:
        self.wanted = wanted
        self.calls: dict[tuple[str, int], list[str]] = {}
        for qualname, line in wanted:
            function, calls, _ = qualname.partition(CALLS)
            if calls:
                self.calls.setdefault((function, line), []).append(qualname)
        self.refused: dict[tuple[str, int], str] = dict.fromkeys(wanted, "its source was not found")

    def visit(self, statements: list[Any], prefix: str) -> None:
        """Edit the functions below `statements`, whose qualified names begin with `prefix`."""
        for statement in statements:
            if isinstance(statement, _ast.ClassDef):
                self.visit(statement.body, f"{prefix}{statement.name}.")
            elif isinstance(statement, (_ast.FunctionDef, _ast.AsyncFunctionDef)):
                qualname = f"{prefix}{statement.name}"
                self.visit(statement.body, f"{qualname}.<locals>.")
                lines = [decorator.lineno for decorator in statement.decorator_list]
                key = (qualname, min([statement.lineno, *lines]))
                calls = [self._edit(statement, (name, key[1]), find_calls) for name in self.calls.get(key, ())]
                for found in calls:
                    if found is not None:
                        found.edit()
                if key in self.wanted:
                    self._edit(statement, key, _edit)
            else:
                for body in bodies_of(statement):
                    self.visit(body, prefix)

    def _edit(self, function: Any, key: tuple[str, int], edit: Callable[[Any, Wanted], Edited]) -> Edited | None:
        """Return what `edit` gives for what is wanted at `key`; None where it cannot be, and why is noted."""
        wanted = self.wanted[key]
        if wanted.code.co_name != function.name:
            return None
        try:
            found = edit(function, wanted)
        except NotInlined as reason:
            self.refused[key] = str(reason)
            return None
        del self.refused[key]
        return found


def _edit(function: Any, wanted: Wanted) -> None:
    kind = kind_of(wanted.code)
    yields = "generator" in kind
    if yields:
        _check_yields(function.body)
    parameters = Parameters(wanted.code)
    body = _Body(wanted, yields=yields)
    documented = _is_docstring(function.body[0])
    items = []
    for i, names in enumerate(wanted.names):
        begin = call(wanted.placeholder(i, "call"), values_of(parameters, names))
        for part in (begin.func, *begin.args):  # not the call: its place is that of all the `with` does (3.13+)
            move(part, _first_place(wanted.code))
        items.append(_ast.withitem(context_expr=begin, optional_vars=None))
    rest = body.statements(function.body[1 if documented else 0 :])
    block = _ast.With(items=items, body=rest or [_ast.Pass(**NOWHERE)], type_comment=None, **NOWHERE)
    function.body[1 if documented else 0 :] = [block]


class _Body:
    """Rewrites what a function's own statements (not those of functions in it) return and yield."""

    def __init__(self, wanted: Wanted, *, yields: bool) -> None:
        self.wanted = wanted
        self.yields = yields
        self.givers = [i for i, reads in enumerate(wanted.results) if reads]
        self.probes = range(len(wanted.names))

    def statements(self, statements: list[Any]) -> list[Any]:
        """Return `statements` rewritten."""
        if not self.yields and not self.givers:
            return statements
        return [self._statement(statement) for statement in statements]

    def _statement(self, statement: Any) -> Any:
        if isinstance(statement, SCOPES):
            return statement
        if isinstance(statement, SIMPLE):
            return self._simple(statement)
        for body in bodies_of(statement):
            body[:] = self.statements(body)
        return statement

    def _simple(self, statement: Any) -> Any:
        pauses = self.yields and contains(statement, _ast.Yield)
        if pauses:
            _replace_yields(statement, self._suspending if _only_yields(statement) else self._yield)
        if isinstance(statement, _ast.Return) and statement.value is not None:
            for i in reversed(self.givers):
                statement.value = call(self.wanted.placeholder(i, "give"), statement.value)
        if not pauses:
            return statement
        items = [
            _ast.withitem(context_expr=constant(self.wanted.placeholder(i, "pause")), optional_vars=None)
            for i in reversed(self.probes)
        ]
        return _ast.With(items=items, body=[statement], type_comment=None, **NOWHERE)

    def _yield(self, node: Any) -> Any:
        """Return a `yield` after which the job is current at once, as the statement does more."""
        node = self._suspending(node)
        for i in self.probes:
            node = call(self.wanted.placeholder(i, "resume"), node)
        return node

    def _suspending(self, node: Any) -> Any:
        """Return a `yield` after which the job is current when the statement has ended."""
        value = node.value if node.value is not None else constant(None)
        for i in reversed(self.probes):
            value = call(self.wanted.placeholder(i, "suspend"), value)
        node.value = value
        return node


def _only_yields(statement: Any) -> bool:
    """Return whether nothing of the program runs in `statement` after its `yield`."""
    if not isinstance(getattr(statement, "value", None), _ast.Yield) or contains(statement.value.value, _ast.Yield):
        return False
    if isinstance(statement, _ast.Assign):
        return all(isinstance(target, _ast.Name) for target in statement.targets)
    return isinstance(statement, (_ast.Expr, _ast.Return))


def _replace_yields(node: Any, make: Any) -> None:
    """Replace each `yield` below `node`, but not in functions inside it, by what `make` gives for it."""
    for name in node._fields:
        value = getattr(node, name, None)
        if isinstance(value, list):
            for i, item in enumerate(value):
                if isinstance(item, _ast.AST) and not isinstance(item, _ast.Lambda):
                    _replace_yields(item, make)
                    if isinstance(item, _ast.Yield):
                        value[i] = make(item)
        elif isinstance(value, _ast.AST) and not isinstance(value, _ast.Lambda):
            _replace_yields(value, make)
            if isinstance(value, _ast.Yield):
                setattr(node, name, make(value))


def _check_yields(statements: list[Any]) -> None:
    """Raise NotInlined where a generator yields in a way that cannot be told to a probe."""
    for statement in statements:
        if isinstance(statement, SIMPLE):
            if contains(statement, _ast.YieldFrom):
                raise NotInlined("it delegates by `yield from`")
        elif isinstance(statement, SCOPES):
            heads = [value for name, value in fields_of(statement) if name != "body"]
            if any(contains(head, (_ast.Yield, _ast.YieldFrom)) for head in heads):
                raise NotInlined("it yields where it defines a function or class")
        else:
            bodies = bodies_of(statement)
            if contains(statement, (_ast.Yield, _ast.YieldFrom), bodies):
                raise NotInlined(f"it yields in the head of `{type(statement).__name__.lower()}`")
            for body in bodies:
                _check_yields(body)


def _is_docstring(statement: Any) -> bool:
    return (
        isinstance(statement, _ast.Expr)
        and isinstance(statement.value, _ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _first_place(code: CodeType) -> dict[str, int]:
    """Return the place of a function's first statement: what comes before it there is no line more for tracers."""
    lines = [line for _, _, line in code.co_lines() if line not in (None, code.co_firstlineno)]
    line = lines[0] if lines else code.co_firstlineno
    return {"lineno": line, "end_lineno": line, "col_offset": -1, "end_col_offset": -1}
