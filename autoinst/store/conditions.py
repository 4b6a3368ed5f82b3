"""What a JobFilter asks for as conditions of SQL, and which index to walk along."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autoinst.record import INT64_MAX
from autoinst.store.records import STATUS_NUMBERS, pack_job_id
from autoinst.store.search import CONTAINING, Term, Value

if TYPE_CHECKING:
    import sqlite3

    from autoinst.store.query import JobFilter
    from autoinst.store.records import Names

OK = STATUS_NUMBERS["ok"]
ID_DIGITS = 32
PROCESS_KEYS = frozenset({"service", "host", "environment", "revision"})
COLUMNS = {"duration": ("duration", 1e6), "wait": ("queue_time", 1e6), "attempts": ("attempts", 1.0)}
FINGERPRINT_DIGITS = 16


class Conditions:
    """Conditions of one question; `few` says that one of them leaves only few jobs."""

    def __init__(self, con: sqlite3.Connection, names: Names) -> None:
        """Look names up in `con`."""
        self._con = con
        self._names = names
        self._where: list[str] = []
        self._values: list[Any] = []
        self._status: frozenset[str] = frozenset()
        self._actions: list[int] | None = None
        self._errors: list[int] | None = None
        self.few = False

    def add_filter(self, wanted: JobFilter) -> bool:
        """Add all that `wanted` asks for; False if no stored job can have it."""
        search = wanted.search
        self._status = wanted.status
        if search is not None and search.status:
            self._status = self._status & search.status if self._status else search.status
            if not self._status:
                return False
        terms = [*search.terms] if search is not None else []
        if wanted.action is not None:
            terms.append(Term("action", ":", (Value(wanted.action, exact="*" not in wanted.action),)))
        for key, text in (("queue", wanted.queue), ("name", wanted.name), ("service", wanted.service)):
            if text is not None:
                terms.append(Term(key, ":", (Value(text, exact=True),)))
        if wanted.job_id is not None:
            terms.append(Term("job", ":", (Value(wanted.job_id, exact=True),)))
        self._add_times(wanted)
        for prefix in (wanted.id_prefix, search.id_prefix if search is not None else None):
            if prefix is not None:
                self.few = True
                self._add("id BETWEEN ? AND ?", *id_range(prefix))
        if wanted.error is not None:
            self._errors = [wanted.error]
        return all(self._add_term(term) for term in terms)

    def _add_times(self, wanted: JobFilter) -> None:
        search = wanted.search
        for since in (wanted.since_ns, search.since_ns if search is not None else None):
            if since is not None:
                self._add("start >= ?", since)
        for until in (wanted.until_ns, search.until_ns if search is not None else None):
            if until is not None:
                self._add("start < ?", until)
        if wanted.before is not None:
            start, n = wanted.before[0], min(wanted.before[1], INT64_MAX)
            self._add("start <= ? AND (start < ? OR n < ?)", start, start, n)

    def _add(self, condition: str, *values: Any) -> None:
        self._where.append(condition)
        self._values.extend(values)

    def _add_term(self, term: Term) -> bool:
        if term.key in COLUMNS:
            column, factor = COLUMNS[term.key]
            number = max(min(term.number * factor, INT64_MAX), -INT64_MAX)
            self._add_unless(term, f"ifnull({column} {term.op} ?, 0)", number)
        elif term.key == "pid":
            self._add_unless(term, f"process IN (SELECT id FROM process WHERE pid {term.op} ?)", term.number)  # noqa: S608
        elif term.key == "job":
            self._add_few(term, ["job_id"], [pack_job_id(value.text) for value in term.values])
        elif term.key == "trace":
            self._add_few(term, ["id", "trace"], [_trace_id(value.text) for value in term.values])
        elif term.key == "error":
            return self._add_numbers(term, "error", self._error_ids(term))
        else:
            return self._add_names(term)
        return True

    def _add_names(self, term: Term) -> bool:
        ids = self._name_ids(term)
        if term.key in ("action", "queue"):
            return self._add_numbers(term, term.key, ids)
        table, column = ("process", "process") if term.key in PROCESS_KEYS else ("site", "site")
        inner = f"SELECT id FROM {table} WHERE {term.key} IN ({_marks(ids)})"  # noqa: S608 - a key of the language
        self._add_unless(term, f"{column} IN ({inner})", *ids)
        return bool(ids) or term.negated

    def _add_numbers(self, term: Term, column: str, ids: list[int]) -> bool:
        if term.negated:
            self._add(f"ifnull(+{column}, 0) NOT IN ({_marks(ids)})", *ids)
            return True
        if column == "action" and self._actions is None:
            self._actions = ids
        elif column == "error" and self._errors is None:
            self._errors = ids
        else:
            self._add(f"+{column} IN ({_marks(ids)})", *ids)
        return bool(ids)

    def _add_few(self, term: Term, columns: list[str], wanted: list[Any]) -> None:
        # The index of these columns has no nulls, and SQLite uses it for `=` only.
        self.few = self.few or not term.negated
        condition = " OR ".join(f"{column} = ?" for column in columns for _ in wanted)
        self._add_unless(term, f"ifnull({condition}, 0)" if term.negated else f"({condition})", *wanted * len(columns))

    def _add_unless(self, term: Term, condition: str, *values: Any) -> None:
        self._add(f"NOT {condition}" if term.negated else condition, *values)

    def _name_ids(self, term: Term) -> list[int]:
        ids: set[int] = set()
        for value in term.values:
            if value.exact or ("*" not in value.text and term.key not in CONTAINING):
                ids.add(self._names.find(value.text))
                continue
            pattern = value.pattern(containing=term.key in CONTAINING)
            ids.update(row[0] for row in self._con.execute(_NAMES[term.key], (pattern,)))
        return sorted(ids - {0})

    def _error_ids(self, term: Term) -> list[int]:
        ids: set[int] = set()
        for value in term.values:
            pattern = value.pattern(containing=True)
            rows = self._con.execute("SELECT id FROM error WHERE class LIKE ? ESCAPE '\\'", (pattern,))
            ids.update(row[0] for row in rows)
            if len(value.text) == FINGERPRINT_DIGITS and not value.text.strip("0123456789abcdef"):
                key = bytes.fromhex(value.text)
                ids.update(row[0] for row in self._con.execute("SELECT id FROM error WHERE fingerprint = ?", (key,)))
        return sorted(ids)

    def walks(self) -> list[tuple[list[str], list[Any]]]:
        """Return the conditions of walks that are each ordered by an index: along errors, statuses or actions."""
        if self._errors is not None:
            return [self._walk("error = ?", error) for error in self._errors]
        if self._status and "ok" not in self._status:
            numbers = [STATUS_NUMBERS.get(status, -1) for status in sorted(self._status)]
            return [self._walk("status <> 1 AND status = ?", number) for number in numbers]
        if self._actions is not None:
            return [self._walk("action = ?", action) for action in self._actions]
        return [self.all()]

    def _walk(self, condition: str, *value: int) -> tuple[list[str], list[Any]]:
        """Return all conditions, those on other columns than the one that is walked along without their index."""
        where, values = [*self._where, *([condition] if condition else [])], [*self._values, *value]
        for column, wanted in (("error", self._errors), ("action", self._actions)):
            if wanted is not None and not condition.startswith(column):
                where.append(f"+{column} IN ({_marks(wanted)})")
                values += wanted
        if self._status and not condition.startswith("status"):
            numbers = [STATUS_NUMBERS.get(status, -1) for status in self._status]
            where.append(f"+status IN ({_marks(numbers)})")
            values += numbers
        return where, values

    def all(self) -> tuple[list[str], list[Any]]:
        """Return the conditions of one walk by start."""
        return self._walk("")


_LIKE = "LIKE ? ESCAPE '\\'"
_NAMES = {
    "action": f"SELECT id FROM name WHERE text {_LIKE} AND id IN (SELECT action FROM site)",  # noqa: S608
    **dict.fromkeys(("queue", "name", *PROCESS_KEYS), f"SELECT id FROM name WHERE text {_LIKE}"),  # noqa: S608
}


def id_range(prefix: str) -> tuple[bytes, bytes]:
    """Return the first and the last id that begin with these hexadecimal digits."""
    digits = prefix.lower()
    if len(digits) > ID_DIGITS or digits.strip("0123456789abcdef"):
        return b"\xff" * 17, b""
    return bytes.fromhex(digits.ljust(ID_DIGITS, "0")), bytes.fromhex(digits.ljust(ID_DIGITS, "f"))


def _trace_id(text: str) -> bytes:
    return id_range(text)[0] if len(text) == ID_DIGITS else b""


def _marks(values: list[Any]) -> str:
    return ",".join("?" * len(values))
