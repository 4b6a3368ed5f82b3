"""A job's positional arguments as they may be recorded: those given to parameters with secret names are filtered."""

from __future__ import annotations

import sys
from _weakref import ref as weak_reference  # as `weakref` has it, which costs an import

from autoinst.hook.trampoline import ALL_ARGS, Parameters
from autoinst.rules.safe import (
    BUILTIN,
    C_SLOT,
    FUNCTION,
    MAX_HOPS,
    METHOD,
    STATIC,
    Unavailable,
    attribute_or_none,
    is_partial,
    static_lookup,
)
from autoinst.trace import recorder as recorders
from autoinst.trace.sanitize import FILTERED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import CodeType
    from typing import Any

    from autoinst.hook.target import Target
    from autoinst.trace.sanitize import Sanitizer

ARGS, CALLABLE = "args", "args.callable"
CLASS_METHOD = classmethod
CALL, NEW, WRAPPED = "__call__", "__new__", "__wrapped__"
MAX_KNOWN = 4096  # code objects of callables, of which most programs have some dozens


class Secret:
    """Which positional arguments are secret: those at `places`, and all from `rest` on (None: none of these)."""

    __slots__ = ("places", "rest")

    def __init__(self, places: set[int], rest: int | None) -> None:
        """Keep both."""
        self.places = places
        self.rest = rest

    def masked(self, values: Any) -> Any:
        """Return a list or tuple of arguments without the secret ones; anything else as it is."""
        for kind in (list, tuple):
            if issubclass(type(values), kind):
                rest = kind.__len__(values) if self.rest is None else self.rest
                hidden = self.places
                return [
                    FILTERED if at >= rest or at in hidden else value for at, value in enumerate(kind.__iter__(values))
                ]
        return values


ALL = Secret(set(), 0)


class Known(weak_reference["CodeType"]):
    """What is secret of a living code object, for one list of secret names, by how many parameters have their value.

    It is of the code alone: functions that share it, such as closures, may have wrapped different ones.
    """

    __slots__ = ("key", "sanitizer", "secrets")

    key: int
    sanitizer: Sanitizer
    secrets: dict[int, Secret | None]


KNOWN: dict[int, Known] = {}  # by the identity of the code object


def _forget(known: Known, everything: dict[int, Known] = KNOWN) -> None:
    """Forget a code object that is gone; also while the interpreter ends, when this module's names have gone."""
    everything.pop(known.key, None)


class Own:
    """Reads `args` of a rule for the very function that is called: its own parameters tell what is secret."""

    __slots__ = ("_names", "_place", "_read", "_sanitizer", "_secret", "_star")

    def __init__(self, read: Callable[..., Any], target: Target, place: int) -> None:
        """Read as `read` does, whose value at `place` are all arguments of a call of `target`."""
        parameters = target.parameters
        positional = parameters.positional
        first = parameters.first
        self._names = positional[1:] if first is not None and positional[:1] == (first,) else tuple(positional)
        self._star: str | None = getattr(parameters, "var_positional", None)
        self._place = place
        self._read = read
        self._sanitizer: Sanitizer | None = None
        self._secret: Secret | None = None

    def __call__(self, *values: Any) -> Any:
        """Return the field's value, or raise Unavailable."""
        sanitizer = (recorders.active or recorders.get()).sanitizer
        if sanitizer is not self._sanitizer:  # the first call, or the first since the list of names has changed
            self._secret = _secret(self._names, self._star, 0, sanitizer)
            self._sanitizer = sanitizer
        if self._secret is not None:
            place = self._place
            values = (*values[:place], self._secret.masked(values[place]), *values[place + 1 :])
        return self._read(*values)


class Given:
    """Reads `args` of a rule that says by `callable` which function they are given to."""

    __slots__ = ("_callable", "_note", "_read")

    def __init__(
        self, read: Callable[..., Any], function: Callable[..., Any], note: Callable[[str, str], None]
    ) -> None:
        """Read as `read` does; `function` reads the callable, and `note` is told where it cannot."""
        self._read = read
        self._callable = function
        self._note = note

    def __call__(self, *values: Any) -> Any:
        """Return the field's value, None while the callable is None, or raise Unavailable."""
        value = self._read(*values)
        if value is None:
            return None
        try:
            function = self._callable(*values)
        except Unavailable as reason:
            self._note(CALLABLE, str(reason))
            return ALL.masked(value)
        if function is None:
            return None
        secret = secret_of(function, (recorders.active or recorders.get()).sanitizer)
        return value if secret is None else secret.masked(value)


def place_of_args(names: Sequence[str], target: Target) -> int | None:
    """Return which of `names`, that a rule reads of `target`, are all its arguments; None where none is."""
    parameters = target.parameters
    if not hasattr(parameters, "positional"):  # variables of a function with the call inside
        return None
    for name in (ARGS, ALL_ARGS):
        if name in names and name not in parameters.names:
            return names.index(name)
    return None


def secret_of(function: Any, sanitizer: Sanitizer) -> Secret | None:
    """Return which positional arguments of a callable are secret by its parameters' names, None where none is.

    What decorators with `__wrapped__` have wrapped counts too. All are secret of what is no callable, such as the name
    of a function that was not found; of C code none is known to be.
    """
    if type(function) is FUNCTION and dict.get(function.__dict__, WRAPPED) is None:  # as most are
        return _secret_of_code(function.__code__, 0, sanitizer)
    places: set[int] = set()
    rest: int | None = None
    # Each with the number of parameters at the front that have their value, such as `self`.
    left: list[tuple[Any, int]] = [(function, 0)]
    for _ in range(MAX_HOPS):
        if not left:
            break
        function, given = left.pop()
        if type(function) is FUNCTION:
            found = _secret_of_code(function.__code__, given, sanitizer)
            if found is not None:
                places |= found.places
                if found.rest is not None:
                    rest = found.rest if rest is None else min(rest, found.rest)
            left.append((dict.get(function.__dict__, WRAPPED), given))
        elif function is not None:
            inside = _inside(function, given)
            if inside is None:
                return ALL
            left += inside
    return Secret(places, rest) if places or rest is not None else None


def _secret_of_code(code: CodeType, given: int, sanitizer: Sanitizer) -> Secret | None:
    """Return what `_secret` does of a code object's parameters, read once while it lives."""
    key = id(code)
    known = KNOWN.get(key)
    if known is None or known.sanitizer is not sanitizer or known() is not code:
        known = Known(code, _forget)
        known.key, known.sanitizer, known.secrets = key, sanitizer, {}
        if key in KNOWN or len(KNOWN) < MAX_KNOWN:
            KNOWN[key] = known
    secrets = known.secrets
    given = min(given, code.co_argcount)  # beyond, all is the same
    if given not in secrets:
        parameters = Parameters(code)
        secrets[given] = _secret(parameters.positional, parameters.var_positional, given, sanitizer)
    return secrets[given]


def _inside(function: Any, given: int) -> list[tuple[Any, int]] | None:
    """Return what a call of `function` calls, with how many parameters have their value there; None: not known."""
    kind = type(function)
    if kind is METHOD or kind is CLASS_METHOD:
        return [(function.__func__, given + 1)]
    if kind is STATIC:
        return [(function.__func__, given)]
    if is_partial(kind):
        values = attribute_or_none(function, "args") or ()
        if any(value is getattr(sys.modules["functools"], "Placeholder", ALL) for value in values):
            return None  # its places are not those of the function
        return [(attribute_or_none(function, "func"), given + len(values))]
    if not callable(function):
        return None
    if issubclass(kind, type):
        return [
            each
            for cls, name in ((kind, CALL), (function, NEW), (function, "__init__"))
            for each in _method(cls, name, given)
        ]
    inner = attribute_or_none(function, WRAPPED)  # of a cached function, say
    return [(inner, given)] if inner is not None else _method(kind, CALL, given)


def _method(cls: type, name: str, given: int) -> list[tuple[Any, int]]:
    """Return special method `name` of a class with how many parameters have their value; nothing where it is C code."""
    found = static_lookup(cls, name)
    kind = type(found)
    if kind is C_SLOT or kind is BUILTIN:
        return []
    if kind is STATIC and name != NEW:
        return [(found.__func__, given)]
    return [(found, given if kind is CLASS_METHOD else given + 1)]


def _secret(names: Sequence[str], star: str | None, given: int, sanitizer: Sanitizer) -> Secret | None:
    """Return which arguments are secret of parameters `names` and `*star`, whose first `given` have their values."""
    is_secret = sanitizer.is_secret
    places = {at for at, name in enumerate(names[given:]) if is_secret(name)}
    rest = max(len(names) - given, 0) if star is not None and is_secret(star) else None
    return Secret(places, rest) if places or rest is not None else None
