"""The load-time half of expressions: checks `${...}` texts and turns them into source for `expressions.compile_field`.

Used on a miss of the rules' cache and by `autoinst check`, never in a worker that finds its rules compiled.
"""

from __future__ import annotations

import ast
import difflib
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from autoinst.rules.operations import ALL_METHODS
from autoinst.rules.parsed import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_LENGTH = 2_000
MAX_DEPTH = 40
MAX_CONSTANT_BITS = 256
SPECIAL = {"now": "_now()", "env": "_env()"}
AT_EXIT = frozenset({"result", "exception"})
DUNDERS = frozenset(
    {
        "__name__",
        "__qualname__",
        "__module__",
        "__class__",
        "__dict__",
        "__cause__",
        "__wrapped__",
        "__func__",
        "__self__",
    }
)
ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
}
COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.In: "in",
    ast.NotIn: "not in",
}
# name: least and most arguments, and the start of the call in the generated source
FUNCTIONS = {
    "ms": (1, 3, "_ms("),
    "max": (1, 20, "_extreme('max', "),
    "min": (1, 20, "_extreme('min', "),
    "len": (1, 1, "_len("),
    "str": (1, 1, "_str("),
    "int": (1, 1, "_number('int', "),
    "float": (1, 1, "_number('float', "),
    "dotted": (1, 1, "_dotted("),
    "type": (1, 1, "_type("),
    "get": (2, 3, "_get("),
    "method_of": (2, 2, "_method_of("),
    "without_first": (1, 1, "_without_first("),
}


class ExpressionError(Exception):
    """A text that is no allowed expression: what is wrong, where in the text (characters), and a hint or None."""

    def __init__(self, message: str, offset: int = 0, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.hint = hint


class Translated(NamedTuple):
    """`source` is None for plain text, which is then `literal`; `names` are the parameters it reads, in order."""

    source: str | None
    literal: str | None
    names: tuple[str, ...]


def translate(text: str, unsafe: bool = False) -> Translated:
    """Translate a field's text: plain, one `${expression}`, or text with expressions in it (`$${` is a plain `${`).

    `unsafe` lets attributes and items be read as Python does. Raises ExpressionError for what is not allowed, and
    nothing else.
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"the value is longer than {MAX_LENGTH} characters")
    pieces = split(text)
    if all(isinstance(piece, str) for piece in pieces):
        return Translated(None, "".join(piece for piece in pieces if isinstance(piece, str)), ())
    writer = _Writer(unsafe)
    if len(pieces) == 1 and not isinstance(pieces[0], str):
        offset, code = pieces[0]
        return Translated(writer.translate(code, offset), None, tuple(writer.names))
    sources = [
        quoted(piece) if isinstance(piece, str) else writer.translate(piece[1], piece[0]) for piece in pieces if piece
    ]
    return Translated(f"_join({', '.join(sources)})", None, tuple(writer.names))


def split(text: str) -> list[str | tuple[int, str]]:
    """Split a text into plain parts and (offset, expression) pairs; raises ExpressionError for a `${` left open."""
    pieces: list[str | tuple[int, str]] = []
    plain = ""
    at = 0
    while True:
        found = text.find("${", at)
        if found < 0:
            plain += text[at:]
            break
        if found > at and text[found - 1] == "$":
            plain += text[at : found - 1] + "${"
            at = found + 2
            continue
        plain += text[at:found]
        end = _closing(text, found + 2)
        if end < 0:
            raise ExpressionError("'${' has no closing '}'", found, "write $${ for a plain ${")
        if plain:
            pieces.append(plain)
            plain = ""
        pieces.append((found + 2, text[found + 2 : end]))
        at = end + 1
    if plain or not pieces:
        pieces.append(plain)
    return pieces


def _closing(text: str, at: int) -> int:
    """Return where the `}` is that closes an expression begun before `at`, -1 if nowhere; quotes hide braces."""
    depth = 0
    quote = ""
    while at < len(text):
        letter = text[at]
        if quote:
            if letter == "\\":
                at += 1
            elif letter == quote:
                quote = ""
        elif letter in "'\"":
            quote = letter
        elif letter == "{":
            depth += 1
        elif letter == "}":
            if not depth:
                return at
            depth -= 1
        at += 1
    return -1


def quoted(value: object) -> str:
    """Return source text of a constant without a `$`, which marks parameters."""
    return repr(value).replace("$", "\\x24")


def choose(sources: list[str]) -> str:
    """Return source that takes the first of `sources` that can be read and is not None."""
    return f"_first({', '.join(f'lambda: {source}' for source in sources)})"


class _Writer:
    """Writes the source of expressions; `names` collects the parameters they read, in order."""

    def __init__(self, unsafe: bool) -> None:
        self.prefix = "_u" if unsafe else "_"
        self.names: dict[str, None] = {}
        self.temporaries = 0
        self.offset = 0
        self.text = ""

    def translate(self, code: str, offset: int) -> str:
        stripped = code.strip()
        if not stripped:
            raise ExpressionError("the expression is empty", offset)
        self.offset = offset + code.index(stripped[0])
        self.text = stripped
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # "invalid escape sequence" is not for the program's stderr
                tree = parse(stripped, "<expression>", "eval")
        except SyntaxError as error:
            raise ExpressionError(f"not an expression: {error.msg}", self._place(error.lineno, error.offset)) from None
        except (ValueError, RecursionError, MemoryError, SystemError) as error:
            raise ExpressionError(f"not an expression: {error}", offset) from None
        return self.write(tree.body, 0)

    def _place(self, line: int | None, column: int | None) -> int:
        before = sum(len(text) + 1 for text in self.text.split("\n")[: (line or 1) - 1])
        return self.offset + min(before + max((column or 1) - 1, 0), len(self.text))

    def refuse(self, node: ast.AST, message: str, hint: str | None = None) -> ExpressionError:
        line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
        # ast counts bytes
        encoded = self.text.split("\n")[line - 1].encode("utf-8", "surrogatepass")[:column]
        return ExpressionError(message, self._place(line, len(encoded.decode("utf-8", "ignore")) + 1), hint)

    def write(self, node: ast.expr, depth: int) -> str:
        if depth > MAX_DEPTH:
            raise self.refuse(node, "the expression is nested too deeply")
        writer = WRITERS.get(type(node))
        if writer is None:
            raise self.refuse(node, f"{_describe(node)} is not allowed in an expression")
        return writer(self, node, depth + 1)

    def constant(self, node: ast.Constant, _depth: int) -> str:
        value = node.value
        if type(value) not in (str, bytes, int, float, bool, type(None)) or (
            type(value) is int and value.bit_length() > MAX_CONSTANT_BITS
        ):
            raise self.refuse(node, f"the constant {str(value)[:20]} is not allowed in an expression")
        if type(value) is float and value in (float("inf"), float("-inf")):
            raise self.refuse(node, "the constant is not finite")
        return quoted(value)

    def name(self, node: ast.Name, _depth: int) -> str:
        if node.id in SPECIAL:
            return SPECIAL[node.id]
        if node.id in FUNCTIONS:
            raise self.refuse(node, f"{node.id} is a function: write {node.id}(...)")
        self.names[node.id] = None
        return f"${node.id}$"

    def attribute(self, node: ast.Attribute, depth: int) -> str:
        if node.attr.startswith("__") and node.attr not in DUNDERS:
            raise self.refuse(node, f"attribute {node.attr!r} may not be read")
        return f"{self.prefix}attr({self.write(node.value, depth)}, {quoted(node.attr)})"

    def subscript(self, node: ast.Subscript, depth: int) -> str:
        value = self.write(node.value, depth)
        if isinstance(node.slice, ast.Slice):
            parts = (node.slice.lower, node.slice.upper, node.slice.step)
            key = f"_slice({', '.join('None' if part is None else self.write(part, depth) for part in parts)})"
        else:
            key = self.write(node.slice, depth)
        return f"{self.prefix}item({value}, {key})"

    def call(self, node: ast.Call, depth: int) -> str:
        if node.keywords:
            raise self.refuse(node, "calls take no keyword arguments in an expression")
        if isinstance(node.func, ast.Name):
            return self.function(node.func, node, depth)
        if not isinstance(node.func, ast.Attribute):
            raise self.refuse(node, "only named functions and methods of built-in types may be called")
        name = node.func.attr
        if name not in ALL_METHODS:
            raise self.refuse(node.func, f"method {name!r} may not be called", _near(name, ALL_METHODS))
        args = [self.write(node.func.value, depth), quoted(name), *(self.write(arg, depth) for arg in node.args)]
        return f"_call({', '.join(args)})"

    def function(self, function: ast.Name, node: ast.Call, depth: int) -> str:
        known = FUNCTIONS.get(function.id)
        if known is None:
            hint = _near(function.id, FUNCTIONS) or f"there are {', '.join(FUNCTIONS)}"
            raise self.refuse(function, f"function {function.id!r} may not be called", hint)
        least, most, start = known
        if not least <= len(node.args) <= most:
            wanted = str(least) if least == most else f"{least} to {most}"
            raise self.refuse(node, f"{function.id}() takes {wanted} argument{'s' * (most > 1)}, not {len(node.args)}")
        if function.id == "get":
            start = f"{self.prefix}get("
        return f"{start}{', '.join(self.write(arg, depth) for arg in node.args)})"

    def arithmetic(self, node: ast.BinOp, depth: int) -> str:
        symbol = ARITHMETIC.get(type(node.op))
        if symbol is None:
            raise self.refuse(node, f"the operator {type(node.op).__name__} is not allowed in an expression")
        return f"_op({symbol!r}, {self.write(node.left, depth)}, {self.write(node.right, depth)})"

    def unary(self, node: ast.UnaryOp, depth: int) -> str:
        operand = self.write(node.operand, depth)
        if isinstance(node.op, ast.Not):
            return f"(not _truth({operand}))"
        if isinstance(node.op, (ast.USub, ast.UAdd)):
            return f"_sign({'-' if isinstance(node.op, ast.USub) else '+'!r}, {operand})"
        raise self.refuse(node, "the operator ~ is not allowed in an expression")

    def comparison(self, node: ast.Compare, depth: int) -> str:
        left = self.write(node.left, depth)
        found: list[str] = []
        for at, (operator, right) in enumerate(zip(node.ops, node.comparators, strict=True)):
            value = self.write(right, depth)
            kept = ""
            if at < len(node.ops) - 1:
                kept = self.temporary()
                value = f"({kept} := {value})"
            if isinstance(operator, (ast.Is, ast.IsNot)):
                found.append(f"_is({isinstance(operator, ast.Is)}, {left}, {value})")
            else:
                found.append(f"_cmp({COMPARISONS[type(operator)]!r}, {left}, {value})")
            left = kept
        return found[0] if len(found) == 1 else f"({' and '.join(found)})"

    def boolean(self, node: ast.BoolOp, depth: int) -> str:
        # each further value lies one level deeper in the source
        values = [self.write(value, depth + at) for at, value in enumerate(node.values)]
        result = values.pop()
        for value in reversed(values):
            kept = self.temporary()
            test = f"_truth({kept} := {value})"
            yes, no = (result, kept) if isinstance(node.op, ast.And) else (kept, result)
            result = f"({yes} if {test} else {no})"
        return result

    def condition(self, node: ast.IfExp, depth: int) -> str:
        body, test, other = (self.write(part, depth) for part in (node.body, node.test, node.orelse))
        return f"({body} if _truth({test}) else {other})"

    def display(self, node: ast.Tuple | ast.List, depth: int) -> str:
        if not all(isinstance(part, ast.Constant) for part in node.elts):
            raise self.refuse(node, "a list in an expression may only hold constants")
        return f"({''.join(self.write(part, depth) + ', ' for part in node.elts)})"

    def temporary(self) -> str:
        self.temporaries += 1
        return f"t{self.temporaries}"


WRITERS: dict[type[ast.expr], Callable[[_Writer, Any, int], str]] = {
    ast.Attribute: _Writer.attribute,
    ast.BinOp: _Writer.arithmetic,
    ast.BoolOp: _Writer.boolean,
    ast.Call: _Writer.call,
    ast.Compare: _Writer.comparison,
    ast.Constant: _Writer.constant,
    ast.IfExp: _Writer.condition,
    ast.List: _Writer.display,
    ast.Name: _Writer.name,
    ast.Subscript: _Writer.subscript,
    ast.Tuple: _Writer.display,
    ast.UnaryOp: _Writer.unary,
}
WORDS = {
    "Await": "await",
    "Dict": "a dict",
    "DictComp": "a comprehension",
    "GeneratorExp": "a generator",
    "JoinedStr": "an f-string",
    "Lambda": "a lambda",
    "ListComp": "a comprehension",
    "NamedExpr": "an assignment",
    "Set": "a set",
    "SetComp": "a comprehension",
    "Slice": "a slice",
    "Starred": "a starred argument",
    "Yield": "yield",
    "YieldFrom": "yield",
}


def _describe(node: ast.AST) -> str:
    name = type(node).__name__
    return WORDS.get(name, name)


def _near(word: str, known: Iterable[str]) -> str | None:
    found = difflib.get_close_matches(word, sorted(known), 1)
    return f"did you mean {found[0]!r}?" if found else None
