"""Puts the statements of a function that call what a rule names inside `with`, by the function's syntax tree."""

from __future__ import annotations

import _ast

from autoinst.hook.calls import Locals
from autoinst.hook.inline import NotInlined
from autoinst.hook.tree import (
    NOWHERE,
    SCOPES,
    SIMPLE,
    bodies_of,
    call,
    contains,
    fields_of,
    move,
    move_one,
    place_of,
    values_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from autoinst.hook.inline import Wanted

COMPREHENSIONS = (_ast.DictComp, _ast.GeneratorExp, _ast.ListComp, _ast.SetComp)
# Within one of these a name may be read or not.
SOMETIMES = (
    _ast.Assert,
    _ast.BoolOp,
    _ast.Compare,
    _ast.IfExp,
    _ast.NamedExpr,
    *COMPREHENSIONS,
)


def find_calls(function: Any, wanted: Wanted) -> Calls:
    """Return the calls `wanted` in simple statements of `function`; raises NotInlined where one cannot be edited."""
    parameters = function.args
    given = [*parameters.posonlyargs, *parameters.args, *parameters.kwonlyargs, parameters.vararg, parameters.kwarg]
    calls = Calls(wanted)
    calls.block(function.body, {parameter.arg for parameter in given if parameter is not None})
    if not calls.statements:
        raise NotInlined(f"it does not call {calls.callee}")
    return calls


class Calls:
    """Walks through a function's statements; what is sure to be set there comes along as names.

    Nothing is changed before all that rules mean in the function have been found: one that cannot be edited leaves it
    as it is, and what a statement sets would not be sure any more once it is inside a `with`.
    """

    def __init__(self, wanted: Wanted) -> None:
        """Find the calls of the callee that `wanted` has."""
        self.wanted = wanted
        self.callee = wanted.callee
        self.calls: list[Any] = []
        self.statements: list[tuple[list[Any], int]] = []  # those with such calls, each by the block it is in

    def edit(self) -> None:
        """Put the statements that were found inside `with`, where their calls open what the rule opens."""
        for node in self.calls:
            self._open_before(node)
        for block, i in self.statements:
            items = [
                _ast.withitem(context_expr=self._telling(probe, "within", (), block[i]), optional_vars=None)
                for probe in range(len(self.wanted.names))
            ]
            block[i] = _ast.With(items=items, body=[block[i]], type_comment=None, **NOWHERE)

    def block(self, statements: list[Any], bound: set[str]) -> None:
        """Find the calls in `statements`, at whose start the variables `bound` are set; adds those at their end."""
        for i, statement in enumerate(statements):
            if isinstance(statement, SCOPES):
                continue
            if isinstance(statement, SIMPLE):
                if self._calls(statement):
                    if contains(statement, (_ast.Yield, _ast.YieldFrom)):
                        raise NotInlined(f"the statement that calls {self.callee} yields")
                    self._find(statement, frozenset(bound))
                    self.statements.append((statements, i))
                bound |= _targets(statement)
                bound -= _unset(statement)
                continue
            bodies = bodies_of(statement)
            if self._calls(statement, bodies):
                raise NotInlined(f"{self.callee} is called in the head of `{type(statement).__name__.lower()}`")
            bound -= _unset(statement)  # a loop comes back to its start, and a handler does after all or nothing
            inside = bound | _targets(statement)
            for body in bodies:
                self.block(body, set(inside if body is getattr(statement, "body", None) else bound))

    def _calls(self, node: Any, left_out: Any = ()) -> bool:
        """Return whether the call is in `node`, functions inside it and the lists `left_out` aside."""
        if isinstance(node, list):
            return not any(node is body for body in left_out) and any(self._calls(item, left_out) for item in node)
        if not isinstance(node, _ast.AST) or isinstance(node, _ast.Lambda):
            return False
        if isinstance(node, _ast.Call) and _dotted(node.func) == self.callee:
            return True
        return any(self._calls(value, left_out) for _, value in fields_of(node))

    def _find(self, node: Any, known: frozenset[str]) -> None:
        """Find the calls below `node`, before which the variables `known` are sure to be set."""
        if isinstance(node, _ast.Lambda):
            return
        if isinstance(node, COMPREHENSIONS):
            self._find_in_comprehension(node, known)
            return
        inside = known
        if isinstance(node, _ast.Call):
            if _dotted(node.func) == self.callee:
                self._check(known | _sure_reads(node))
                self.calls.append(node)
            inside = known | _sure_reads(node.func)
        for name, value in fields_of(node):
            for item in value if isinstance(value, list) else (value,):
                if isinstance(item, _ast.AST):
                    self._find(item, known if name == "func" else inside)

    def _find_in_comprehension(self, node: Any, known: frozenset[str]) -> None:
        """Find those in a comprehension, whose variables hide others of these names and are set one after the other."""
        parts = node.generators
        self._find(parts[0].iter, known)
        inside = known - _names([part.target for part in parts])
        below = len(self.calls)
        for i, part in enumerate(parts):
            if i:
                self._find(part.iter, inside)
            self._find(part.target, inside)
            inside |= _names(part.target)
            for condition in part.ifs:
                self._find(condition, inside)
        for name in ("elt", "key", "value"):
            if hasattr(node, name):
                self._find(getattr(node, name), inside)
        if isinstance(node, _ast.GeneratorExp) and len(self.calls) > below:
            raise NotInlined(f"{self.callee} is called in a generator expression, which may run after its statement")

    def _check(self, known: frozenset[str]) -> None:
        for names in self.wanted.names:
            for name in names:
                if name not in known:
                    raise NotInlined(f"its rule reads {name}, which may not be set where {self.callee} is called")

    def _open_before(self, node: Any) -> None:
        """Let the call `node` open what the rule opens when its arguments are there, by what comes last before it."""
        last = node.args[-1] if node.args else None
        if node.keywords:
            node.keywords[-1].value = self._opening(node.keywords[-1].value)
        elif isinstance(last, _ast.Starred):
            last.value = self._opening(last.value)
        elif last is not None:
            node.args[-1] = self._opening(last)
        else:
            node.func = self._opening(node.func)

    def _opening(self, value: Any) -> Any:
        """Return the expression that gives `value`, and then opens what the rule opens."""
        for i, names in enumerate(self.wanted.names):
            opening = self._telling(i, "begin", names, value)
            opening.args.insert(0, value)
            move_one(opening, place_of(value))
            value = opening
        return value

    def _telling(self, probe: int, part: str, names: tuple[str, ...], node: Any) -> Any:
        """Return the call of a `part` of the probe with the values of `names`, on the line of `node`."""
        telling = call(self.wanted.placeholder(probe, part), values_of(Locals(self.wanted.code), names))
        for each in (telling.func, *telling.args):
            move(each, place_of(node))
        return telling


def _dotted(node: Any) -> str | None:
    """Return `a.b.c` for a name with attributes."""
    if isinstance(node, _ast.Name):
        return str(node.id)
    if isinstance(node, _ast.Attribute):
        value = _dotted(node.value)
        return None if value is None else f"{value}.{node.attr}"
    return None


def _targets(statement: Any) -> set[str]:
    """Return the variables a statement sets: an assignment, or the head of `for` or `with`."""
    if isinstance(statement, _ast.Assign):
        return _names(statement.targets)
    if isinstance(statement, _ast.AnnAssign) and statement.value is None:
        return set()
    if isinstance(statement, (_ast.AnnAssign, _ast.For, _ast.AsyncFor)):
        return _names(statement.target)
    if isinstance(statement, (_ast.With, _ast.AsyncWith)):
        return _names([item.optional_vars for item in statement.items])
    return set()


def _names(node: Any) -> set[str]:
    if isinstance(node, list):
        return {name for item in node for name in _names(item)}
    if isinstance(node, _ast.Name):
        return {node.id}
    if isinstance(node, (_ast.Tuple, _ast.List)):
        return _names(node.elts)
    return _names(node.value) if isinstance(node, _ast.Starred) else set()


def _reads(node: Any) -> set[str]:
    """Return the variables that are read in `node`, functions inside it aside."""
    if isinstance(node, list):
        return {name for item in node for name in _reads(item)}
    if isinstance(node, _ast.Name):
        return {node.id} if isinstance(node.ctx, _ast.Load) else set()
    if not isinstance(node, _ast.AST) or isinstance(node, _ast.Lambda):
        return set()
    return {name for _, value in fields_of(node) for name in _reads(value)}


def _sure_reads(node: Any) -> set[str]:
    """Return the variables that are read in `node` whatever happens."""
    return set() if contains(node, SOMETIMES) else _reads(node)


def _unset(node: Any) -> set[str]:
    """Return the variables that are deleted somewhere in `node`, as `except ... as` does too, functions aside."""
    if isinstance(node, list):
        return {name for item in node for name in _unset(item)}
    if not isinstance(node, _ast.AST) or isinstance(node, (*SCOPES, _ast.Lambda)):
        return set()
    found = {name for _, value in fields_of(node) for name in _unset(value)}
    if isinstance(node, _ast.Delete):
        found |= _names(node.targets)
    if isinstance(node, _ast.ExceptHandler) and node.name is not None:
        found.add(node.name)
    return found
