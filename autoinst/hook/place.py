"""Where a callable is kept: the module or class that has it under a name, and how another is put there.

Classes that C code made immutable take no attribute. Their dictionary is an ordinary one all the same, and CPython
looks methods up in it; what it remembers of such look-ups is dropped as for any class. So the class stays the very
class, for instances there already and for C code too, which neither a subclass nor a proxy could say of itself.
"""

from __future__ import annotations

import gc
import sys
from types import ModuleType

from autoinst.trace.context import class_dict, class_module, class_mro, describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

IMMUTABLE, HEAP_TYPE = 1 << 8, 1 << 9  # Py_TPFLAGS of a class
_flags: Any = type.__dict__["__flags__"].__get__
_abstract: Any = type.__dict__["__abstractmethods__"]


class Place:
    """`holder` (a module or class) has `value` under `name`; `kind` is the class a rule named, if it named one."""

    __slots__ = ("holder", "kind", "name", "value")

    def __init__(self, holder: Any, name: str, value: Any, kind: type | None) -> None:
        """Keep the parts as they are."""
        self.holder = holder
        self.name = name
        self.value = value
        self.kind = kind

    @property
    def in_class(self) -> bool:
        """Whether the holder is a class."""
        return self.kind is not None

    @property
    def base(self) -> str | None:
        """The dotted path of the class that a rule named and that only inherits this; else None."""
        return None if self.kind is None or self.kind is self.holder else describe(self.kind)

    def put(self, value: Any) -> None:
        """Put `value` there; raises TypeError where Python allows none."""
        if self.in_class:
            put_in_class(self.holder, self.name, value)
        elif self.holder.__name__ == "builtins":
            raise TypeError("a built-in function cannot be watched: everything in the process uses it")
        else:
            vars(self.holder)[self.name] = value


def find(module: ModuleType, qualname: str) -> Place | None:
    """Return where `qualname` of `module` is kept, None if it is nowhere.

    Nothing of the program runs: classes and modules are read by their dictionaries.
    """
    place = Place(None, "", module, None)
    for part in qualname.split("."):
        value = place.value
        if issubclass(type(value), type):
            base = next((base for base in class_mro(value) if part in class_dict(base)), None)
            if base is None:
                return None
            place = Place(base, part, class_dict(base)[part], value)
        elif issubclass(type(value), ModuleType):
            names = object.__getattribute__(value, "__dict__")
            if part not in names:
                return None
            place = Place(value, part, names[part], None)
        else:
            return None
    return place


def put_in_class(kind: type, name: str, value: Any) -> None:
    """Set an attribute of a class, past its metaclass; raises TypeError where Python allows none."""
    if class_module(kind) == "builtins":
        raise TypeError("a built-in type's methods cannot be watched: everything in the process uses them")
    flags = _flags(kind)
    if flags & HEAP_TYPE and not flags & IMMUTABLE:
        type.__setattr__(kind, name, value)
        return
    if name.startswith("__") and name.endswith("__"):
        raise TypeError("a special method of a C class cannot be watched: Python does not look it up by its name")
    names = next((found for found in gc.get_referents(class_dict(kind)) if type(found) is dict), None)
    if names is None or names.get(name) is not class_dict(kind).get(name):
        raise TypeError("this Python keeps the class's methods elsewhere")
    names[name] = value
    # Makes CPython forget the look-ups it remembers of this class and its subclasses, as setting any attribute does.
    _abstract.__set__(kind, ())
    _abstract.__delete__(kind)


def defining(value: Any) -> Place | None:
    """Return where a function of C code says it is defined, if it is there."""
    module = sys.modules.get(getattr(value, "__module__", None) or "")
    qualname = getattr(value, "__qualname__", None)
    if type(module) is not ModuleType or type(qualname) is not str:
        return None
    place = find(module, qualname)
    return place if place is not None and place.value is value else None
