"""Histograms of durations in log buckets: eight a doubling, so that a percentile is within 4.5 % of the exact one."""

from __future__ import annotations

from itertools import accumulate
from math import log2

BUCKETS_A_DOUBLING = 8
MORE, LOW_BITS = 0x80, 0x7F  # of a byte of a varint

Histogram = dict[int, int]


def bucket(duration_ns: int) -> int:
    """Return the bucket of a duration (below 1 ns counts as 1 ns)."""
    return int(log2(duration_ns) * BUCKETS_A_DOUBLING) if duration_ns > 0 else 0


def middle(number: int) -> float:
    """Return the duration in ns that stands for bucket `number`: its geometric middle."""
    return float(2 ** ((number + 0.5) / BUCKETS_A_DOUBLING))


def end(number: int) -> int:
    """Return the longest duration in ns that bucket `number` holds, or one ns less."""
    return int(2 ** ((number + 1) / BUCKETS_A_DOUBLING))


def percentile(histogram: Histogram, share: float) -> float | None:
    """Return the duration in ns below which `share` (0..1) of the counted ones lie; None if there are none."""
    total = sum(histogram.values())
    if not total:
        return None
    wanted = max(share * total, 1)
    seen = 0
    for number in sorted(histogram):
        seen += histogram[number]
        if seen >= wanted:
            return middle(number)
    return middle(max(histogram))


def add(into: Histogram, other: Histogram) -> None:
    """Add the counts of `other` to `into`."""
    if not into:
        into.update(other)
        return
    for number, count in other.items():
        into[number] = into.get(number, 0) + count


def pack(histogram: Histogram) -> bytes:
    """Return the histogram as bytes: per bucket the distance from the one before and the count, as varints."""
    out = bytearray()
    last = 0
    for number in sorted(histogram):
        for value in (number - last, histogram[number]):
            rest = value
            while rest >= MORE:
                out.append(rest & LOW_BITS | MORE)
                rest >>= 7
            out.append(rest)
        last = number
    return bytes(out)


def unpack(data: bytes) -> Histogram:
    """Return the histogram that `pack` wrote."""
    values: bytes | list[int] = data
    if not data.isascii():  # else each byte is a whole value, as most are
        values = []
        part = shift = 0
        for byte in data:
            if byte & MORE:
                part |= (byte & LOW_BITS) << shift
                shift += 7
            elif shift:
                values.append(part | byte << shift)
                part = shift = 0
            else:
                values.append(byte)
    return dict(zip(accumulate(values[::2]), values[1::2], strict=True))
