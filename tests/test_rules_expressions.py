from __future__ import annotations

import ast
import collections
import contextlib
import enum
import functools
import math
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoinst.rules import parsed
from autoinst.rules.expressions import Unavailable, compile_field
from autoinst.rules.model import Field
from autoinst.rules.translate import ExpressionError, split, translate


class Ran(BaseException):
    """Raised by code that no expression may run; not an Exception, so nothing can swallow it."""


class Hostile:
    kind = "class attribute"
    __slots__ = ("__dict__", "slot")

    def __init__(self) -> None:
        object.__setattr__(self, "slot", 5)
        object.__getattribute__(self, "__dict__").update(q="mail", d={"a": [1, 2, 3], "n": None}, me=self)

    @property
    def prop(self) -> None:
        raise Ran

    @functools.cached_property
    def cached(self) -> None:
        raise Ran

    def method(self) -> None:
        raise Ran

    @staticmethod
    def static() -> None:
        raise Ran

    def _ran(self, *args: Any) -> Any:
        raise Ran

    __getattr__ = __getattribute__ = __eq__ = __ne__ = __lt__ = __bool__ = __len__ = __repr__ = __str__ = _ran
    __hash__ = __getitem__ = __contains__ = __iter__ = __add__ = __radd__ = __int__ = __index__ = __float__ = _ran
    __format__ = __setattr__ = __call__ = _ran


class Meta(type):
    @property
    def prop(cls) -> None:
        raise Ran

    def __getattribute__(cls, name: str) -> Any:
        raise Ran


NamedPoint = collections.namedtuple("NamedPoint", "x y")  # noqa: PYI024 - what libraries use


def classy() -> Any:
    """Make a class that no tool can look at: not at the module's top, where pytest would."""

    class Classy(metaclass=Meta):
        plain = 7

    return Classy


CLASSY = [classy()]


def evaluate(text: str, unsafe: bool = False, **values: Any) -> Any:
    found = translate(text, unsafe)
    return compile_field(Field(found.source, found.literal, found.names), tuple(values))(*values.values())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("", ""),
        ("$${x} costs $5", "${x} costs $5"),
        ("${self.q}", "mail"),
        ("a-${self.q}-${self.slot}$", "a-mail-5$"),
        ("${ self.slot }", 5),
        ("${self.kind}", "class attribute"),
        ("${dotted(type(self).method)}", f"{__name__}.Hostile.method"),
        ("${dotted(type(self).static)}", f"{__name__}.Hostile.static"),
        ("${dotted(self.static)}", f"{__name__}.Hostile.static"),
        ("${self.d['a'][1]}", 2),
        ("${self.d['a'][1:]}", [2, 3]),
        ("${self.d['a'][-1]}", 3),
        ("${self.d.get('x', 4)}", 4),
        ("${self.d.get('x')}", None),
        ("${self.me.me.q}", "mail"),
        ("${self is None}", False),
        ("${self is not None}", True),
        ("${self == None}", False),
        ("${self.q == 'mail' and self.slot != 4}", True),
        ("${1 < self.slot < 9}", True),
        ("${1 < self.slot < 3}", False),
        ("${self.slot in (4, 5)}", True),
        ("${'ai' in self.q}", True),
        ("${'a' not in self.d}", False),
        ("${self.d['n'] or 'none'}", "none"),
        ("${self.q if self.slot else None}", "mail"),
        ("${not self.d}", False),
        ("${-self.slot + 7 % 4 * 2}", 1),
        ("${7 // 2 - 1 / 2}", 2.5),
        ("${'a' + self.q}", "amail"),
        ("${'a.b.c'.rpartition('.')[2]}", "c"),
        ("${b'x'.decode()}", "x"),
        ("${'a,b'.split(',')[0].upper()}", "A"),
        ("${len(self.d)}", 2),
        ("${max(1, None, 3)}", 3),
        ("${min(2.5, self.slot)}", 2.5),
        ("${int('12') + int(2.9)}", 14),
        ("${float('1.5')}", 1.5),
        ("${str(self.slot) + str(None)}", "5None"),
        ("${dotted(type(self))}", f"{__name__}.Hostile"),
        ("${dotted('a.b')}", "a.b"),
        ("${type(self).__name__}", "Hostile"),
        ("${self.__class__.__qualname__}", "Hostile"),
        ("${get(self, 'q')}", "mail"),
        ("${get(self, 'zz', 1)}", 1),
        ("${get(self.d, 'zz', get(self.d, 'a'))[0]}", 1),
        ("${get(self.d['a'], 9, 'none')}", "none"),
        ("${'}' + \"}\"}", "}}"),
        ("${'$x$' + '\\\\'}", "$x$\\"),
        ("${1000 if 'é' == 'é' else 2}", 1000),
    ],
)
def test_expressions_read_plain_data(text: str, expected: Any) -> None:
    assert evaluate(text, self=Hostile()) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("${self.prop}", "'prop' is a property"),
        ("${self.cached}", "'cached' is a cached_property, not plain data"),
        ("${self.method}", "'method' is a function"),
        ("${self.nope}", "no plain attribute 'nope'"),
        ("${self == 1}", "would run code"),
        ("${self < 1}", "would run code"),
        ("${self in (1, 2)}", "would run code"),
        ("${1 in self}", "would run code"),
        ("${1 if self else 2}", "truth of a Hostile"),
        ("${self and 1}", "truth of a Hostile"),
        ("${not self}", "truth of a Hostile"),
        ("${str(self)}", "text of a Hostile"),
        ("x${self}", "text of a Hostile"),
        ("${len(self)}", "length of a Hostile"),
        ("${int(self)}", "not a number"),
        ("${self + 1}", "no + between a Hostile and a int"),
        ("${self[0]}", "not a built-in mapping"),
        ("${self.d[self]}", "a Hostile is no key"),
        ("${self.d.get(self)}", "plain values only"),
        ("${self.upper()}", "may not be called"),
        ("${self.d['zz']}", "no key 'zz'"),
        ("${self.d['a'][7]}", "no index 7"),
        ("${self.d['a']['x']}", "'x' is not an index"),
        ("${max(self, 1)}", "max() takes numbers"),
        ("${ms(self)}", "not a time"),
        ("${dotted(self)}", "neither a function nor a class"),
        ("${1 / 0}", "raised ZeroDivisionError"),
        ("${'a' * 9}", "no * between"),
        ("${'x'.encode('rot13')}", "encode() knows"),
        ("${b'\\xff'.decode('utf-8')}", "decode() raised UnicodeDecodeError"),
        ("${int('x')}", "int() cannot read"),
        ("${other}", "no parameter 'other'"),
        ("x${self.d['n']}", "None"),
        ("${self.slot.real.imag}", ""),
    ],
)
def test_what_would_run_code_is_unavailable_with_its_reason(text: str, reason: str) -> None:
    if not reason:
        assert evaluate(text, self=Hostile()) == 0
        return
    reasons = set()
    for _ in range(2):
        with pytest.raises(Unavailable) as caught:
            evaluate(text, self=Hostile())
        reasons.add(str(caught.value))
    assert len(reasons) == 1
    assert reason in reasons.pop()


def test_a_metaclass_is_not_run_either() -> None:
    made = classy()
    assert evaluate("${c.plain}", c=made) == 7
    assert evaluate("${dotted(c)}", c=made) == f"{__name__}.classy.<locals>.Classy"
    with pytest.raises(Unavailable, match="'prop' is a property"):
        evaluate("${c.prop}", c=made)
    with pytest.raises(Unavailable, match="not a built-in"):
        evaluate("${c[0]}", c=type.__call__(made))


def test_c_fields_named_tuples_modules_and_exceptions_are_plain() -> None:
    point = NamedPoint(3, 4)
    assert evaluate("${p.x + p[1]}", p=point) == 7
    assert evaluate("${e.args[0]}", e=ValueError("text")) == "text"
    assert evaluate("${m.pi}", m=math) == math.pi
    assert evaluate("${f.__name__}", f=len) == "len"
    assert evaluate("${dotted(p)}", p=functools.partial(functools.partial(split))) == "autoinst.rules.translate.split"
    assert evaluate("${dotted(m)}", m=Hostile.method) == f"{__name__}.Hostile.method"
    assert evaluate("${str(u)}", u=uuid.UUID(int=5)) == str(uuid.UUID(int=5))


def test_enums_with_a_plain_base_compare_as_that() -> None:
    class Color(str, enum.Enum):
        RED = "red"

    assert evaluate("${c == 'red' and c in ('red',)}", c=Color.RED) is True
    assert evaluate("a-${c}", c=Color.RED) == "a-red"
    assert evaluate("${c._value_}", c=Color.RED) == "red"


def test_dict_subclasses_are_read_without_their_own_methods() -> None:
    class Own(dict[str, int]):
        def __getitem__(self, key: str) -> int:
            raise Ran

        def __missing__(self, key: str) -> int:
            raise Ran

        def get(self, *args: Any) -> int:
            raise Ran

    assert evaluate("${d['a'] + d.get('a')}", d=Own(a=2)) == 4
    with pytest.raises(Unavailable, match="no key 'b'"):
        evaluate("${d['b']}", d=Own())


def test_unsafe_reads_as_python_does_and_still_never_raises() -> None:
    class Library:
        @property
        def name(self) -> str:
            return "n"

        @property
        def broken(self) -> str:
            raise RuntimeError

        def __getitem__(self, key: str) -> str:
            return key * 2

    assert evaluate("${self.name + self['b'] + get(self, 'name')}", unsafe=True, self=Library()) == "nbbn"
    with pytest.raises(Unavailable, match="reading 'broken' raised RuntimeError"):
        evaluate("${self.broken}", unsafe=True, self=Library())
    with pytest.raises(Unavailable):
        evaluate("${self.name}", self=Library())


def test_what_is_raised_from_outside_passes_through() -> None:
    class Interrupted:
        @property
        def value(self) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate("${self.value}", unsafe=True, self=Interrupted())


def test_now_and_env(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_REGION", "eu")
    assert evaluate("${env['SHOP_REGION']}-${get(env, 'SHOP_NOPE', 'x')}") == "eu-x"
    assert evaluate("${now - 1 > 1600000000000}") is True
    assert translate("${now}").names == translate("${env}").names == ()


def test_names_are_the_parameters_in_order_without_repeats() -> None:
    assert translate("${b.x + a + b.y}-${self}").names == ("b", "a", "self")


@pytest.mark.parametrize(
    ("text", "offset", "message"),
    [
        ("${x", 0, "no closing"),
        ("ab${}", 4, "empty"),
        ("${lambda: 1}", 2, "a lambda is not allowed"),
        ("${[i for i in x]}", 2, "a comprehension is not allowed"),
        ("${f'{x}'}", 2, "an f-string is not allowed"),
        ("${(y := 1)}", 3, "an assignment is not allowed"),
        ("${{'a': 1}}", 2, "a dict is not allowed"),
        ("${x ** 2}", 2, "Pow is not allowed"),
        ("${x << 2}", 2, "LShift is not allowed"),
        ("${~x}", 2, "~ is not allowed"),
        ("${eval('1')}", 2, "function 'eval' may not be called"),
        ("${x.format(1)}", 2, "method 'format' may not be called"),
        ("${x.__globals__}", 2, "'__globals__' may not be read"),
        ("${x.y()()}", 2, "only named functions and methods"),
        ("${len()}", 2, "takes 1 argument, not 0"),
        ("${get(x)}", 2, "takes 2 to 3 arguments"),
        ("${len(*x)}", 6, "a starred argument is not allowed"),
        ("${x.split(sep=',')}", 2, "no keyword arguments"),
        ("${len}", 2, "len is a function"),
        ("${[a, b]}", 2, "may only hold constants"),
        ("${1e999}", 2, "not finite"),
        ("${1j}", 2, "1j is not allowed"),
        ("ok ${'é' + foo(1)}", 11, "function 'foo' may not be called"),
        ("${...}", 2, "not allowed"),
        ("x" * 3000, 0, "longer than"),
    ],
)
def test_what_is_not_allowed_is_refused_with_its_place(text: str, offset: int, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        translate(text)
    assert message in caught.value.message
    assert caught.value.offset == offset


@pytest.mark.parametrize(
    "code", ["1 +", "x = 1", "x y", "x)", "'", "import os", "0x", "\x00", "\ud800", "x\ny", "9" * 5000]
)
def test_what_is_no_expression_is_refused_where_python_saw_it(code: str) -> None:
    text = "${" + code + "}"
    with pytest.raises(ExpressionError) as caught:
        translate(text)
    assert 0 <= caught.value.offset <= len(text)


def test_a_misspelt_function_or_method_has_a_hint() -> None:
    for text, word in (("${doted(x)}", "'dotted'"), ("${x.rpartiton('.')}", "'rpartition'")):
        with pytest.raises(ExpressionError) as caught:
            translate(text)
        assert word in (caught.value.hint or "")


CODE = "abx.'\"()[]{}$+-*/%<>=! ,:0129\\\n_#@~^&|isnotinifelseandorlambda"


@given(
    st.one_of(st.text(max_size=80), st.text(alphabet=CODE, max_size=80).map(lambda code: "${" + code + "}")),
    st.booleans(),
)
def test_any_text_translates_or_is_refused_and_evaluates_or_is_unavailable(text: str, unsafe: bool) -> None:
    try:
        found = translate(text, unsafe)
    except ExpressionError as error:
        offset = error.offset
        assert 0 <= offset <= len(text)
        return
    read = compile_field(Field(found.source, found.literal, found.names), ("a", "b", "x"))
    with contextlib.suppress(Unavailable):
        read(1, {"a": [1]}, "text")


names = st.sampled_from(["self", "x", "n", "s"])
atoms = st.one_of(
    names, st.integers(-9, 9).map(str), st.sampled_from(["'t'", "None", "True", "1.5", "b'b'", "('t', 1)"])
)


def grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = st.sampled_from(["+", "-", "*", "/", "//", "%", "==", "!=", "<", ">=", "in", "not in", "is", "and", "or"])
    attribute = st.sampled_from(
        ["q", "d", "prop", "slot", "me", "method", "cached", "zz", "__class__", "__dict__", "real"]
    )
    function = st.sampled_from(["ms", "len", "str", "int", "float", "dotted", "type", "max", "min"])
    method = st.sampled_from(["upper", "split", "get", "decode", "replace", "encode", "find", "count"])
    return st.one_of(
        st.tuples(inner, binary, inner).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
        st.tuples(inner, attribute).map(lambda p: f"{p[0]}.{p[1]}" if not p[0].lstrip("-").isdigit() else p[0]),
        st.tuples(inner, inner).map(lambda p: f"({p[0]})[{p[1]}]"),
        st.tuples(function, inner).map(lambda p: f"{p[0]}({p[1]})"),
        st.tuples(inner, method, inner).map(lambda p: f"({p[0]}).{p[1]}({p[2]})"),
        st.tuples(inner, inner, inner).map(lambda p: f"({p[0]} if {p[1]} else {p[2]})"),
        st.tuples(inner, inner, inner).map(lambda p: f"get({p[0]}, {p[1]}, {p[2]})"),
        inner.map(lambda p: f"(not {p})"),
    )


@given(st.recursive(atoms, grow, max_leaves=12))
def test_no_expression_runs_the_programs_code(code: str) -> None:
    found = translate("${" + code + "}")
    read = compile_field(Field(found.source, found.literal, found.names), ("self", "x", "n", "s"))
    with contextlib.suppress(Unavailable):
        read(Hostile(), CLASSY[0], 3, "text")


def test_deep_nesting_is_refused_or_evaluated_but_never_crashes() -> None:
    for code in (
        "(" * 150 + "1" + ")" * 150,
        "not " * 400 + "1",
        "-" * 900 + "1",
        "x" + ".a" * 600,
        " and ".join("x" * 300),
    ):
        try:
            found = translate("${" + code + "}")
        except ExpressionError:
            continue
        compile_field(Field(found.source, found.literal, found.names), ("x",))(1)
    assert evaluate("${" + " or ".join(["0"] * 30 + ["7"]) + "}") == 7


def test_text_methods_do_not_blow_up() -> None:
    for code in ("x.replace('', y)", "x.replace('a', y).replace('a', y)"):
        with pytest.raises(Unavailable):
            evaluate("${" + code + "}", x="a" * 5000, y="b" * 4000)


def test_a_parser_that_other_threads_confuse_is_asked_again(monkeypatch) -> None:
    failures = [SystemError("AST constructor recursion depth mismatch")] * 3

    def confused(*args, **kwargs):
        if failures:
            raise failures.pop()
        return compile(*args, **kwargs)

    monkeypatch.setattr(parsed, "compile", confused, raising=False)
    assert ast.unparse(parsed.parse("a.b", "<expression>", "eval")) == "a.b"
    assert failures == []
