"""What Prometheus is told: jobs by action and queue from the totals of all time, feeds, check-ins."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from autoinst.export.exposition import COUNTER, GAUGE, HISTOGRAM, Exemplar, Family, Sample, histogram
from autoinst.store import check_ins
from autoinst.store.histogram import BUCKETS_A_DOUBLING
from autoinst.store.rollups import Cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from autoinst.export.exposition import Labels
    from autoinst.store.alltime import Latest, Total
    from autoinst.store.histogram import Histogram
    from autoinst.store.reader import Reader

MAX_SERIES = 300  # pairs of action and queue that keep their names; the rest are counted together
OTHER = "(other)"
# The store's buckets end at these powers of two exactly, in ns: from 1 ms to 73 minutes.
POWERS = range(20, 43)
NS = 1e9
STATUSES = ("ok", "error", "ignored", "killed", "counted")
Group = tuple[str, str]


class Prometheus:
    """Makes the families; remembers which series have names and what was told, so that no counter ever falls."""

    def __init__(self, rules: Mapping[str, Mapping[str, Any]]) -> None:
        """`rules` are the settings' check-ins."""
        self._rules = rules
        self._named: dict[tuple[int, int], None] = {}
        self._told: dict[tuple[Group, str], float] = {}
        self._lock = threading.Lock()

    def families(self, store: Reader) -> list[Family]:
        """Return all families of a store; raises StoreError."""
        with self._lock:
            groups, exemplars = self._groups(store)
            jobs = [sample for group, cell in groups.items() for sample in self._counts(group, cell)]
        durations = [s for group, cell in groups.items() for s in _durations(group, cell, exemplars.get(group))]
        waits = [s for group, cell in groups.items() for s in _waits(group, cell)]
        return [
            Family("autoinst_jobs", COUNTER, "Jobs that ended; counted: no more is known of them.", tuple(jobs)),
            Family("autoinst_job_duration_seconds", HISTOGRAM, "How long jobs took.", tuple(durations)),
            Family("autoinst_job_queue_time_seconds", HISTOGRAM, "How long jobs waited.", tuple(waits)),
            *_feeds(store),
            *self._check_ins(store),
        ]

    def _groups(self, store: Reader) -> tuple[dict[Group, Cell], dict[Group, Exemplar]]:
        groups: dict[Group, Cell] = {}
        exemplars: dict[Group, Exemplar] = {}
        latest: dict[int, dict[int, Latest]] = {}
        for total in store.all_time():
            group = self._group(total)
            groups.setdefault(group, Cell()).add(total.cell)
            action, queue = total.numbers
            if group[0] == OTHER:
                continue
            if action not in latest:
                latest[action] = store.latest_of(action)
            job = latest[action].get(queue)
            if job is not None:
                labels = (("transaction_id", job.id), ("trace_id", job.trace))
                exemplars[group] = Exemplar(labels, job.duration_ns / NS, job.started_ns + job.duration_ns)
        return groups, exemplars

    def _group(self, total: Total) -> Group:
        if total.numbers not in self._named:
            if len(self._named) >= MAX_SERIES:
                return OTHER, OTHER
            self._named[total.numbers] = None
        return total.action or "", total.queue or ""

    def _counts(self, group: Group, cell: Cell) -> Iterator[Sample]:
        numbers = (cell.ok, cell.errors, cell.ignored, cell.killed, cell.counted - cell.counted_errors)
        for status, number in zip(STATUSES, numbers, strict=True):
            # A job that was held for killed may turn out to have ended: a counter that fell would be one begun anew.
            value = self._told[group, status] = max(number, self._told.get((group, status), 0))
            if value or status in ("ok", "error"):
                yield Sample("", (*_labels(group), ("status", status)), value)

    def _check_ins(self, store: Reader) -> Iterator[Family]:
        if not self._rules:
            return
        found = check_ins.standing(self._rules, store.check_ins(), (), time.time_ns())
        missed = [Sample("", (("check_in", each.identifier),), each.state == "missed") for each in found]
        began = [
            Sample("", (("check_in", each.identifier),), (each.seen.started_ns or 0) / NS)
            for each in found
            if each.seen is not None
        ]
        yield Family(
            "autoinst_check_in_missed", GAUGE, "Whether a check-in's job did not begin in time.", tuple(missed)
        )
        yield Family("autoinst_check_in_began_timestamp_seconds", GAUGE, "When its job began last.", tuple(began))


def _labels(group: Group) -> Labels:
    return (("action", group[0]), ("queue", group[1]))


def _durations(group: Group, cell: Cell, exemplar: Exemplar | None) -> Iterator[Sample]:
    return histogram(_labels(group), *_buckets(cell.durations), cell.sum_ns / NS, exemplar)


def _waits(group: Group, cell: Cell) -> Iterable[Sample]:
    if not cell.queue_times:
        return ()
    return histogram(_labels(group), *_buckets(cell.queue_times), cell.queue_sum_ns / NS)


def _buckets(found: Histogram) -> tuple[list[tuple[float, int]], int]:
    """Return the upper bounds in seconds, each with how many are below it, and how many there are in all."""
    bounds = []
    below = 0
    rest = sorted(found.items(), reverse=True)
    for power in POWERS:
        while rest and rest[-1][0] < power * BUCKETS_A_DOUBLING:
            below += rest.pop()[1]
        bounds.append((2**power / NS, below))
    return bounds, sum(found.values())


def _feeds(store: Reader) -> list[Family]:
    last = store.last()
    rows = [row for row in store.feeds() if not row.of_notices]
    label = [(("feed", row.name),) for row in rows]

    def of(values: Iterable[float]) -> tuple[Sample, ...]:
        return tuple(Sample("", labels, value) for labels, value in zip(label, values, strict=True))

    if not rows:
        return []
    return [
        Family("autoinst_feed_sent_jobs", COUNTER, "Jobs an exporter's feed has sent.", of(row.jobs for row in rows)),
        Family("autoinst_feed_parked_jobs", COUNTER, "Jobs a receiver refuses.", of(row.parked for row in rows)),
        Family("autoinst_feed_waiting_jobs", GAUGE, "Jobs that wait.", of(max(last - row.n, 0) for row in rows)),
    ]
