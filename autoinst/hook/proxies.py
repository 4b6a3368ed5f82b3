"""Gives wrapt's function wrapper, whose C code binds and forwards as the callable inside would.

`import wrapt` costs 60 ms and asyncio. Its C extension needs one small file beside it, so these two are loaded by
themselves, out of the program's sight: a program that imports wrapt gets its own.
"""

from __future__ import annotations

import sys

from autoinst import beside
from autoinst.rules.safe import has_slot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

PACKAGE = "wrapt"

_made: type[Any] | None = None


def wrapper_class() -> type[Any]:
    """Return the class of autoinst's wrappers; raises ImportError where wrapt cannot be imported."""
    global _made
    if _made is None:
        loaded = sys.modules.get(PACKAGE)
        _made = _make(loaded if hasattr(loaded, "FunctionWrapper") else _extension() or beside.load(PACKAGE))
    return _made


def is_wrapper(value: Any) -> bool:
    """Return whether `value` is a wrapper of autoinst's."""
    return _made is not None and issubclass(type(value), _made)


def innermost(value: Any) -> Any:
    """Return what is inside autoinst's wrappers."""
    while is_wrapper(value):
        value = value.__wrapped__
    return value


def _make(wrapt: Any) -> type[Any]:
    class Bound(wrapt.BoundFunctionWrapper):  # type: ignore[misc]
        """A method of a wrapper; it pickles as the method inside."""

        __slots__ = ()

        def __get__(self, instance: Any, owner: Any) -> Any:
            # A class method that a program keeps in a class of its own is bound already, as C code's are.
            return super().__get__(instance, owner) if has_slot(type(self.__wrapped__), "__get__") else self

        def __repr__(self) -> str:
            return repr(self.__wrapped__)

        def __reduce_ex__(self, protocol: Any) -> Any:
            return self.__wrapped__.__reduce_ex__(protocol)

        def __copy__(self) -> Any:
            return _copied(self, "copy")

        def __deepcopy__(self, _memo: Any) -> Any:
            return _copied(self, "deepcopy")

    class Wrapper(wrapt.FunctionWrapper):  # type: ignore[misc]
        """Stands for a callable under the callable's own name; it pickles by that name, or as what is inside."""

        __slots__ = ()
        __bound_function_wrapper__ = Bound

        def __repr__(self) -> str:
            return repr(self.__wrapped__)

        def __reduce_ex__(self, protocol: Any) -> Any:
            reduced = self.__wrapped__.__reduce_ex__(protocol)
            if type(reduced) is not str or _named(self, reduced) is self:
                return reduced
            from operator import getitem

            return getitem, ((self.__wrapped__,), 0)

        def __copy__(self) -> Any:
            return _copied(self, "copy")

        def __deepcopy__(self, _memo: Any) -> Any:
            return _copied(self, "deepcopy")

    return Wrapper


def _named(function: Any, qualname: str) -> Any:
    """Return what pickle finds under a function's name."""
    found = sys.modules.get(function.__module__)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found


def _copied(wrapper: Any, how: str) -> Any:
    import copy

    inner = wrapper.__wrapped__
    made = getattr(copy, how)(inner)
    return wrapper if made is inner else made


def _extension() -> ModuleType | None:
    """Load wrapt's C extension without its package; None where there is none, or it is another one than known."""
    machinery: Any = sys.modules["_frozen_importlib_external"]
    bootstrap: Any = sys.modules["_frozen_importlib"]
    find = machinery.PathFinder.find_spec
    package = find(PACKAGE)
    folders = None if package is None else package.submodule_search_locations
    found = find(f"{PACKAGE}._wrappers", folders) if folders else None
    if found is None or not isinstance(found.loader, machinery.ExtensionFileLoader):
        return None
    errors = find(f"{PACKAGE}.exceptions", folders)
    # The extension may ask for the package and for that file in it. Other threads wait meanwhile, as for any import.
    lent = {PACKAGE: bootstrap.module_from_spec(package)}
    with bootstrap._ModuleLockManager(PACKAGE):
        if PACKAGE in sys.modules:
            return None
        package._initializing = True
        try:
            if errors is not None:
                errors._initializing = True
                lent[errors.name] = _load(errors)
            sys.modules.update(lent)
            # Its own name: a real import of wrapt gets an extension of its own.
            found.loader.name = found.name = "autoinst.hook._wrappers"
            return _load(found)
        except (ImportError, AttributeError):
            return None
        finally:
            for name in lent:
                sys.modules.pop(name, None)


def _load(spec: Any) -> ModuleType:
    module: ModuleType = sys.modules["_frozen_importlib"].module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
