"""What a test of a job library says of it in docs/libraries.md: its row, beside the records that the test expects.

`scripts/libraries_table.py` collects the `LIBRARY` of every test module and writes the table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

COLUMNS = ("queue", "queue time", "attempts", "job id", "arguments", "exception")  # fields of a record
KINDS = ("ok", "failing", "retried", "delayed", "killed", "clock skew", "trace")  # jobs that a test runs


@dataclass(frozen=True)
class Library:
    """A job library as its test runs it.

    `pack` is the name of its rules file, or `rule` the heading of docs/libraries.md that has one; `environment` is that
    of the library environment whose lock has `distribution`, `test` for the tests' own, and `oldest` that of one with
    its oldest version; `versions` and `tested` say what these would where there is none; `runs` says with which brokers
    and workers; `expected` are the whole records that the test compares; `recorded` are columns that it checks in
    another way, and `ran` are kinds of jobs; `delayed` are the names in `expected` of jobs that were to run later;
    `lacks` are the kinds that the library has no such thing of; `missing` says, of what is not recorded, why.
    """

    name: str
    pack: str = ""
    distribution: str = ""
    environment: str = ""
    runs: str = ""
    expected: Mapping[str, Iterable[dict[str, Any]]] = field(default_factory=dict)
    recorded: tuple[str, ...] = ()
    missing: str = ""
    ran: tuple[str, ...] = ()
    delayed: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    rule: str = ""
    versions: str = ""
    tested: str = ""
    oldest: str = ""

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
        return found

    def kinds(self) -> set[str]:
        """Return which of KINDS the test runs; raises ValueError where `lacks` or `delayed` say what is not so."""
        found = set(self.ran)
        for records in self.expected.values():
            ends = [record["status"] for record in records]
            if ends[-1] == "error":
                found.add("failing")
            if (len(ends) > 1 and ends[0] != "ok") or any((record["attempts"] or 0) > 1 for record in records):
                found.add("retried")
            found |= {"ok"} & set(ends) | {"killed"} & set(ends)
            found |= {"clock skew" for record in records if record.get("clock_skew")}
            found |= {"trace" for record in records if record["parent_span_id"]}
        if self.delayed:
            found.add("delayed")
        waited = {name for name in self.expected if all(record["queue_time"] for record in self.expected[name])}
        if found & set(self.lacks) or not waited >= set(self.delayed):
            raise ValueError(f"{self.name} lacks {found & set(self.lacks)}, never waits {set(self.delayed) - waited}")
        return found
