"""The jobs that were recorded, and what a test can claim of them; a claim that fails says what there is instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from collections.abc import Callable

    from autoinst.record import Record

SHOWN = 5  # jobs told of where none is what was expected
MAX_VALUE = 200


class Jobs(Sequence["Record"]):
    """Recorded jobs, the first started first: a sequence of Record.

    What is expected of a job is named as in its JSON (`autoinst jobs --json`; `class_` for `class`). Of an exception
    its class is enough, of events their names.
    """

    def __init__(self, read: Callable[[], list[Record]]) -> None:
        """Take the jobs as `read` returns them each time they are looked at."""
        self._read = read

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        """Return a job, or several."""
        return self._read()[index]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._read())

    def __repr__(self) -> str:
        """List them in a few words."""
        return f"<{len(self)} jobs: {', '.join(map(_headline, self._read()))}>"

    def matching(self, **expected: Any) -> list[Record]:
        """Return the jobs that are as expected."""
        wanted = _wanted(expected)
        return [record for record in self._read() if not _differences(record, wanted)]

    def one(self, **expected: Any) -> Record:
        """Return the one job that is as expected; raises AssertionError where it is none, or not the only one."""
        __tracebackhide__ = True
        found = self.matching(**expected)
        if len(found) == 1:
            return found[0]
        if not found:
            raise AssertionError(_none_like(self._read(), _wanted(expected)))
        what = f"as expected ({_listed(_wanted(expected))})" if expected else "there"
        raise AssertionError("\n".join([f"{len(found)} jobs are {what}, not one:", *map(_line, found)]))

    def none(self, **expected: Any) -> None:
        """Raise AssertionError where a job is as described."""
        __tracebackhide__ = True
        found = self.matching(**expected)
        if found:
            raise AssertionError("\n".join([f"{len(found)} jobs that should not be there:", *map(_line, found)]))


def _wanted(expected: dict[str, Any]) -> dict[str, Any]:
    wanted = {name.removesuffix("_"): value for name, value in expected.items()}
    for name in wanted:
        if name not in FIELDS:
            raise TypeError(f"a job has no {name!r}; it has {', '.join(FIELDS)}")
    return wanted


def _value(record: Record, name: str, expected: Any) -> Any:
    """Return what a job has under `name`, in the form of what is expected of it."""
    found = record.to_json().get(name)
    if name == "exception" and found is not None and isinstance(expected, str):
        return found["class"]
    if name == "events" and isinstance(expected, (list, tuple)) and all(isinstance(item, str) for item in expected):
        return [event["name"] for event in found or ()]
    return found


def _differences(record: Record, wanted: dict[str, Any]) -> list[tuple[str, Any]]:
    found = ((name, _value(record, name, expected)) for name, expected in wanted.items())
    return [(name, value) for name, value in found if not _equal(value, wanted[name])]


def _equal(found: Any, expected: Any) -> bool:
    return bool(found == (list(expected) if isinstance(expected, tuple) else expected))


def _none_like(records: list[Record], wanted: dict[str, Any]) -> str:
    if not records:
        return f"no job was recorded; expected {_listed(wanted) or 'one'}"
    lines = [f"no job is as expected; of the {len(records)} recorded, these are nearest:"]
    for record in sorted(records, key=lambda record: len(_differences(record, wanted)))[:SHOWN]:
        lines.append(_line(record))
        different = dict(_differences(record, wanted))
        for name, expected in wanted.items():
            if name in different:
                lines += [f"  - {name} = {_short(expected)}", f"  + {name} = {_short(different[name])}"]
            else:
                lines.append(f"    {name} = {_short(expected)}")
    return "\n".join(lines)


def _headline(record: Record) -> str:
    error = f" {record.exception.class_name}: {record.exception.message}" if record.exception is not None else ""
    return f"{record.action or record.name} {record.status}{error}"


def _line(record: Record) -> str:
    return f"job {_headline(record)}"


def _listed(wanted: dict[str, Any]) -> str:
    return ", ".join(f"{name}={_short(value)}" for name, value in wanted.items())


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_VALUE else text[: MAX_VALUE - 3] + "..."


def _fields() -> tuple[str, ...]:
    from autoinst.record import Record

    return (*Record("", "ok", 0).to_json(), "killed", "clock_skew", "truncated")


FIELDS = _fields()
