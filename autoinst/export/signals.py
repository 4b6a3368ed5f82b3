"""Spans and histograms as OpenTelemetry's protocol has them, before they are encoded as protobuf or JSON."""

from __future__ import annotations

from typing import Any, NamedTuple

# opentelemetry-proto 1.x, trace.proto: Span.SpanKind and Status.StatusCode.
INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER = 1, 2, 3, 4, 5
UNSET, OK, ERROR = 0, 1, 2
DELTA = 1  # metrics.proto: AggregationTemporality

# Names with texts, truth values, numbers, or sequences of these; None is left out.
Attributes = dict[str, Any]


class SpanEvent(NamedTuple):
    """Something that happened at a time (ns since the epoch)."""

    time_ns: int
    name: str
    attributes: Attributes


class Link(NamedTuple):
    """Another span that this one has to do with."""

    trace_id: bytes
    span_id: bytes
    attributes: Attributes


class Span(NamedTuple):
    """A stretch of time, in ns since the epoch; `parent` is None for a root."""

    trace_id: bytes
    span_id: bytes
    parent: bytes | None
    name: str
    kind: int
    start_ns: int
    end_ns: int
    attributes: Attributes
    events: tuple[SpanEvent, ...] = ()
    links: tuple[Link, ...] = ()
    status: int = UNSET
    message: str = ""
    dropped_events: int = 0


class Point(NamedTuple):
    """A histogram of some values: how many are in each bucket, `number` and `total` of all."""

    attributes: Attributes
    number: int
    total: float
    buckets: tuple[int, ...]
    lowest: float | None = None
    highest: float | None = None


class Metric(NamedTuple):
    """Deltas of a metric between two times: histograms with these upper `bounds`, sums where there are no bounds."""

    name: str
    unit: str
    description: str
    bounds: tuple[float, ...]
    points: tuple[Point, ...]


class Resource(NamedTuple):
    """Who it comes from, and what: spans, or metrics from `since_ns` to `at_ns` (ns since the epoch)."""

    attributes: Attributes
    spans: tuple[Span, ...] = ()
    metrics: tuple[Metric, ...] = ()
    since_ns: int = 0
    at_ns: int = 0
