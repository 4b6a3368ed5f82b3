"""Turns a program's values into bounded plain data without running any of the program's code.

No `__repr__`, `__str__`, `__iter__` or property of a user's class is called: an object becomes `#<its.Class>`, as in
AppSignal's sanitiser. Values under a secret's name are replaced. Values are asked for their type, never by
`isinstance`, which reads `__class__`: a property of lazy objects, whose loading may query a database.
"""

from __future__ import annotations

import sys

from autoinst.redact import secrets
from autoinst.trace import faults
from autoinst.trace.context import class_module, class_qualname, describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

FILTERED = secrets.FILTERED
RECURSIVE = "[RECURSIVE VALUE]"
MAX_DEPTH = 8
MAX_ITEMS = 100  # of one container
MAX_NODES = 1_000  # of one value
MAX_TEXT = 2_000  # characters of one string
MARGIN = 4_000  # characters beyond that are looked at for secrets
MAX_TOTAL = 16_000  # characters of one value
MAX_INT_BITS = 1_024
MAX_KNOWN_KEYS = 1_000
INFINITY = float("inf")
CONTAINERS = (dict, list, tuple, set, frozenset)
SECRET_KEYS = (
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "authorization",
    "auth_key",
    "cookie",
    "session",
    "jwt",
    "bearer",
    "pwd",
    "api_key",
    "apikey",
    "access_key",
    "private_key",
    "credential",
    "csrf",
    "credit_card",
    "creditcard",
    "card_number",
    "cardnumber",
    "cvv",
    "cvc",
    "ssn",
)
# Standard classes whose own code makes a short text of them.
TEXT_CLASSES = frozenset(
    {
        ("datetime", "datetime"),
        ("datetime", "date"),
        ("datetime", "time"),
        ("datetime", "timedelta"),
        ("decimal", "Decimal"),
        ("fractions", "Fraction"),
        ("uuid", "UUID"),
        ("pathlib", "PosixPath"),
        ("pathlib", "PurePosixPath"),
        ("pathlib._local", "PosixPath"),
        ("pathlib._local", "PurePosixPath"),
    }
)


class Sanitizer:
    """Knows the keys whose values must not be recorded (lower case, matched anywhere in a key)."""

    __slots__ = ("_dialects", "_seen", "messages", "secrets")

    def __init__(self, extra: Iterable[str] = (), *, messages: bool = True) -> None:
        """Use the default keys and `extra` ones; `messages` says whether exceptions' messages are recorded."""
        self.secrets = (*SECRET_KEYS, *(key.lower().replace("-", "_") for key in extra))
        self.messages = messages
        self._seen: dict[str, bool] = {}
        self._dialects: dict[str, str | None] = {}

    def is_secret(self, key: str) -> bool:
        """Return whether values under `key` are filtered."""
        known = self._seen.get(key)
        if known is None:
            low = key.lower().replace("-", "_")
            known = any(secret in low for secret in self.secrets)
            if len(self._seen) < MAX_KNOWN_KEYS:
                self._seen[key] = known
        return known

    def plain(self, value: Any) -> Any:
        """Return `value` as None, bool, int, float, str, list or dict (text keys), within the bounds above."""
        kind = type(value)
        if value is None or kind is bool or kind is int or kind is float or kind is str:
            return self.scalar(value, kind)
        return _Walk(self).walk(value, 0)

    def scalar(self, value: Any, kind: type) -> Any:
        """Return a plain value of class `kind` (str, int, float, bool, None) within the bounds, secrets filtered."""
        if kind is str:
            size = len(value)
            if size > MAX_TEXT:  # a secret that begins before the cut is seen whole
                return f"{self.text(value[: MAX_TEXT + MARGIN])[:MAX_TEXT]}... {size - MAX_TEXT} more"
            return self.text(value)
        if kind is int:
            if value.bit_length() > MAX_INT_BITS:
                return f"#<int of {value.bit_length()} bits>"
            if value >= secrets.LEAST_CARD and secrets.is_card(str(value)):
                return FILTERED
        elif kind is float and not is_finite(value):
            return str(value)  # JSON has no such numbers
        return value

    def text(self, text: str) -> str:
        """Return `text` without what looks like a secret, and without the values it gives to secret names."""
        if len(text) < secrets.LEAST:
            return text
        if secrets.mentions(text, self.secrets):
            text = secrets.masked_named(text, self.secrets)
        return secrets.masked(text) if secrets.suspicious(text) else text

    def message(self, text: str) -> str:
        """Return an exception's message without what looks like a secret; words like "token: x" are none there."""
        if not self.messages:
            return FILTERED
        return secrets.masked(text) if len(text) >= secrets.LEAST and secrets.suspicious(text) else text

    def event(self, name: str, title: str | None, body: str | None) -> tuple[str | None, str | None]:
        """Return title and body of event `name` as they may be recorded; SQL's without its literals."""
        dialects = self._dialects
        if name in dialects:
            dialect = dialects[name]
        else:
            from autoinst.redact import dialects as known

            if len(dialects) >= MAX_KNOWN_KEYS:
                dialects.clear()
            dialect = dialects[name] = known.dialect_of(name)
        if dialect is None:
            return None if title is None else self.text(title), None if body is None else self.text(body)
        if dialect == "urls":
            from autoinst.redact.urls import sanitized_in

            title, body = (None if text is None else self.text(sanitized_in(text)) for text in (title, body))
            return title, body
        from autoinst.redact import sql

        if body is not None:
            body = sql.sanitized(body, dialect)
            if title is None and body is not None:
                title = sql.verb(body)
                return title, body
        if title is not None:
            title = sql.sanitized(title, dialect)
        return title, body

    def prepare(self, names: Iterable[str]) -> bool:
        """Import what texts of events of these names need, if anything; return whether it is there now."""
        from autoinst.redact import dialects as known

        if any(known.dialect_of(name) not in (None, known.URLS) for name in names):
            from autoinst.redact import sql  # noqa: F401 - its patterns are compiled, which takes milliseconds

            return True
        return False

    def mapping(self, values: Any) -> dict[str, Any]:
        """Return a dict's items as plain data; anything but a dict gives an empty one."""
        result = self.plain(values) if issubclass(type(values), dict) else None
        return result if type(result) is dict else {}


class _Walk:
    __slots__ = ("nodes", "open", "room", "rules")

    def __init__(self, rules: Sanitizer) -> None:
        self.rules = rules
        self.nodes = MAX_NODES
        self.room = MAX_TOTAL
        self.open: set[int] = set()

    def walk(self, value: Any, depth: int) -> Any:
        self.nodes -= 1
        kind = type(value)
        if value is None or kind is bool or kind is int or kind is float or kind is str:
            value = self.rules.scalar(value, kind)
            if kind is str:
                value = value[: self.room]
                self.room -= len(value)
            return value
        if issubclass(kind, CONTAINERS):
            if id(value) in self.open:
                return RECURSIVE
            if depth >= MAX_DEPTH or self.nodes <= 0 or self.room <= 0:
                return f"#<{describe(kind)}>"
            self.open.add(id(value))
            try:
                return self._dict(value, depth) if issubclass(kind, dict) else self._list(value, kind, depth)
            except RuntimeError as error:  # another thread changed it while we read
                if not faults.is_ours(error):
                    raise
                return f"#<{describe(kind)}>"
            finally:
                self.open.discard(id(value))
        return self._other(value, kind)

    def _dict(self, value: dict[Any, Any], depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        left = dict.__len__(value)
        for key, item in dict.items(value):
            if len(out) >= MAX_ITEMS or self.nodes <= 0 or self.room <= 0:
                out["..."] = f"{left} more"
                break
            left -= 1
            name = key if type(key) is str else str(self.walk(key, MAX_DEPTH))
            name = name[:MAX_TEXT]
            self.room -= len(name)
            out[name] = FILTERED if self.rules.is_secret(name) else self.walk(item, depth + 1)
        return out

    def _list(self, value: Any, kind: type, depth: int) -> list[Any]:
        base: Any = next(base for base in CONTAINERS if issubclass(kind, base))
        out: list[Any] = []
        left = base.__len__(value)
        for item in base.__iter__(value):
            if len(out) >= MAX_ITEMS or self.nodes <= 0 or self.room <= 0:
                out.append(f"... {left} more")
                break
            left -= 1
            out.append(self.walk(item, depth + 1))
        return out

    def _other(self, value: Any, kind: type) -> Any:
        if issubclass(kind, str):
            return self.walk(str.__str__(value), MAX_DEPTH)
        base: Any
        for base in (bytes, bytearray):
            if issubclass(kind, base):
                start = base.__getitem__(value, slice(MAX_TEXT))
                return self.walk(start.decode("utf-8", "backslashreplace"), MAX_DEPTH)
        number = plain_number(value)
        if number is not None:
            return self.rules.scalar(number, type(number))
        if _is_text_class(kind):
            try:
                return self.rules.text(str(value)[:MAX_TEXT])
            except Exception as error:  # a time's zone may be the program's own code
                return f"#<{describe(kind)}: its __str__ raised {describe(type(error))}>"
        return f"#<{describe(kind)}>"


def plain_number(value: Any) -> float | None:
    """Return an int or float, or one of a subclass as a plain one, without asking the subclass; else None."""
    kind = type(value)
    if kind is int or kind is float:
        return value  # type: ignore[no-any-return]
    if issubclass(kind, int):
        return int.__index__(value)
    return float.__float__(value) if issubclass(kind, float) else None


def is_finite(value: float) -> bool:
    """Return whether a number is neither infinite nor NaN (without importing math)."""
    return -INFINITY < value < INFINITY


def _is_text_class(kind: type) -> bool:
    """Return whether `kind` is really one of TEXT_CLASSES, not just called so."""
    module, name = class_module(kind), class_qualname(kind)
    if type(module) is not str or (module, name) not in TEXT_CLASSES:
        return False
    return getattr(sys.modules.get(module), name, None) is kind
