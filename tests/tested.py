"""What a test of a job library says of it in docs/libraries.md: its row, beside the records that the test expects.

`scripts/libraries_table.py` collects the `LIBRARY` of every test module and writes the table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

COLUMNS = ("queue", "queue time", "attempts", "job id", "arguments", "exception", "killed", "trace")


@dataclass(frozen=True)
class Library:
    """A job library as its test runs it.

    `pack` is the name of its rules file, or `rule` the heading of docs/libraries.md that has one; `environment` is that
    of the library environment whose lock has `distribution`, `test` for the tests' own, and `versions` and `tested` say
    what these would where there is none; `runs` says with which brokers and workers; `expected` are the whole records
    that the test compares; `recorded` are columns that it checks in another way; `missing` says, of what is not
    recorded, why.
    """

    name: str
    pack: str = ""
    distribution: str = ""
    environment: str = ""
    runs: str = ""
    expected: Mapping[str, Iterable[dict[str, Any]]] = field(default_factory=dict)
    recorded: tuple[str, ...] = ()
    missing: str = ""
    rule: str = ""
    versions: str = ""
    tested: str = ""

    def columns(self) -> set[str]:
        """Return which of COLUMNS the records have."""
        found = set(self.recorded)
        for record in (record for records in self.expected.values() for record in records):
            for key in ("queue", "queue_time", "job_id"):
                if record[key] not in (None, False):
                    found.add(key.replace("_", " "))
            if record["args"] or record["kwargs"]:
                found.add("arguments")
            if (record["attempts"] or 0) > 1:
                found.add("attempts")
            if record["status"] == "error" and record["exception"] is not None:
                found.add("exception")
            if record["status"] == "killed":
                found.add("killed")
            if record["parent_span_id"]:
                found.add("trace")
        return found
