"""What an expression may compute: arithmetic, comparison and a few methods, on values of built-in types only.

Every result is bounded, so that no rule can make a job slow or large.
"""

from __future__ import annotations

import sys

from autoinst.rules.safe import (
    MAX_KEY,
    SCALARS,
    Unavailable,
    attribute,
    attribute_or_none,
    check_key,
    item,
    name_of,
    plain,
    unsafe_attribute,
    unsafe_item,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

NUMBERS = frozenset(map(id, (int, float, bool)))
CONTAINERS = (dict, list, tuple, str, bytes)
MAX_TEXT = 1 << 20
MAX_BITS = 1_024
MAX_DIGITS = 100
MAX_SCAN = 10_000
MAX_REPLACED = 4_096

TEXT_METHODS = frozenset(
    {
        "capitalize",
        "casefold",
        "count",
        "endswith",
        "find",
        "isdigit",
        "isidentifier",
        "lower",
        "lstrip",
        "partition",
        "removeprefix",
        "removesuffix",
        "replace",
        "rfind",
        "rpartition",
        "rsplit",
        "rstrip",
        "split",
        "splitlines",
        "startswith",
        "strip",
        "swapcase",
        "title",
        "upper",
    }
)
METHODS: dict[int, frozenset[str]] = {  # by the id of the class
    id(str): TEXT_METHODS | {"encode"},
    id(bytes): (TEXT_METHODS - {"casefold", "isidentifier"}) | {"decode", "hex"},
    id(dict): frozenset({"get"}),
    id(int): frozenset(),
    id(float): frozenset({"is_integer"}),
}
TIME_METHODS = {"datetime": ("isoformat", "timestamp"), "date": ("isoformat",), "timedelta": ("total_seconds",)}
ALL_METHODS = frozenset().union(*METHODS.values(), *TIME_METHODS.values())
ENCODINGS = frozenset({"ascii", "latin-1", "latin1", "utf-16", "utf-32", "utf-8", "utf8", "cp1252"})
ERRORS = frozenset({"strict", "ignore", "replace", "backslashreplace"})


def call(obj: Any, name: str, *args: Any) -> Any:
    """Return `obj.name(*args)` for a listed method of a value of exactly a built-in type."""
    cls = type(obj)
    allowed: Any = METHODS.get(id(cls))
    if allowed is None:
        if issubclass(cls, dict) and name == "get":
            cls, allowed = dict, METHODS[id(dict)]
        else:
            allowed = _time_methods(cls)
    if allowed is None or name not in allowed:
        raise Unavailable(f"{name}() of a {name_of(obj)} may not be called")
    for arg in args:
        if id(type(arg)) not in SCALARS and not (cls is dict and arg is not args[0]):
            raise Unavailable(f"{name}() takes plain values only, not a {name_of(arg)}")
    if cls is str or cls is bytes:
        _check_text(obj, name, args)
    elif cls is dict:
        check_key(args[0] if args else None)
    try:
        return getattr(cls, name)(obj, *args)
    except Exception as error:  # a tzinfo may be anybody's code
        raise Unavailable(f"{name}() raised {name_of(error)}") from None


def _time_methods(cls: type) -> tuple[str, ...] | None:
    module = sys.modules.get("datetime")
    if module is not None:
        for name, methods in TIME_METHODS.items():
            if cls is getattr(module, name, None):
                return methods
    return None


def _check_text(obj: Any, name: str, args: tuple[Any, ...]) -> None:
    if len(obj) > MAX_TEXT or any(len(arg) > MAX_REPLACED for arg in args if type(arg) in (str, bytes)):
        raise Unavailable(f"{name}() of a text that long is not tried")
    if name == "replace" and len(obj) > MAX_REPLACED:
        raise Unavailable("replace() of a text that long is not tried")
    if name in ("encode", "decode") and not (
        len(args) <= len(("encoding", "errors"))
        and all(type(arg) is str for arg in args)
        and (not args or args[0].lower() in ENCODINGS)
        and all(arg in ERRORS for arg in args[1:])
    ):
        # a codec or an error handler may be the program's own
        raise Unavailable(f"{name}() knows {', '.join(sorted(ENCODINGS))} only")


def arithmetic(symbol: str, left: Any, right: Any) -> Any:
    """Return `left symbol right` for numbers; texts may be added, times and timedeltas added and subtracted."""
    if id(type(left)) in NUMBERS and id(type(right)) in NUMBERS:
        if any(type(side) is int and side.bit_length() > MAX_BITS for side in (left, right)):
            raise Unavailable("a number that long is not computed with")
        try:
            return OPERATORS[symbol](left, right)
        except (ZeroDivisionError, OverflowError) as error:
            raise Unavailable(f"{symbol} raised {name_of(error)}") from None
    if symbol == "+" and type(left) is str and type(right) is str and len(left) + len(right) <= MAX_TEXT:
        return left + right
    if symbol in "+-" and _is_time(left) and _is_time(right):
        try:
            return OPERATORS[symbol](left, right)
        except Exception as error:  # a tzinfo may be anybody's code
            raise Unavailable(f"{symbol} raised {name_of(error)}") from None
    numbers = plain(left), plain(right)
    if numbers[0] is not left or numbers[1] is not right:
        return arithmetic(symbol, *numbers)
    raise Unavailable(f"no {symbol} between a {name_of(left)} and a {name_of(right)}")


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def _is_time(value: Any) -> bool:
    return _time_methods(type(value)) is not None


def sign(symbol: str, value: Any) -> Any:
    """Return `-value` or `+value` of a number."""
    if id(type(value)) not in NUMBERS:
        raise Unavailable(f"no {symbol} of a {name_of(value)}")
    return -value if symbol == "-" else +value


def compare(symbol: str, left: Any, right: Any) -> bool:
    """Return `left symbol right`, where it runs no `__eq__` of the program."""
    if symbol in ("in", "not in"):
        return _contains(left, right) is (symbol == "in")
    left, right = plain(left), plain(right)
    known = _is_known(left) and _is_known(right)
    if symbol in ("==", "!="):
        if known:
            same = left == right
        elif left is None or right is None or left is right:
            same = left is right
        else:
            raise Unavailable(f"comparing a {name_of(left)} with a {name_of(right)} would run code")
        return same is (symbol == "==")
    if not known:
        raise Unavailable(f"comparing a {name_of(left)} with a {name_of(right)} would run code")
    try:
        return bool(OPERATORS[symbol](left, right))
    except Exception as error:  # a tzinfo may be anybody's code
        raise Unavailable(f"{symbol} raised {name_of(error)}") from None


def identical(wanted: bool, left: Any, right: Any) -> bool:
    """Return whether `left is right` is as `wanted`."""
    return (left is right) is wanted


def _is_known(value: Any) -> bool:
    if type(value) is tuple:
        return len(value) <= MAX_SCAN and all(id(type(part)) in SCALARS for part in value)
    return id(type(value)) in SCALARS or _is_time(value)


def _contains(value: Any, container: Any) -> bool:
    value, container = plain(value), plain(container)
    cls = type(container)
    if id(type(value)) not in SCALARS:
        raise Unavailable(f"looking for a {name_of(value)} would run code")
    if cls is str or cls is bytes:
        if type(value) is not cls:
            raise Unavailable(f"no {name_of(value)} can be in a {name_of(container)}")
        return value in container
    if cls is dict or cls is set or cls is frozenset:
        return value in container
    if cls is list or cls is tuple:
        if len(container) > MAX_SCAN:
            raise Unavailable("a list that long is not searched")
        return any(id(type(part)) in SCALARS and part == value for part in map(plain, container))
    raise Unavailable(f"looking into a {name_of(container)} would run code")


def length(value: Any) -> int:
    """Return the length of a built-in container, or of a subclass without asking its own `__len__`."""
    for kind in (str, bytes, list, tuple, dict, set, frozenset):
        if issubclass(type(value), kind):
            return kind.__len__(value)
    raise Unavailable(f"the length of a {name_of(value)} would run code")


def extreme(which: str, *values: Any) -> Any:
    """Return the greatest ('max') or least ('min') of numbers or of times, leaving out None; None if all are."""
    if len(values) == 1 and (type(values[0]) is list or type(values[0]) is tuple):
        values = tuple(values[0][: MAX_SCAN + 1])
    found = [value for value in values if value is not None]
    if not found:
        return None
    if len(found) > MAX_SCAN or not (all(id(type(v)) in NUMBERS for v in found) or all(_is_time(v) for v in found)):
        raise Unavailable(f"{which}() takes numbers, or times")
    try:
        return max(found) if which == "max" else min(found)
    except Exception as error:  # a tzinfo may be anybody's code
        raise Unavailable(f"{which}() raised {name_of(error)}") from None


def text(value: Any) -> str:
    """Return `str(value)` of a built-in value, time or UUID."""
    if type(value) is str:
        return value
    found = plain(value)
    cls = type(found)
    if cls is bytes:
        return bytes.decode(found[:MAX_TEXT], "utf-8", "replace")
    if cls is int and found.bit_length() > MAX_BITS:
        raise Unavailable("a number that long is not written out")
    if id(cls) in SCALARS:
        return str(found)
    if _is_time(found):
        try:
            return str(found)
        except Exception as error:  # a tzinfo may be anybody's code
            raise Unavailable(f"str() raised {name_of(error)}") from None
    if cls is getattr(sys.modules.get("uuid"), "UUID", None):
        number = attribute_or_none(found, "int")
        if type(number) is int:
            digits = f"{number:032x}"
            return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
    raise Unavailable(f"the text of a {name_of(value)} would run code")


def join(*parts: Any) -> str:
    """Return the text of an interpolation; None among its values makes all of it Unavailable."""
    if any(part is None for part in parts):
        raise Unavailable("a value of the text is None")
    return "".join([text(part)[:MAX_TEXT] for part in parts])[:MAX_TEXT]


def number(kind: str, value: Any) -> Any:
    """Return `int(value)` or `float(value)` of a number or a short text."""
    value = plain(value)
    cls = type(value)
    if id(cls) not in NUMBERS and ((cls is not str and cls is not bytes) or len(value) > MAX_DIGITS):
        raise Unavailable(f"a {name_of(value)} is not a number")
    try:
        return int(value) if kind == "int" else float(value)
    except (ValueError, OverflowError):
        raise Unavailable(f"{kind}() cannot read the value") from None


def get(obj: Any, key: Any, default: Any = None) -> Any:
    """Return `obj[key]`, or attribute `key` of an object that is no container; `default` where it cannot be read."""
    if type(obj) is dict and type(key) is str and len(key) <= MAX_KEY:  # as most are
        return obj.get(key, default)
    return _get(item, attribute, obj, key, default)


def unsafe_get(obj: Any, key: Any, default: Any = None) -> Any:
    """Do as `get`, reading as Python does."""
    return _get(unsafe_item, unsafe_attribute, obj, key, default)


def _get(item: Callable[..., Any], attribute: Callable[..., Any], obj: Any, key: Any, default: Any) -> Any:
    check_key(key)
    is_container = issubclass(type(obj), CONTAINERS)
    try:
        return attribute(obj, key) if type(key) is str and not is_container else item(obj, key)
    except Unavailable:
        return default


def first(*alternatives: Callable[[], Any]) -> Any:
    """Return the first alternative that can be read and is not None.

    Without one it is None if at least one could be read, else the first one's Unavailable is raised.
    """
    reason: Unavailable | None = None
    failed = 0
    for alternative in alternatives:
        try:
            found = alternative()
        except Unavailable as error:
            failed += 1
            reason = reason or error
        else:
            if found is not None:
                return found
    if reason is not None and failed == len(alternatives):
        raise reason
    return None
