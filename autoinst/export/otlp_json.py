"""Encodes signals as OTLP's JSON: hexadecimal ids, lowerCamelCase, 64-bit numbers as texts, enums as numbers."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from autoinst import __version__
from autoinst.export.protobuf import INT64_MAX, INT64_MIN, SCOPE_NAME
from autoinst.export.signals import DELTA

if TYPE_CHECKING:
    from collections.abc import Iterable

    from autoinst.export.signals import Attributes, Metric, Resource, Span

_SCOPE = {"name": SCOPE_NAME, "version": __version__}


def traces(resources: Iterable[Resource]) -> bytes:
    """Return an ExportTraceServiceRequest."""
    return _dump(
        {
            "resourceSpans": [
                _of(resource, "scopeSpans", "spans", list(map(_span, resource.spans))) for resource in resources
            ]
        }
    )


def metrics(resources: Iterable[Resource]) -> bytes:
    """Return an ExportMetricsServiceRequest."""
    return _dump(
        {
            "resourceMetrics": [
                _of(of, "scopeMetrics", "metrics", [_metric(m, of.since_ns, of.at_ns) for m in of.metrics])
                for of in resources
            ]
        }
    )


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _of(resource: Resource, scopes: str, items: str, values: list[Any]) -> dict[str, Any]:
    return {
        "resource": {"attributes": key_values(resource.attributes)},
        scopes: [{"scope": _SCOPE, items: values}],
    }


def any_value(value: Any) -> dict[str, Any]:
    """Return an AnyValue."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int) and INT64_MIN <= value <= INT64_MAX:
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": _double(value)}
    if isinstance(value, (list, tuple)):
        return {"arrayValue": {"values": [any_value(item) for item in value]}}
    return {"stringValue": text(str(value))}


def text(value: str) -> str:
    """Return a text with what is no Unicode (lone surrogates) escaped."""
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()


def _double(value: float) -> float | str:
    """Return a number as protobuf's JSON mapping has it: what JSON has no number for is a text."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def key_values(attributes: Attributes) -> list[dict[str, Any]]:
    """Return a list of KeyValues."""
    return [{"key": text(key), "value": any_value(value)} for key, value in attributes.items() if value is not None]


def _attributes(attributes: Attributes) -> dict[str, Any]:
    """Return a field of attributes, none where there are none."""
    found = key_values(attributes)
    return {"attributes": found} if found else {}


def _span(span: Span) -> dict[str, Any]:
    out: dict[str, Any] = {"traceId": span.trace_id.hex(), "spanId": span.span_id.hex()}
    if span.parent is not None:
        out["parentSpanId"] = span.parent.hex()
    out |= {
        "name": text(span.name),
        "kind": span.kind,
        "startTimeUnixNano": str(max(span.start_ns, 0)),
        "endTimeUnixNano": str(max(span.end_ns, 0)),
        **_attributes(span.attributes),
    }
    if span.events:
        out["events"] = [
            {"timeUnixNano": str(max(event.time_ns, 0)), "name": text(event.name), **_attributes(event.attributes)}
            for event in span.events
        ]
    if span.dropped_events:
        out["droppedEventsCount"] = span.dropped_events
    if span.links:
        out["links"] = [
            {"traceId": link.trace_id.hex(), "spanId": link.span_id.hex(), **_attributes(link.attributes)}
            for link in span.links
        ]
    if span.status:
        out["status"] = {"code": span.status, **({"message": text(span.message)} if span.message else {})}
    return out


def _metric(metric: Metric, since_ns: int, at_ns: int) -> dict[str, Any]:
    times = {"startTimeUnixNano": str(since_ns), "timeUnixNano": str(at_ns)}
    points: list[dict[str, Any]] = []
    for point in metric.points:
        out: dict[str, Any] = {"attributes": key_values(point.attributes), **times}
        if metric.bounds:
            out |= {
                "count": str(point.number),
                "sum": point.total,
                "bucketCounts": [str(count) for count in point.buckets],
                "explicitBounds": list(metric.bounds),
            }
            out |= {} if point.lowest is None else {"min": point.lowest}
            out |= {} if point.highest is None else {"max": point.highest}
        else:
            out["asInt"] = str(point.number)
        points.append(out)
    head = {"name": metric.name, "description": metric.description, "unit": metric.unit}
    if metric.bounds:
        return {**head, "histogram": {"dataPoints": points, "aggregationTemporality": DELTA}}
    return {**head, "sum": {"dataPoints": points, "aggregationTemporality": DELTA, "isMonotonic": True}}


def partial_success(data: bytes) -> tuple[int, str]:
    """Return how many items a receiver rejected of what it accepted, and why; raises ValueError if it is no answer."""
    found = json.loads(data or b"{}")
    part = found.get("partialSuccess") or {} if isinstance(found, dict) else None
    if not isinstance(part, dict):
        raise ValueError("not an answer to an export")  # noqa: TRY004 - what was received is wrong, not the call
    counts = [int(value) for key, value in part.items() if key.startswith("rejected")]
    return sum(counts), str(part.get("errorMessage") or "")
