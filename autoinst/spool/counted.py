"""What was only counted, as the reading half takes it: from an arena's overflow table, and from the tally."""

from __future__ import annotations

from struct import Struct
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from autoinst.record import INT64_MAX
from autoinst.spool import cells, layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MAX_COUNT = 2**40  # jobs one cell or entry may have counted; more is damage, and sums have to fit the store's 64 bits
VERSION_1 = Struct("<HHIQQQ")  # the overflow table's entry then: action, padding, count, errors, sum of durations
_NOTHING: Mapping[int, int] = MappingProxyType({})


class Counted(NamedTuple):
    """How many jobs of an action were only counted, since their arena was made; `action` None: all others.

    `durations` is a histogram with the store's buckets. It lacks jobs that the first version of an arena has counted.
    """

    action: str | None
    jobs: int
    errors: int
    sum_ns: int
    max_ns: int = 0
    durations: Mapping[int, int] = _NOTHING


def counted(
    action: str | None, sum_ns: int, max_ns: int, ok: Mapping[int, int], failed: Mapping[int, int]
) -> Counted | None:
    """Return what two histograms of an action's jobs add up to; None if that is nothing."""
    durations = {bucket: min(jobs, MAX_COUNT) for bucket, jobs in ok.items()}
    errors = 0
    for bucket, jobs in failed.items():
        errors += min(jobs, MAX_COUNT)
        durations[bucket] = durations.get(bucket, 0) + min(jobs, MAX_COUNT)
    if not durations:
        return None
    return Counted(action, sum(durations.values()), errors, min(sum_ns, INT64_MAX), min(max_ns, INT64_MAX), durations)


def of_arena(data: bytes, version: int, name: Callable[[int], str | None]) -> Iterator[Counted]:
    """Read the overflow table `data` of an arena of that version; `name` tells the text of an interned number."""
    if version == 1:
        for number, _, _, jobs, errors, sum_ns in VERSION_1.iter_unpack(data):
            if number and jobs:
                most = min(jobs, MAX_COUNT)
                yield Counted(_action(number, name), most, min(errors, most), min(sum_ns, INT64_MAX))
        return
    start = layout.OVERFLOW_ENTRIES * layout.OVERFLOW.size
    found = cells.histograms(data, range(start, len(data), cells.SIZE))
    for row, (number, _, _, sum_ns, max_ns) in enumerate(layout.OVERFLOW.iter_unpack(data[:start])):
        entry = counted(
            _action(number, name),
            sum_ns,
            max_ns,
            found.get(cells.OUTCOMES * row, {}),
            found.get(cells.OUTCOMES * row + 1, {}),
        )
        if number and entry:
            yield entry


def _action(number: int, name: Callable[[int], str | None]) -> str | None:
    return None if number == layout.OVERFLOW_REST else name(number)
