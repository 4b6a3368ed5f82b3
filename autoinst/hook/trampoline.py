"""Puts a probe around a code object: same arguments, free variables, flags, name and line, the original inside.

The new code object is made with compile(), never by assembling bytecode, so it is right on every CPython. The
original code is a constant of it, and a function is made from that on each call: it needs no function object to
begin with, and closures, exec'd copies and threads cannot mix.
"""

from __future__ import annotations

import sys
from types import CellType, CodeType, MethodType

from autoinst.hook.constants import Calls, inert_helpers, method
from autoinst.rules.parsed import parse
from autoinst.trace.exceptions import PROBE_VARIABLE, traceback_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FunctionType
    from typing import Any, TypeAlias

    from autoinst.hook.carry import MadeProbe, RunProbe
    from autoinst.hook.monitor import CopyProbe
    from autoinst.hook.probe import Probe

    AnyProbe: TypeAlias = Probe | MadeProbe | RunProbe | CopyProbe

CO_VARARGS, CO_VARKEYWORDS, CO_NOFREE = 0x4, 0x8, 0x40
CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR = 0x20, 0x80, 0x200
CO_ITERABLE_COROUTINE = 0x100
CO_HAS_DOCSTRING = 0x4000000  # since 3.14
DOCSTRING, INNER = "@autoinst.docstring", "__autoinst_o"
HELPER = "@autoinst.helper."
PROBE_METHODS = ("enter", "exit", "error", "suspend", "resume", "first")
MAX_TEMPLATES = 512
ALL_ARGS, ALL_KWARGS = "*args", "**kwargs"  # what rules call `args` and `kwargs`, whatever parameters are called

# In the bodies: `$V` are the values for the probe, `$C` the original's arguments, `@name` the probe's bound methods,
# `@trim` a helper: all are constants, so that the code's names stay the original's. What must not live longer than in
# the original is handed on by `(x, x := None)[0]`.
_END = """
    except @BaseException as __autoinst_e:
        @trim(__autoinst_e)
        @error(__autoinst_t, __autoinst_e)
        raise
    @exit(__autoinst_t, __autoinst_r)
    return __autoinst_r
"""
_BODIES = {
    "function": """
    __autoinst_t = False
    try:
        __autoinst_t = @enter($V)
        __autoinst_r = __autoinst_o($C)"""
    + _END,
    "coroutine": """
    __autoinst_t = False
    try:
        __autoinst_t = @enter($V)
        __autoinst_r = await __autoinst_o($C)"""
    + _END,
    # Not `yield from`: the transaction is current only while the body runs.
    "generator": """
    __autoinst_t = False
    try:
        __autoinst_t = @enter($V)
        __autoinst_g = __autoinst_o($C)
        __autoinst_v = __autoinst_g.send(None)
        while True:
            __autoinst_y = None
            @suspend(__autoinst_t)
            try:
                __autoinst_x = yield (__autoinst_v, __autoinst_v := None)[0]
            except @BaseException as __autoinst_e:
                @trim(__autoinst_e)
                __autoinst_y = __autoinst_e
            @resume(__autoinst_t)
            if __autoinst_y is None:
                __autoinst_v = __autoinst_g.send(__autoinst_x)
            else:
                __autoinst_v = __autoinst_g.throw((__autoinst_y, __autoinst_y := None)[0])
    except @StopIteration as __autoinst_e:
        __autoinst_r = __autoinst_e.value"""
    + _END,
    "async generator": """
    __autoinst_t = False
    try:
        __autoinst_t = @enter($V)
        __autoinst_g = __autoinst_o($C)
        __autoinst_v = await @first(__autoinst_g)
        while True:
            __autoinst_y = None
            @suspend(__autoinst_t)
            try:
                __autoinst_x = yield (__autoinst_v, __autoinst_v := None)[0]
            except @BaseException as __autoinst_e:
                @trim(__autoinst_e)
                __autoinst_y = __autoinst_e
            @resume(__autoinst_t)
            if __autoinst_y is None:
                __autoinst_v = await __autoinst_g.asend(__autoinst_x)
            else:
                __autoinst_v = await __autoinst_g.athrow((__autoinst_y, __autoinst_y := None)[0])
    except @StopAsyncIteration:
        __autoinst_r = None"""
    + _END.replace("return __autoinst_r", "return"),
}

_BODIES["delegating generator"] = _BODIES["generator"].replace("__autoinst_o($C)", "@delegating(__autoinst_o)($C)")

_templates: dict[tuple[str, ...], CodeType] = {}
_store_operations: set[int] = set()
_delegations: set[int] = set()


class Parameters:
    """The parameters of a code object, by kind, and its free variables: those of the functions around it."""

    __slots__ = ("free", "keyword_only", "positional", "positional_only", "var_keyword", "var_positional")

    def __init__(self, code: CodeType) -> None:
        """Read them from `code`."""
        names = code.co_varnames
        count = code.co_argcount
        after = count + code.co_kwonlyargcount
        self.positional = names[:count]
        self.positional_only = code.co_posonlyargcount
        self.free = code.co_freevars
        self.keyword_only = names[count:after]
        self.var_positional = self.var_keyword = None
        if code.co_flags & CO_VARARGS:
            self.var_positional = names[after]
            after += 1
        if code.co_flags & CO_VARKEYWORDS:
            self.var_keyword = names[after]

    @property
    def names(self) -> frozenset[str]:
        """All parameters' names."""
        stars = [name for name in (self.var_positional, self.var_keyword) if name is not None]
        return frozenset((*self.positional, *self.keyword_only, *stars))

    @property
    def first(self) -> str | None:
        """The first parameter where it is named as a method's is (`self`, `cls`, `mcs`)."""
        return self.positional[0] if self.positional and self.positional[0] in ("self", "cls", "mcs") else None

    def signature(self, rebound: frozenset[str]) -> tuple[str, str]:
        """Return the parameter list of the trampoline and the argument list of its call of the original.

        The trampoline does not keep those that the original gives up (`rebound`).
        """

        def given(name: str) -> str:
            return f"({name}, {name} := None)[0]" if name in rebound else name

        parameters: list[str] = []
        for i, name in enumerate(self.positional):
            parameters.append(name)
            if i + 1 == self.positional_only:
                parameters.append("/")
        arguments = [given(name) for name in self.positional]
        if self.var_positional:
            parameters.append(f"*{self.var_positional}")
            arguments.append(f"*{given(self.var_positional)}")
        elif self.keyword_only:
            parameters.append("*")
        for name in self.keyword_only:
            parameters.append(name)
            arguments.append(f"{name}={given(name)}")
        if self.var_keyword:
            parameters.append(f"**{self.var_keyword}")
            arguments.append(f"**{given(self.var_keyword)}")
        return ", ".join(parameters), ", ".join(arguments)

    def value_of(self, name: str) -> str:
        """Return the expression that gives a rule's `name`: a parameter, or all arguments as `args` or `kwargs`."""
        if name in self.names:
            return name
        if name in ("args", ALL_ARGS):
            given = self.positional[1:] if self.first else self.positional
            stars = (f"*{self.var_positional}",) if self.var_positional else ()
            return f"({''.join(f'{item}, ' for item in (*given, *stars))})"
        if name in ("kwargs", ALL_KWARGS):
            pairs = [f"{key!r}: {key}" for key in self.keyword_only]
            if self.var_keyword:
                pairs.append(f"**{self.var_keyword}")
            return f"{{{', '.join(pairs)}}}"
        if name in self.free:  # its cell, which may be empty: `expressions.compile_field` looks into it
            return f"{INNER}.__closure__[{self.free.index(name)}]"
        raise KeyError(name)

    def read(self, scope: Any, name: str) -> Any:
        """Return what a rule calls `name` from the local variables of a call that has just begun."""
        if name in self.names:
            return scope[name]
        if name in self.free:
            return CellType(scope[name]) if name in scope else CellType()
        if name in ("args", ALL_ARGS):
            given = self.positional[1:] if self.first else self.positional
            rest = scope[self.var_positional] if self.var_positional else ()
            return (*(scope[item] for item in given), *rest)
        rest = scope[self.var_keyword] if self.var_keyword else {}
        return {**{item: scope[item] for item in self.keyword_only}, **rest}


def rebound(code: CodeType) -> frozenset[str]:
    """Return the parameters that `code` may delete or assign to, and so does not keep until it ends."""
    if sys.version_info < (3, 11):  # there the caller keeps the arguments in any case
        return frozenset()
    names = Parameters(code).names
    found = set(code.co_cellvars)
    operations, operands = code.co_code[::2], code.co_code[1::2]
    stores = _stores()
    for operation, operand in zip(operations, operands):  # noqa: B905 - instructions are two bytes each
        if operation in stores:
            for i in (operand, operand >> 4, operand & 15):  # some have two variables in one operand
                found.update(code.co_varnames[i : i + 1])
    return names & found


def _stores() -> frozenset[int]:
    """Return the operations that change local variables, found by compiling: their numbers differ by version."""
    if not _store_operations:
        seen: list[set[int]] = []
        bodies = ("a = x; a", "a, b = x()", "del a", "a = x", "pass", "c, d = x(); x(); return a, b, None")
        for body in bodies:
            code = compile(f"def f(a, b):\n global c, d\n {body}", "<autoinst>", "exec", 0, True, optimize=0)
            seen.append(set(original(code).co_code[::2]))
        _store_operations.update(*seen[:-2])
        _store_operations.difference_update(*seen[-2:])  # what is not about storing
    return frozenset(_store_operations)


def kind_of(code: CodeType) -> str:
    """Return which of the four kinds of function `code` is."""
    flags = code.co_flags
    if flags & CO_ASYNC_GENERATOR:
        return "async generator"
    if flags & CO_COROUTINE:
        return "coroutine"
    return "generator" if flags & CO_GENERATOR else "function"


def _body_of(code: CodeType) -> str:
    kind = kind_of(code)
    return "delegating generator" if kind == "generator" and _delegates(code) else kind


def trampoline(code: CodeType, probe: AnyProbe, names: tuple[str, ...]) -> CodeType:
    """Return a code object that runs `code` between `probe`'s calls, handing it the arguments called `names`.

    Raises ValueError where the compiler did not give the same free variables.
    """
    parameters = Parameters(code)
    docstring = _docstring(code)
    values = f"({''.join(f'{parameters.value_of(name)}, ' for name in names)})"
    template = _template(
        *parameters.signature(rebound(code)), values, _body_of(code), code.co_freevars, docstring is not None
    )
    if template.co_freevars != code.co_freevars:
        raise ValueError(f"free variables differ: {template.co_freevars} and {code.co_freevars}")
    constants: list[Any] = []
    for constant in template.co_consts:
        if isinstance(constant, CodeType):
            constants.append(code)
        elif isinstance(constant, str) and constant.startswith(HELPER):
            name = constant.removeprefix(HELPER)
            constants.append(_helpers[name] if name in _helpers else method(name, probe))
        elif constant == DOCSTRING:
            constants.append(docstring)
        elif isinstance(constant, str) and constant.endswith(INNER):  # 3.10 keeps the qualified name as a constant
            constants.append(code.co_name)
        else:
            constants.append(constant)
    changes: dict[str, Any] = {
        "co_consts": (*constants, probe),
        "co_names": (*template.co_names, *code.co_names),  # for who looks up the globals that a function uses
        "co_name": code.co_name,
        "co_filename": code.co_filename,
        "co_firstlineno": code.co_firstlineno,
        "co_flags": template.co_flags | (code.co_flags & ~CO_NOFREE),
    }
    if sys.version_info >= (3, 11):
        changes["co_qualname"] = code.co_qualname
    return template.replace(**changes)


def probe_of(code: CodeType) -> AnyProbe | None:
    """Return the (outermost) probe in a code object with one, made here or by inlining, None for any other."""
    if PROBE_VARIABLE in code.co_varnames:
        return next((constant for constant in code.co_consts if hasattr(type(constant), "suspend")), None)
    owners = (constant.__self__ for constant in code.co_consts if type(constant) is MethodType)
    return next((owner.probe for owner in owners if type(owner) is Calls), None)


def original(code: CodeType) -> CodeType:
    """Return the code object around which `code` was put (once)."""
    return next(constant for constant in code.co_consts if isinstance(constant, CodeType))


def trim(exception: BaseException) -> None:
    """Take the trampoline's frame off an exception it has caught.

    On 3.11+ a bare `raise` takes the traceback from the exception, so that it stays off; on 3.10 it does not.
    """
    traceback = traceback_of(exception)
    if traceback is not None:
        # Not by assignment: a frozen dataclass, for one, allows none.
        BaseException.with_traceback(exception, traceback.tb_next)


def delegating(function: FunctionType) -> FunctionType:
    """Mark an inner generator function as `types.coroutine` has marked its trampoline.

    The mark lets it `yield from` a coroutine; the decorator comes after the trampoline and sees only that.
    """
    mark = sys._getframe(2).f_code.co_flags & CO_ITERABLE_COROUTINE
    if mark:
        function.__code__ = function.__code__.replace(co_flags=function.__code__.co_flags | mark)
    return function


def _delegates(code: CodeType) -> bool:
    """Return whether `code` has a `yield from`; where the operation is unknown it may."""
    if not _delegations:
        with_it, without = (
            set(original(compile(f"def f(x):\n {body}", "<autoinst>", "exec", 0, True, optimize=0)).co_code[::2])
            for body in ("yield from x", "yield x\n async def f(y):\n  return await y")
        )
        _delegations.update(with_it - without)
    return not _delegations or not _delegations.isdisjoint(code.co_code[::2])


class Helpers:
    """What trampolines use beside their probes."""

    __slots__ = ()
    trim = staticmethod(trim)
    delegating = staticmethod(delegating)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as something inert that needs no autoinst."""
        return inert_helpers()


_own = Helpers()
# Ours, and names that a module may shadow or, with builtins of its own, not have.
_helpers: dict[str, Any] = {
    "trim": method("trim", _own),
    "delegating": method("delegating", _own),
    "BaseException": BaseException,
    "StopIteration": StopIteration,
    "StopAsyncIteration": StopAsyncIteration,
}


def _docstring(code: CodeType) -> str | None:
    if sys.version_info >= (3, 14) and not code.co_flags & CO_HAS_DOCSTRING:
        return None
    first = code.co_consts[0] if code.co_consts else None
    return first if isinstance(first, str) else None


def _template(
    parameters: str, arguments: str, values: str, kind: str, free: tuple[str, ...], documented: bool
) -> CodeType:
    key = (parameters, arguments, values, kind, "documented" if documented else "", *free)
    found = _templates.get(key)
    if found is None:
        found = _compile(parameters, arguments, values, kind, free, documented)
        if len(_templates) < MAX_TEMPLATES:
            _templates[key] = found
    return found


def _compile(
    parameters: str, arguments: str, values: str, kind: str, free: tuple[str, ...], documented: bool
) -> CodeType:
    body = _BODIES[kind].replace("$V", values).replace("$C", arguments)
    for name in (*PROBE_METHODS, *_helpers):  # a plain string would be warned about: it cannot be called
        body = body.replace(f"@{name}", f"({HELPER + name!r} if True else 0)")
    lines = [f"{'async ' if kind in ('coroutine', 'async generator') else ''}def f({parameters}):"]
    if documented:
        lines.append(f"    {DOCSTRING!r}")
    lines.append(f"    def {INNER}(): {'; '.join(free) or 'pass'}")
    lines.extend(body.strip("\n").splitlines())
    if free:  # an enclosing function whose locals they are
        lines = [f"def outer({', '.join(free)}):", *(f" {line}" for line in lines)]
    tree = parse("\n".join(lines), "<autoinst>")
    _one_line(tree)
    code = compile(tree, "<autoinst>", "exec", 0, True, optimize=0)
    for _ in range(2 if free else 1):
        code = original(code)
    return code


def _one_line(node: Any) -> None:
    """Put a syntax tree on line 1, column 0, so that the code has one line: the function's own first."""
    if "lineno" in node._attributes:
        node.lineno = node.end_lineno = 1
        node.col_offset = node.end_col_offset = 0
    for field in node._fields:
        value = getattr(node, field, None)
        for item in value if isinstance(value, list) else (value,):
            if hasattr(item, "_fields"):
                _one_line(item)
