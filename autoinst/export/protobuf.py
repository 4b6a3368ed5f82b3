"""Encodes signals as OTLP's protobuf messages; field numbers are those of opentelemetry-proto 1.x.

Small enough to be read, so that nobody needs the protobuf runtime; the tests decode it with the real one.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any

from autoinst import __version__
from autoinst.export.signals import DELTA

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from autoinst.export.signals import Attributes, Link, Metric, Point, Resource, Span, SpanEvent

SCOPE_NAME = "autoinst"
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
UINT64 = 2**64 - 1
VARINT, FIXED64, BYTES = 0, 1, 2
_FIXED = Struct("<Q").pack
_DOUBLE = Struct("<d").pack
MORE, LOW_BITS = 0x80, 0x7F


def varint(value: int) -> bytes:
    """Return a number from 0 on as a base-128 varint."""
    if value < MORE:
        return bytes((value,))
    out = bytearray()
    while value >= MORE:
        out.append(value & LOW_BITS | MORE)
        value >>= 7
    out.append(value)
    return bytes(out)


def tag(field: int, kind: int) -> bytes:
    """Return what stands before a field's value."""
    return varint(field << 3 | kind)


_TAGS = {(field, kind): tag(field, kind) for field in range(1, 17) for kind in (VARINT, FIXED64, BYTES)}


def sized(field: int, data: bytes) -> bytes:
    """Return a field of bytes, text or a message."""
    return _TAGS[field, BYTES] + varint(len(data)) + data


def text(field: int, value: str) -> bytes:
    """Return a field of text; what is no Unicode (lone surrogates) is escaped."""
    return sized(field, value.encode("utf-8", "backslashreplace"))


def number(field: int, value: int) -> bytes:
    """Return a field of an enum or an unsigned number."""
    return _TAGS[field, VARINT] + varint(value)


def fixed(field: int, value: int) -> bytes:
    """Return a field of 64 fixed bits, which also times are."""
    return _TAGS[field, FIXED64] + _FIXED(min(max(value, 0), UINT64))


def double(field: int, value: float) -> bytes:
    """Return a field of a floating-point number."""
    return _TAGS[field, FIXED64] + _DOUBLE(value)


def any_value(value: Any) -> bytes:
    """Return an AnyValue message (common.proto)."""
    if isinstance(value, str):
        return text(1, value)
    if isinstance(value, bool):
        return number(2, int(value))
    if isinstance(value, int) and INT64_MIN <= value <= INT64_MAX:
        return number(3, value & UINT64)
    if isinstance(value, float):
        return double(4, value)
    if isinstance(value, (list, tuple)):
        return sized(5, b"".join(sized(1, any_value(item)) for item in value))
    return text(1, str(value))


def key_values(field: int, attributes: Attributes) -> bytes:
    """Return KeyValue messages in `field`."""
    return b"".join(
        sized(field, text(1, key) + sized(2, any_value(value)))
        for key, value in attributes.items()
        if value is not None
    )


def traces(resources: Iterable[Resource]) -> bytes:
    """Return an ExportTraceServiceRequest."""
    return b"".join(
        sized(1, _resource(of.attributes) + sized(2, _scope() + b"".join(sized(2, _span(span)) for span in of.spans)))
        for of in resources
    )


def metrics(resources: Iterable[Resource]) -> bytes:
    """Return an ExportMetricsServiceRequest."""
    return b"".join(
        sized(
            1,
            _resource(of.attributes)
            + sized(2, _scope() + b"".join(sized(2, _metric(metric, of.since_ns, of.at_ns)) for metric in of.metrics)),
        )
        for of in resources
    )


def _resource(attributes: Attributes) -> bytes:
    return sized(1, key_values(1, attributes))


def _scope() -> bytes:
    return sized(1, text(1, SCOPE_NAME) + text(2, __version__))


def _span(span: Span) -> bytes:
    out = [sized(1, span.trace_id), sized(2, span.span_id)]
    if span.parent is not None:
        out.append(sized(4, span.parent))
    out += [text(5, span.name), number(6, span.kind), fixed(7, span.start_ns), fixed(8, span.end_ns)]
    out.append(key_values(9, span.attributes))
    out += [sized(11, _event(event)) for event in span.events]
    if span.dropped_events:
        out.append(number(12, span.dropped_events))
    out += [sized(13, _link(link)) for link in span.links]
    if span.status:
        out.append(sized(15, (text(2, span.message) if span.message else b"") + number(3, span.status)))
    return b"".join(out)


def _event(event: SpanEvent) -> bytes:
    return fixed(1, event.time_ns) + text(2, event.name) + key_values(3, event.attributes)


def _link(link: Link) -> bytes:
    return sized(1, link.trace_id) + sized(2, link.span_id) + key_values(4, link.attributes)


def _metric(metric: Metric, since_ns: int, at_ns: int) -> bytes:
    head = text(1, metric.name) + text(2, metric.description) + text(3, metric.unit)
    times = fixed(2, since_ns) + fixed(3, at_ns)
    if metric.bounds:
        bounds = sized(7, b"".join(map(_DOUBLE, metric.bounds)))
        points = b"".join(sized(1, _histogram(point, times, bounds)) for point in metric.points)
        return head + sized(9, points + number(2, DELTA))
    points = b"".join(
        sized(1, key_values(7, point.attributes) + times + _TAGS[6, FIXED64] + _FIXED(point.number))
        for point in metric.points
    )
    return head + sized(7, points + number(2, DELTA) + number(3, 1))


def _histogram(point: Point, times: bytes, bounds: bytes) -> bytes:
    out = [key_values(9, point.attributes), times, fixed(4, point.number), double(5, point.total)]
    out += [sized(6, b"".join(map(_FIXED, point.buckets))), bounds]
    if point.lowest is not None:
        out.append(double(11, point.lowest))
    if point.highest is not None:
        out.append(double(12, point.highest))
    return b"".join(out)


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field of a message (varints as numbers, the rest as bytes).

    Raises ValueError where `data` is no message.
    """
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        kind = key & 7
        if kind == VARINT:
            value, at = _read_varint(data, at)
            yield key >> 3, value
            continue
        if kind == BYTES:
            size, at = _read_varint(data, at)
        elif kind in (FIXED64, 5):
            size = 8 if kind == FIXED64 else 4
        else:
            raise ValueError(f"not a message: wire type {kind}")
        if at + size > len(data):
            raise ValueError("not a message: it ends too early")
        yield key >> 3, data[at : at + size]
        at += size


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:  # noqa: PLR2004 - bits of the widest number
            raise ValueError("not a message: no number where one should be")
        byte = data[at]
        at += 1
        value |= (byte & LOW_BITS) << shift
        if byte < MORE:
            return value, at
        shift += 7


def partial_success(data: bytes) -> tuple[int, str]:
    """Return how many items a receiver rejected of what it accepted, and why; raises ValueError if it is no answer."""
    rejected, message = 0, ""
    for field, value in fields(data):
        if field == 1 and isinstance(value, bytes):
            for number_, inner in fields(value):
                if number_ == 1 and isinstance(inner, int):
                    rejected = inner
                elif number_ == 2 and isinstance(inner, bytes):  # noqa: PLR2004 - its field's number
                    message = inner.decode("utf-8", "replace")
    return rejected, message


def status_message(data: bytes) -> str:
    """Return the message of a google.rpc.Status, which OTLP's errors are; raises ValueError if it is none."""
    found: Sequence[bytes] = [value for field, value in fields(data) if field == 2 and isinstance(value, bytes)]  # noqa: PLR2004
    return found[0].decode("utf-8", "replace") if found else ""
