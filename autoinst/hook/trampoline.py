"""Puts a probe around a code object: same arguments, free variables, flags, name and line, the original inside.

The new code object is made with compile(), never by assembling bytecode, so it is right on every CPython. The
original code is a constant of it, and a function is made from that on each call: it needs no function object to
begin with, and closures, exec'd copies and threads cannot mix.
"""

from __future__ import annotations

import sys
from types import CodeType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from autoinst.hook.carry import MadeProbe, RunProbe
    from autoinst.hook.probe import Probe

    AnyProbe: TypeAlias = Probe | MadeProbe | RunProbe

CO_VARARGS, CO_VARKEYWORDS, CO_NOFREE = 0x4, 0x8, 0x40
CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR = 0x20, 0x80, 0x200
CO_HAS_DOCSTRING = 0x4000000  # since 3.14
ONLY_AST = 0x400  # ast.PyCF_ONLY_AST, without the 6 ms of importing ast
PROBE, DOCSTRING, INNER = "@autoinst.probe", "@autoinst.docstring", "__autoinst_o"
MAX_TEMPLATES = 512

# On 3.11+ an exception re-raised by a bare `raise` takes its traceback from the exception, so that the frame the
# trampoline adds can be taken off; on 3.10 it stays.
_TRIM = "if {0}.__traceback__ is not None: {0}.__traceback__ = {0}.__traceback__.tb_next"
_END = f"""
    except BaseException as __autoinst_e:
        {_TRIM.format("__autoinst_e")}
        $P.error(__autoinst_t, __autoinst_e)
        raise
    $P.exit(__autoinst_t, __autoinst_r)
    return __autoinst_r
"""
_BODIES = {
    "function": """
    __autoinst_t = None
    try:
        __autoinst_t = $P.enter($V)
        __autoinst_r = __autoinst_o($C)"""
    + _END,
    "coroutine": """
    __autoinst_t = None
    try:
        __autoinst_t = $P.enter($V)
        __autoinst_r = await __autoinst_o($C)"""
    + _END,
    # Not `yield from`: the transaction is current only while the body runs.
    "generator": f"""
    __autoinst_t = None
    try:
        __autoinst_t = $P.enter($V)
        __autoinst_g = __autoinst_o($C)
        __autoinst_v = __autoinst_g.send(None)
        while True:
            __autoinst_y = None
            $P.suspend(__autoinst_t)
            try:
                __autoinst_x = yield __autoinst_v
            except BaseException as __autoinst_e:
                {_TRIM.format("__autoinst_e")}
                __autoinst_y = __autoinst_e
            $P.resume(__autoinst_t)
            if __autoinst_y is None:
                __autoinst_v = __autoinst_g.send(__autoinst_x)
            else:
                __autoinst_v = __autoinst_g.throw(__autoinst_y)
    except StopIteration as __autoinst_e:
        __autoinst_r = __autoinst_e.value"""
    + _END,
    "async generator": f"""
    __autoinst_t = None
    try:
        __autoinst_t = $P.enter($V)
        __autoinst_g = __autoinst_o($C)
        __autoinst_v = await $P.first(__autoinst_g)
        while True:
            __autoinst_y = None
            $P.suspend(__autoinst_t)
            try:
                __autoinst_x = yield __autoinst_v
            except BaseException as __autoinst_e:
                {_TRIM.format("__autoinst_e")}
                __autoinst_y = __autoinst_e
            $P.resume(__autoinst_t)
            if __autoinst_y is None:
                __autoinst_v = await __autoinst_g.asend(__autoinst_x)
            else:
                __autoinst_v = await __autoinst_g.athrow(__autoinst_y)
    except StopAsyncIteration:
        __autoinst_r = None"""
    + _END.replace("return __autoinst_r", "return"),
}

_templates: dict[tuple[str, ...], CodeType] = {}


class Parameters:
    """The parameters of a code object, by kind."""

    __slots__ = ("keyword_only", "positional", "positional_only", "var_keyword", "var_positional")

    def __init__(self, code: CodeType) -> None:
        """Read them from `code`."""
        names = code.co_varnames
        count = code.co_argcount
        after = count + code.co_kwonlyargcount
        self.positional = names[:count]
        self.positional_only = code.co_posonlyargcount
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

    def signature(self) -> tuple[str, str]:
        """Return the parameter list of the trampoline and the argument list of its call of the original."""
        parameters: list[str] = []
        for i, name in enumerate(self.positional):
            parameters.append(name)
            if i + 1 == self.positional_only:
                parameters.append("/")
        arguments = list(self.positional)
        if self.var_positional:
            parameters.append(f"*{self.var_positional}")
            arguments.append(f"*{self.var_positional}")
        elif self.keyword_only:
            parameters.append("*")
        for name in self.keyword_only:
            parameters.append(name)
            arguments.append(f"{name}={name}")
        if self.var_keyword:
            parameters.append(f"**{self.var_keyword}")
            arguments.append(f"**{self.var_keyword}")
        return ", ".join(parameters), ", ".join(arguments)

    def value_of(self, name: str) -> str:
        """Return the expression that gives a rule's `name`: a parameter, or all arguments as `args` or `kwargs`."""
        if name in self.names:
            return name
        if name == "args":
            given = self.positional[1:] if self.first else self.positional
            stars = (f"*{self.var_positional}",) if self.var_positional else ()
            return f"({''.join(f'{item}, ' for item in (*given, *stars))})"
        if name == "kwargs":
            pairs = [f"{key!r}: {key}" for key in self.keyword_only]
            if self.var_keyword:
                pairs.append(f"**{self.var_keyword}")
            return f"{{{', '.join(pairs)}}}"
        raise KeyError(name)


def kind_of(code: CodeType) -> str:
    """Return which of the four kinds of function `code` is."""
    flags = code.co_flags
    if flags & CO_ASYNC_GENERATOR:
        return "async generator"
    if flags & CO_COROUTINE:
        return "coroutine"
    return "generator" if flags & CO_GENERATOR else "function"


def trampoline(code: CodeType, probe: AnyProbe, names: tuple[str, ...]) -> CodeType:
    """Return a code object that runs `code` between `probe`'s calls, handing it the arguments called `names`.

    Raises ValueError where the compiler did not give the same free variables.
    """
    parameters = Parameters(code)
    docstring = _docstring(code)
    values = f"({''.join(f'{parameters.value_of(name)}, ' for name in names)})"
    template = _template(*parameters.signature(), values, kind_of(code), code.co_freevars, docstring is not None)
    if template.co_freevars != code.co_freevars:
        raise ValueError(f"free variables differ: {template.co_freevars} and {code.co_freevars}")
    constants: list[Any] = []
    for constant in template.co_consts:
        if isinstance(constant, CodeType):
            constants.append(code)
        elif constant == PROBE:
            constants.append(probe)
        elif constant == DOCSTRING:
            constants.append(docstring)
        elif isinstance(constant, str) and constant.endswith(INNER):  # 3.10 keeps the qualified name as a constant
            constants.append(code.co_name)
        else:
            constants.append(constant)
    changes: dict[str, Any] = {
        "co_consts": tuple(constants),
        "co_name": code.co_name,
        "co_filename": code.co_filename,
        "co_firstlineno": code.co_firstlineno,
        "co_flags": template.co_flags | (code.co_flags & ~CO_NOFREE),
    }
    if sys.version_info >= (3, 11):
        changes["co_qualname"] = code.co_qualname
    return template.replace(**changes)


def probe_of(code: CodeType) -> AnyProbe | None:
    """Return the probe in a code object made here, None for any other."""
    if "__autoinst_t" not in code.co_varnames:
        return None
    return next((constant for constant in code.co_consts if hasattr(type(constant), "suspend")), None)


def original(code: CodeType) -> CodeType:
    """Return the code object around which `code` was put (once)."""
    return next(constant for constant in code.co_consts if isinstance(constant, CodeType))


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
    body = _BODIES[kind].replace("$P", repr(PROBE)).replace("$V", values).replace("$C", arguments)
    lines = [f"{'async ' if kind in ('coroutine', 'async generator') else ''}def f({parameters}):"]
    if documented:
        lines.append(f"    {DOCSTRING!r}")
    lines.append(f"    def {INNER}(): {'; '.join(free) or 'pass'}")
    lines.extend(body.strip("\n").splitlines())
    if free:  # an enclosing function whose locals they are
        lines = [f"def outer({', '.join(free)}):", *(f" {line}" for line in lines)]
    tree = compile("\n".join(lines), "<autoinst>", "exec", ONLY_AST, True)
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
