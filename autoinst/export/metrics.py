"""What a batch of jobs adds to the metrics: durations, queue times and counts, as deltas."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from autoinst.export.signals import Metric, Point
from autoinst.export.spans import library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from autoinst.export.signals import Attributes
    from autoinst.record import Record

# Seconds; those that the semantic conventions recommend for durations, and longer ones: jobs take longer than requests.
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0, 300.0, 1800.0)
MAX_ACTIONS = 500  # in one batch; the rest are counted together
OTHER = "(other)"


def of_records(records: Sequence[Record]) -> tuple[Metric, ...]:
    """Return the metrics that `records` add to, without those that get nothing."""
    found = (
        Metric(
            "messaging.process.duration",
            "s",
            "How long jobs took.",
            BOUNDS,
            _points(
                records, _attributes, lambda record: None if record.duration_ns is None else record.duration_ns / 1e9
            ),
        ),
        Metric(
            "autoinst.job.queue_time",
            "s",
            "How long jobs waited in their queue.",
            BOUNDS,
            _points(records, _attributes, _waited),
        ),
        Metric("autoinst.jobs", "{job}", "Jobs that ended.", (), _points(records, _with_status, lambda _: 0.0)),
    )
    return tuple(metric for metric in found if metric.points)


def _took(record: Record) -> float | None:
    return None if record.duration_ns is None else record.duration_ns / 1e9


def _waited(record: Record) -> float | None:
    return None if record.queue_time_ms is None else max(record.queue_time_ms, 0.0) / 1e3


def _attributes(record: Record) -> Attributes:
    failed = record.exception.class_name if record.exception and record.status == "error" else None
    return {
        "messaging.system": library(record),
        "messaging.operation.name": "perform",
        "messaging.destination.name": record.queue,
        "autoinst.action": record.action,
        "error.type": "killed" if record.status == "killed" else failed,
    }


def _with_status(record: Record) -> Attributes:
    return {
        "messaging.system": library(record),
        "messaging.destination.name": record.queue,
        "autoinst.action": record.action,
        "autoinst.status": record.status,
    }


def _points(
    records: Iterable[Record],
    attributes_of: Callable[[Record], Attributes],
    value_of: Callable[[Record], float | None],
) -> tuple[Point, ...]:
    """Return a point for each set of attributes. A record that stands for several jobs counts as so many."""
    groups: dict[tuple[object, ...], tuple[Attributes, list[tuple[float, float]]]] = {}
    actions: set[object] = set()
    for record in records:
        value = value_of(record)
        if value is None:
            continue
        attributes = attributes_of(record)
        if attributes["autoinst.action"] not in actions and len(actions) >= MAX_ACTIONS:
            attributes["autoinst.action"] = OTHER
        actions.add(attributes["autoinst.action"])
        groups.setdefault(tuple(attributes.values()), (attributes, []))[1].append((value, record.adjusted_count))
    return tuple(point(attributes, values) for attributes, values in groups.values())


def point(attributes: Attributes, values: Sequence[tuple[float, float]], bounds: Sequence[float] = BOUNDS) -> Point:
    """Return the point of some values, each with how often it counts."""
    buckets = [0.0] * (len(bounds) + 1)
    for value, weight in values:
        buckets[bisect_left(bounds, value)] += weight
    counts = tuple(round(count) for count in buckets)
    only = [value for value, _ in values]
    total = sum(value * weight for value, weight in values)
    return Point(attributes, sum(counts), total, counts, min(only), max(only))
