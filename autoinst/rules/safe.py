"""Reading a program's objects without running the program's code: no property, `__getattr__`, `__eq__` or `__str__`.

What would run code, or is not there, raises Unavailable with the reason. `unsafe_*` are for rules that say
`unsafe: true`: they read as Python does, and turn whatever that raises into Unavailable.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAX_KEY = 4_096
MAX_HOPS = 10

_ABSENT: Any = object()
_mro: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__
_space: Callable[[type], Any] = type.__dict__["__dict__"].__get__
_name: Callable[[type], str] = type.__dict__["__name__"].__get__

GETSET = type(type.__dict__["__dict__"])
MEMBER = type(GETSET.__dict__["__objclass__"])
C_SLOT = type(object.__dict__["__init__"])
FUNCTION = type(lambda: None)
METHOD = type(type("", (), {"method": lambda self: self})().method)
BUILTIN = type(len)
STATIC = staticmethod
# Classes are looked for by id: a metaclass of the program may have a `__hash__` and an `__eq__` of its own.
# Read through C code of the interpreter or of an extension, never through the program's own.
C_FIELDS = frozenset(map(id, (GETSET, MEMBER, getattr(sys.modules.get("_collections"), "_tuplegetter", GETSET))))
SCALARS = frozenset(map(id, (str, int, float, bool, bytes, type(None))))
# What most classes hold, none of which has `__set__` or `__delete__`; nobody can give it to these classes.
NO_DATA = SCALARS.union(map(id, (FUNCTION, STATIC, classmethod, list, tuple, dict, type)))


class Unavailable(Exception):  # noqa: N818 - the name the rules' reference uses
    """A value that cannot be read; its text is the reason, the same one each time."""


def name_of(obj: Any) -> str:
    """Return the name of an object's class, whatever its metaclass makes of `__name__`."""
    return _name(type(obj))


def static_lookup(cls: type, name: str) -> Any:
    """Return what the class dictionaries of `cls` and its bases hold under `name`, or the module's `_ABSENT`."""
    for base in _mro(cls):
        space = _space(base)
        if name in space:
            return space[name]
    return _ABSENT


def has_slot(cls: type, name: str) -> bool:
    """Tell whether instances of `cls` have the special method `name`."""
    return static_lookup(cls, name) is not _ABSENT


def attribute(obj: Any, name: str) -> Any:
    """Return attribute `name` of `obj` if it is plain data: of the instance, a slot, a C field or the class.

    Of a class it may also be a function, which is plain as well while nobody calls it.
    """
    cls = type(obj)
    found = names = _ABSENT
    for base in _mro(cls):
        space = _space(base)
        if found is _ABSENT and name in space:
            found = space[name]
        if names is _ABSENT and "__dict__" in space:
            names = space["__dict__"]
    if found is not _ABSENT:
        kind = type(found)
        if id(kind) in C_FIELDS:
            return _c_field(kind, found, obj, name)
        if id(kind) not in NO_DATA and (has_slot(kind, "__set__") or has_slot(kind, "__delete__")):
            raise Unavailable(f"{name!r} is a {_name(kind)}: reading it would run code (see `unsafe: true`)")
    is_class = issubclass(cls, type)
    own = static_lookup(obj, name) if is_class else _of_instance(obj, names, name)
    if own is _ABSENT:
        own = found
    elif not is_class:
        return own
    if own is _ABSENT:
        raise Unavailable(f"a {_name(cls)} has no plain attribute {name!r}")
    if id(type(own)) in SCALARS:
        return own
    return _function(own, name, of_class=is_class) if has_slot(type(own), "__get__") else own


def _function(found: Any, name: str, *, of_class: bool) -> Any:
    if type(found) is STATIC:
        return found.__func__
    if of_class and type(found) is FUNCTION:
        return found
    raise Unavailable(f"{name!r} is a {name_of(found)}, not plain data")


def _c_field(kind: Any, field: Any, obj: Any, name: str) -> Any:
    try:
        return kind.__get__(field, obj, type(obj))
    except AttributeError:
        raise Unavailable(f"{name!r} is not set") from None


def _of_instance(obj: Any, descriptor: Any, name: str) -> Any:
    names = _names_of(obj, descriptor)
    return _ABSENT if names is None else dict.get(names, name, _ABSENT)


def _names_of(obj: Any, descriptor: Any) -> dict[str, Any] | None:
    if type(descriptor) is not GETSET and type(descriptor) is not MEMBER:
        return None
    try:
        names: Any = type(descriptor).__get__(descriptor, obj, type(obj))
    except AttributeError:
        return None
    return names if issubclass(type(names), dict) else None


def set_attribute(obj: Any, name: str, value: Any) -> None:
    """Set attribute `name` of an object that is no class where that runs no code: in its dictionary, or a slot."""
    cls = type(obj)
    found = static_lookup(cls, name)
    if type(found) is MEMBER:
        MEMBER.__set__(found, obj, value)
        return
    names = None if issubclass(cls, type) else _names_of(obj, static_lookup(cls, "__dict__"))
    if names is None or has_slot(type(found), "__set__"):
        raise Unavailable(f"{name!r} of a {_name(cls)} cannot be set without running code")
    dict.__setitem__(names, name, value)


def is_plain_dict(obj: Any) -> bool:
    """Return whether `obj` is a dictionary whose items are set without running code of the program."""
    cls = type(obj)
    return cls is dict or (issubclass(cls, dict) and type(static_lookup(cls, "__setitem__")) is C_SLOT)


def unsafe_attribute(obj: Any, name: str) -> Any:
    """Return `obj.name` as Python does."""
    try:
        return getattr(obj, name)
    except Unavailable:
        raise
    except Exception as error:  # a property may raise anything
        raise Unavailable(f"reading {name!r} raised {name_of(error)}") from None


def item(obj: Any, key: Any) -> Any:
    """Return `obj[key]` for a built-in mapping or sequence, or a subclass read as if it were one."""
    cls = type(obj)
    check_key(key)
    if issubclass(cls, dict):
        found = dict.get(obj, key, _ABSENT)
        if found is _ABSENT:
            raise Unavailable(f"no key {show(key)}")
        return found
    for kind in (list, tuple, str, bytes):
        if issubclass(cls, kind):
            if type(key) is not int and type(key) is not slice:
                raise Unavailable(f"{show(key)} is not an index")
            try:
                return kind.__getitem__(obj, key)
            except IndexError:
                raise Unavailable(f"no index {show(key)}") from None
    raise Unavailable(f"a {_name(cls)} is not a built-in mapping or sequence")


def unsafe_item(obj: Any, key: Any) -> Any:
    """Return `obj[key]` as Python does."""
    check_key(key)
    try:
        return obj[key]
    except Unavailable:
        raise
    except Exception as error:  # __getitem__ may raise anything
        raise Unavailable(f"reading [{show(key)}] raised {name_of(error)}") from None


def check_key(key: Any) -> None:
    """Raise Unavailable unless `key` is a plain scalar, or a slice of them: anything else has a hash of its own."""
    if type(key) is str and len(key) <= MAX_KEY:  # as most are
        return
    parts = (key.start, key.stop, key.step) if type(key) is slice else (key,)
    for part in parts:
        if id(type(part)) not in SCALARS or (type(part) in (str, bytes) and len(part) > MAX_KEY):
            raise Unavailable(f"a {name_of(part)} is no key")


def show(key: Any) -> str:
    """Return a short text for a key."""
    return "slice" if type(key) is slice else repr(key)[:60]


def truth(obj: Any) -> bool:
    """Return `bool(obj)` if that runs no code of the program."""
    cls = type(obj)
    if id(cls) in SCALARS:
        return bool(obj)
    for name in ("__bool__", "__len__"):
        found = static_lookup(cls, name)
        if found is not _ABSENT:
            if type(found) is not C_SLOT:
                raise Unavailable(f"the truth of a {_name(cls)} would run code")
            return bool(obj)
    return True


def dotted(obj: Any) -> str:
    """Return `module.qualname` of a class or function, looking through partials and wrappers; text stays as it is."""
    for _ in range(MAX_HOPS):
        cls = type(obj)
        if cls is str:
            return str(obj)
        if cls is METHOD:
            obj = obj.__func__
        elif issubclass(cls, type) or cls is FUNCTION or cls is BUILTIN:
            if cls is FUNCTION:  # C fields, which no class can be derived to change
                module, name = obj.__module__, obj.__qualname__
            else:
                module, name = attribute_or_none(obj, "__module__"), attribute_or_none(obj, "__qualname__")
            if type(name) is not str:
                break
            return f"{module}.{name}" if type(module) is str and module != "builtins" else name
        else:
            inner = attribute_or_none(obj, "func" if is_partial(cls) else "__wrapped__")
            if inner is None:
                break
            obj = inner
    raise Unavailable(f"a {name_of(obj)} is neither a function nor a class")


def method_of(obj: Any, name: str) -> Any:
    """Return method `name` of `obj`, bound to it where it takes it, without running code."""
    found = _ABSENT
    if not issubclass(type(obj), type):
        found = _of_instance(obj, static_lookup(type(obj), "__dict__"), name)
    if found is not _ABSENT:
        return found
    found = static_lookup(obj if issubclass(type(obj), type) else type(obj), name)
    kind = type(found)
    if kind is STATIC:
        return found.__func__
    if kind is classmethod:
        return without_first(found.__func__)
    if kind is FUNCTION:
        return found if issubclass(type(obj), type) else METHOD(found, obj)
    raise Unavailable(f"{name!r} of a {name_of(obj)} is no method of Python code")


def without_first(function: Any) -> Any:
    """Return a function as one whose first parameter has its value already."""
    if type(function) not in (FUNCTION, METHOD) and not is_partial(type(function)):
        raise Unavailable(f"a {name_of(function)} is no function")
    return METHOD(function, function)


def attribute_or_none(obj: Any, name: str) -> Any:
    """Return the plain attribute `name`, None where it cannot be read."""
    try:
        return attribute(obj, name)
    except Unavailable:
        return None


def plain(value: Any) -> Any:
    """Return text and numbers of a subclass (an Enum, pika's `long`) as plain ones, anything else as it is."""
    cls = type(value)
    if id(cls) in SCALARS:
        return value
    if issubclass(cls, str):
        return str.__str__(value)
    if issubclass(cls, int):
        return int.__index__(value)
    return float.__float__(value) if issubclass(cls, float) else value


def is_partial(cls: type) -> bool:
    """Tell whether `cls` is functools.partial or a subclass, without importing that."""
    functools = sys.modules.get("functools")
    partial = getattr(functools, "partial", None)
    return type(partial) is type and issubclass(cls, partial)
