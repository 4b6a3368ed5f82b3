"""What a JobFilter asks for as conditions of ClickHouse's SQL; the same jobs as store/conditions.py finds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from autoinst.record import INT64_MAX
from autoinst.store.clickhouse.client import literal
from autoinst.store.conditions import COLUMNS, FINGERPRINT_DIGITS, ID_DIGITS, id_range
from autoinst.store.search import CONTAINING, Term, Value

if TYPE_CHECKING:
    from autoinst.store.query import JobFilter

HALF_BITS = 64
LOW = 2**HALF_BITS - 1
MAX_PREFIX = 2**128 - 1
# What JSON writes as it is, whatever surrounds it; for other text only Python tells whether it is meant.
_PLAIN = re.compile(r"[A-Za-z0-9_.:@ -]+")


def of_filter(wanted: JobFilter) -> list[str] | None:
    """Return conditions that all must hold, None if no stored job can have them.

    The terms on a job's details are only narrowed down: `Term.fits_details` decides.
    """
    search = wanted.search
    status = wanted.status
    if search is not None and search.status:
        status = status & search.status if status else search.status
        if not status:
            return None
    terms = [*search.terms] if search is not None else []
    if wanted.action is not None:
        terms.append(Term("action", ":", (Value(wanted.action, exact="*" not in wanted.action),)))
    for key, text in (("queue", wanted.queue), ("name", wanted.name), ("service", wanted.service)):
        if text is not None:
            terms.append(Term(key, ":", (Value(text, exact=True),)))
    if wanted.job_id is not None:
        terms.append(Term("job", ":", (Value(wanted.job_id, exact=True),)))
    out = _times(wanted)
    if status:
        out.append(f"status IN ({', '.join(literal(name) for name in sorted(status))})")
    for prefix in (wanted.id_prefix, search.id_prefix if search is not None else None):
        if prefix is not None:
            out.append(of_prefix(prefix))
    if wanted.error is not None:
        out.append(f"error = {wanted.error}")
    out += [_term(term) for term in terms]
    out += [hint for term in (search.details if search is not None else ()) for hint in _hints(term)]
    return out


def _times(wanted: JobFilter) -> list[str]:
    search = wanted.search
    since = [at for at in (wanted.since_ns, search.since_ns if search is not None else None) if at is not None]
    until = [at for at in (wanted.until_ns, search.until_ns if search is not None else None) if at is not None]
    out = [f"start >= {at}" for at in since] + [f"start < {at}" for at in until]
    if wanted.before is not None:
        start, ident = wanted.before
        high, low = min(ident, MAX_PREFIX) >> HALF_BITS, ident & LOW
        below = f"id_high < {high} OR (id_high = {high} AND id_low < {low})"
        out.append(f"start <= {start} AND (start < {start} OR {below})")
    return out


def of_prefix(digits: str) -> str:
    """Return the condition that an id begins with these hexadecimal digits."""
    first, last = (int.from_bytes(end, "big") for end in id_range(digits))
    if first > last:
        return "0"
    if len(digits) == ID_DIGITS:
        return f"id_high = {first >> HALF_BITS} AND id_low = {first & LOW}"
    out = f"id_high BETWEEN {first >> HALF_BITS} AND {last >> HALF_BITS}"
    if len(digits) > ID_DIGITS // 2:
        out += f" AND id_low BETWEEN {first & LOW} AND {last & LOW}"
    return out


def of_suffix(digits: str) -> str:
    """Return the condition that an id ends with these hexadecimal digits."""
    if not digits or len(digits) > ID_DIGITS or digits.lower().strip("0123456789abcdef"):
        return "0"
    half = ID_DIGITS // 2
    low, high = digits[-half:], digits[:-half]
    out = f"bitAnd(id_low, {16 ** len(low) - 1}) = {int(low, 16)}"
    return f"{out} AND bitAnd(id_high, {16 ** len(high) - 1}) = {int(high, 16)}" if high else out


def _term(term: Term) -> str:
    condition = _positive(term)
    return f"NOT ({condition})" if term.negated else f"({condition})"


def _positive(term: Term) -> str:
    if term.key in COLUMNS:
        column, factor = COLUMNS[term.key]
        number = max(min(term.number * factor, INT64_MAX), -INT64_MAX)
        return f"ifNull({column} {term.op} {literal(number)}, 0)"
    if term.key == "pid":
        return f"pid > 0 AND pid {term.op} {literal(term.number)}"
    if term.key == "job":
        return _any(f"job_id = {literal(value.text)}" for value in term.values if value.text)
    if term.key == "trace":
        return _any(_trace(value.text) for value in term.values if len(value.text) == ID_DIGITS)
    if term.key == "error":
        return _any(_error(value) for value in term.values)
    return _any(_name(term.key, value) for value in term.values if value.text)


def _any(conditions: object) -> str:
    found = list(conditions)  # type: ignore[call-overload]
    return " OR ".join(found) if found else "0"


def _trace(text: str) -> str:
    return f"({of_prefix(text)}) OR trace = {literal(text.lower())}"


def _error(value: Value) -> str:
    found = f"error > 0 AND lower(error_class) LIKE lower({literal(value.pattern(containing=True))})"
    if len(value.text) == FINGERPRINT_DIGITS and not value.text.strip("0123456789abcdef"):
        found += f" OR error = {int(value.text, 16)}"
    return f"({found})"


def _name(key: str, value: Value) -> str:
    if value.exact or ("*" not in value.text and key not in CONTAINING):
        return f"{key} = {literal(value.text)}"
    pattern = literal(value.pattern(containing=key in CONTAINING))
    return f"({key} != '' AND lower({key}) LIKE lower({pattern}))"


def _hints(term: Term) -> list[str]:
    """Return conditions that hold for every job which `term`, on its details, can mean."""
    if term.negated:
        return []
    if term.key == "text":
        needle = term.values[0].text
        return [f"({_contains('details', needle)} OR {_contains('job_id', needle)})"] if _is_plain(needle) else []
    out = ["details != ''"]
    path = term.key.partition(".")[2]
    if _is_plain(path) and "." not in path and not path.isdigit():
        out.append(_contains("details", path))
    texts = [value.text for value in term.values]
    if term.op == ":" and all(_is_plain(text) for text in texts):
        out.append(f"({_any(_contains('details', text) for text in texts)})")
    return out


def _is_plain(text: str) -> bool:
    return _PLAIN.fullmatch(text) is not None


def _contains(column: str, text: str) -> str:
    """Return a condition that `column` has `text` in it, capital letters or not.

    Letters beyond ASCII may be the same as some of it without capitals, as the German sharp s is: they always fit.
    """
    return f"(positionCaseInsensitive({column}, {literal(text)}) > 0 OR length({column}) != lengthUTF8({column}))"
