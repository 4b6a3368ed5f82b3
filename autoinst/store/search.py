"""The search language: `action:Mail status:error,killed tag.tenant:42 duration>1s "free text"`.

Terms are joined by "and", the values of one by "or"; `-` before a term means "not". `*` in a value stands for any text,
a value in quotes is taken as it is. `parse` tells every mistake with its place.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from autoinst.errors import AutoinstError
from autoinst.wording import parse_since, to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from autoinst.record import Record

STATUSES = ("ok", "error", "ignored", "killed", "running")
MAX_LENGTH = 2_000
MAX_TERMS = 30
MAX_DIGITS = 15
NAMES = ("action", "queue", "name", "service", "host", "environment", "revision")
CONTAINING = frozenset({"action", "error"})  # a plain value of these need only be contained
NUMBERS = {"duration": 1.0, "wait": 1.0, "attempts": 0.0, "pid": 0.0}  # 1.0: a time, milliseconds if no unit is given
WORDS = {
    "action": "the class and method",
    "status": "ok, error, ignored, killed or running",
    "queue": "the queue",
    "duration": "how long it took: duration>1s",
    "wait": "how long it waited in the queue: wait>5m",
    "attempts": "the number of the run: attempts>=2",
    "error": "the exception's class, or a fingerprint",
    "tag.": "a tag: tag.tenant:42",
    "args.": "an argument by name or number: args.order:17, args.0:x",
    "job": "the library's own job id",
    "id": "the first digits of the id",
    "trace": "the trace",
    "name": "the notification: perform_job.rq",
    "service": "AUTOINST_SERVICE of its process",
    "environment": "AUTOINST_ENVIRONMENT of its process",
    "revision": "AUTOINST_REVISION of its process",
    "host": "the machine",
    "pid": "the process",
    "since": "started since: since:2h, since:2026-11-24",
    "until": "started before",
}
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 60e3, "h": 3600e3, "d": 86400e3}
_KEY = re.compile(r"(-?)([A-Za-z_]+(?:\.[^\s:<>=\"]+)?\.?)(:|>=|<=|>|<|=)")
_VALUE = re.compile(r'"((?:[^"\\]|\\.)*)"|([^\s,"]+)')
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d)?")


class SearchError(AutoinstError):
    """A search that cannot be understood: `at` is the place of the mistake in it, counted from 0."""

    def __init__(self, message: str, at: int, hint: str = "") -> None:
        super().__init__(message)
        self.at = at
        self.hint = hint


@dataclass(frozen=True)
class Value:
    """A value as it was written; `exact` if it was in quotes."""

    text: str
    exact: bool = False

    def pattern(self, *, containing: bool) -> str:
        """Return the value as a pattern of SQL's LIKE, in which a backslash escapes."""
        escaped = re.sub(r"([\\%_])", r"\\\1", self.text)
        if self.exact:
            return escaped
        if "*" in escaped:
            return escaped.replace("*", "%")
        return f"%{escaped}%" if containing else escaped

    def fits(self, text: str, *, containing: bool) -> bool:
        """Return whether `text` is meant, capital letters or not."""
        wanted, given = self.text.casefold(), text.casefold()
        if self.exact:
            return given == wanted
        if "*" in wanted:
            return re.fullmatch(".*".join(map(re.escape, wanted.split("*"))), given, re.DOTALL) is not None
        return wanted in given if containing else given == wanted


@dataclass(frozen=True)
class Term:
    """One condition: `key` is one of WORDS, `tag.x`, `args.x` or `text`; `number` is what follows < and the like."""

    key: str
    op: str
    values: tuple[Value, ...] = ()
    number: float = 0.0
    negated: bool = False

    @property
    def in_details(self) -> bool:
        """Whether only a job's details tell if it is meant."""
        return self.key.startswith(("tag.", "args.")) or self.key == "text"

    def matches(self, record: Record) -> bool:
        """Return whether `record` is meant."""
        if self.in_details:
            return self.fits_details(details_of(record), record.job_id)
        return self._fits(record) is not self.negated

    def _fits(self, record: Record) -> bool:
        if self.key in NUMBERS:
            return compare(_number_of(record, self.key), self.op, self.number)
        given = {"job": record.job_id, "error": record.exception.class_name if record.exception else None}
        text = given[self.key] if self.key in given else getattr(record, self.key, None)
        return text is not None and any(value.fits(text, containing=self.key in CONTAINING) for value in self.values)

    def fits_details(self, data: dict[str, Any], job_id: str | None) -> bool:
        """Return whether a job with these details (see details.of_record) and that id of its library is meant."""
        if self.key == "text":
            texts = [job_id, *_texts([data.get(key) for key in TEXT_KEYS])]
            found = any(self.values[0].text.casefold() in text.casefold() for text in texts if text)
        else:
            kind, _, path = self.key.partition(".")
            found = any(self._fits_value(value) for value in _at(data, kind, path))
        return found is not self.negated

    def _fits_value(self, value: Any) -> bool:
        if self.op != ":":
            return isinstance(value, (int, float)) and compare(float(value), self.op, self.number)
        text = value if isinstance(value, str) else to_json(value)
        return any(wanted.fits(text, containing=False) for wanted in self.values)


TEXT_KEYS = ("args", "kwargs", "tags", "params", "exception", "killed", "events")


@dataclass(frozen=True)
class Search:
    """A parsed search; times in ns since the epoch."""

    terms: tuple[Term, ...] = ()
    status: frozenset[str] = frozenset()
    since_ns: int | None = None
    until_ns: int | None = None
    id_prefix: str | None = None
    details: tuple[Term, ...] = field(default=())

    def matches(self, record: Record) -> bool:
        """Return whether `record`, one in flight say, is asked for; since and until are not looked at."""
        return (
            (not self.status or record.status in self.status)
            and (self.id_prefix is None or record.id.startswith(self.id_prefix))
            and all(term.matches(record) for term in (*self.terms, *self.details))
        )


def parse(text: str, now_ns: int) -> Search:
    """Return what `text` asks for at `now_ns`; raises SearchError."""
    if len(text) > MAX_LENGTH:
        raise SearchError(f"longer than {MAX_LENGTH} characters", MAX_LENGTH)
    terms: list[Term] = []
    details: list[Term] = []
    status: frozenset[str] | None = None
    since = until = None
    prefix = None
    for at, term in _terms(text):
        if len(terms) + len(details) >= MAX_TERMS:
            raise SearchError(f"more than {MAX_TERMS} terms", at)
        if term.key == "status":
            wanted = frozenset(_statuses(term, at))
            status = wanted if status is None else status & wanted
            if not status:
                raise SearchError("no job can have both statuses", at)
        elif term.key in ("since", "until"):
            moment = _moment(term, at, now_ns)
            since, until = (moment, until) if term.key == "since" else (since, moment)
        elif term.key == "id":
            prefix = _only(term, at).text.lower()
        else:
            (details if term.in_details else terms).append(term)
    return Search(tuple(terms), status or frozenset(), since, until, prefix, tuple(details))


def _terms(text: str) -> Iterator[tuple[int, Term]]:
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        found = _KEY.match(text, position)
        if found is None:
            term, end = _free_text(text, position)
        else:
            term, end = _term(text, found)
        yield position, term
        position = end


def _free_text(text: str, position: int) -> tuple[Term, int]:
    start = position + text.startswith("-", position)
    found = _VALUE.match(text, start)
    if found is None:
        if text.startswith('"', start):
            raise SearchError("the closing quote is missing", start)
        word = re.compile(r"\S+").match(text, position)
        assert word is not None
        return Term("text", ":", (Value(word[0]),)), word.end()
    value = _value(found)
    end = found.end()
    if found[2] is not None:  # a word goes on to the next space, commas included
        end = next((i for i in range(start, len(text)) if text[i].isspace()), len(text))
        value = Value(text[start:end])
    return Term("text", ":", (value,), negated=start > position), end


def _term(text: str, found: re.Match[str]) -> tuple[Term, int]:
    minus, key, op = found.groups()
    at = found.start(2)
    kind = key.partition(".")[0]
    if kind == "kwargs":
        key, kind = "args" + key[len(kind) :], "args"
    if kind in ("tag", "tags", "args"):
        path = key.partition(".")[2]
        if not path:
            raise SearchError(f"say which: {kind}.name{op}...", at)
        key = f"{'args' if kind == 'args' else 'tag'}.{path}"
    elif key not in WORDS:
        near = difflib.get_close_matches(key, WORDS, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(WORDS)}; put text with a colon in quotes"
        raise SearchError(f"there is no {key!r} to search for", at, hint)
    values, end = _values(text, found.end())
    if not values:
        raise SearchError(f"a value is missing after {key}{op}", found.end())
    op = ":" if op == "=" else op
    number = 0.0
    if key in NUMBERS or op != ":":
        if key not in NUMBERS and kind not in ("tag", "tags", "args"):
            raise SearchError(f"{key} is no number: write {key}:value", found.start(3))
        number = _number(values, key, found.end())
        if key in NUMBERS:
            op = "=" if op == ":" else op
    return Term(key, op, tuple(values), number, bool(minus)), end


def _values(text: str, position: int) -> tuple[list[Value], int]:
    values: list[Value] = []
    while (found := _VALUE.match(text, position)) is not None:
        values.append(_value(found))
        position = found.end()
        if not text.startswith(",", position):
            break
        position += 1
    else:
        if text.startswith('"', position):
            raise SearchError("the closing quote is missing", position)
    return values, position


def _value(found: re.Match[str]) -> Value:
    if found[1] is not None:
        return Value(re.sub(r"\\(.)", r"\1", found[1]), exact=True)
    return Value(found[2])


def _only(term: Term, at: int) -> Value:
    if len(term.values) != 1 or term.negated:
        raise SearchError(f"{term.key} takes one value", at)
    return term.values[0]


def _statuses(term: Term, at: int) -> set[str]:
    named = set()
    for value in term.values:
        name = {"failed": "error"}.get(value.text.lower(), value.text.lower())
        if name not in STATUSES:
            near = difflib.get_close_matches(name, STATUSES, 1, 0.4)
            raise SearchError(f"there is no status {value.text!r}", at, f"did you mean {near[0]}?" if near else "")
        named.add(name)
    return set(STATUSES) - named if term.negated else named


def _moment(term: Term, at: int, now_ns: int) -> int:
    try:
        return parse_since(_only(term, at).text, now_ns)
    except ValueError as error:
        raise SearchError(str(error), at) from None


def _number(values: list[Value], key: str, at: int) -> float:
    found = _NUMBER.fullmatch(values[0].text) if len(values) == 1 else None
    if found is None or len(found[1]) > MAX_DIGITS:
        raise SearchError(
            f"{values[0].text!r} is no number", at, "such as 500ms, 1.5s or 10m" if key in NUMBERS else ""
        )
    if found[2] and not NUMBERS.get(key):
        raise SearchError(f"{key} has no unit", at)
    return float(found[1]) * _UNITS[found[2] or "ms"]


_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    "=": lambda a, b: a == b,
}


def compare(value: float | None, op: str, number: float) -> bool:
    """Return whether `value op number`; an unknown value never fits."""
    return value is not None and _COMPARE[op](value, number)


def details_of(record: Record) -> dict[str, Any]:
    """Return what `Term.fits_details` looks at, as details.of_record has it."""
    data: dict[str, Any] = {"args": record.args, "kwargs": record.kwargs, "tags": record.tags, "params": record.params}
    data["exception"] = None if record.exception is None else record.exception.to_json()
    data["killed"] = None if record.killed is None else record.killed.to_json()
    data["events"] = [[event.name, event.title, event.body] for event in record.events]
    return data


def _number_of(record: Record, key: str) -> float | None:
    if key == "duration":
        return None if record.duration_ns is None else record.duration_ns / 1e6
    if key == "wait":
        return record.queue_time_ms
    value = record.attempts if key == "attempts" else record.pid
    return None if value is None else float(value)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, (int, float)):
        yield str(value)


def _at(data: dict[str, Any], kind: str, path: str) -> Iterator[Any]:
    """Yield what is at `path` (keys and numbers, with dots between) in the tags, or in the arguments."""
    roots = [data.get("tags")] if kind == "tag" else [data.get("kwargs"), data.get("args")]
    for root in roots:
        if isinstance(root, dict) and path in root:
            yield root[path]
            continue
        value: Any = root
        for part in path.split("."):
            if isinstance(value, dict) and part in value:
                value = value[part]
            elif isinstance(value, list) and part.isascii() and part.isdigit() and int(part[:9]) < len(value):
                value = value[int(part[:9])]
            else:
                break
        else:
            yield value
