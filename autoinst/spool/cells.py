"""Counts of jobs by kind and duration in cells of 8 bytes, each job counted by one store into the mapping.

A cell is its kind (8 bits), its bucket of durations (9 bits) and its count (47 bits); one that is unused is 0. So a
process that is killed has counted each job wholly or not at all, and cells are given out as they are needed.
"""

from __future__ import annotations

from autoinst.spool import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from mmap import mmap

    from autoinst.spool.arena import Arena

    Histogram = dict[int, int]

SIZE = 8
OUTCOMES = 2  # kinds of an entry: 2 * its number, and 2 * its number + 1 for jobs that failed
BUCKET_SHIFT, KIND_SHIFT = 47, 56
COUNT_MASK = (1 << BUCKET_SHIFT) - 1
BUCKET_MASK = (1 << (KIND_SHIFT - BUCKET_SHIFT)) - 1


class Cells:
    """The cells at `offsets` of a mapping."""

    __slots__ = ("_known", "_mm", "_offsets", "_reserved", "_used")

    def __init__(self, mm: mmap, offsets: Sequence[int], kinds: int) -> None:
        """Use the empty cells at `offsets`; `kinds` kinds are sure to get one."""
        self._mm = mm
        self._offsets = offsets
        self._reserved = kinds
        self._used = 0
        self._known: dict[int, dict[int, int]] = {}  # kind -> bucket -> where its cell is

    def reserve(self, kinds: int) -> bool:
        """Make sure that so many more kinds get a cell; return whether there are as many left."""
        if len(self._offsets) - self._used < self._reserved + kinds:
            return False
        self._reserved += kinds
        return True

    def has_room(self, kind: int, bucket: int) -> bool:
        """Return whether a job is counted in its own bucket, and not in the nearest one of its kind."""
        known = self._known.get(kind)
        return known is None or bucket in known or len(self._offsets) - self._used > self._reserved

    def add(self, kind: int, bucket: int, jobs: int) -> None:
        """Count `jobs` of `kind`."""
        known = self._known.setdefault(kind, {})
        if bucket not in known:
            if known and len(self._offsets) - self._used <= self._reserved:
                bucket = min(known, key=lambda other: abs(other - bucket))
            else:
                self._reserved -= not known
                known[bucket] = self._offsets[self._used]
                self._used += 1
        at = known[bucket]
        before = int.from_bytes(self._mm[at : at + SIZE], "little") & COUNT_MASK
        cell = kind << KIND_SHIFT | bucket << BUCKET_SHIFT | before + jobs
        self._mm[at : at + SIZE] = cell.to_bytes(SIZE, "little")


class ArenaTable:
    """The overflow table of an arena of this process; see autoinst/spool/layout.py."""

    def __init__(self, arena: Arena) -> None:
        """Count in `arena`, which has counted nothing yet."""
        self.arena = arena
        cells = range(layout.CELLS_OFFSET, layout.INTERN_OFFSET, SIZE)
        self._cells = Cells(arena.mm, cells, OUTCOMES)  # those of the last row
        self._rows: dict[str, int] = {}

    def add(self, action: str, failed: bool, bucket: int, jobs: int, sum_ns: int, max_ns: int) -> None:
        """Count `jobs` of `action` whose durations are in `bucket`."""
        row = self._rows.get(action)
        if row is None:
            row = self._row(action)
        at = layout.OVERFLOW_OFFSET + row * layout.OVERFLOW.size
        mm = self.arena.mm
        number, _, _, total, largest = layout.OVERFLOW.unpack_from(mm, at)
        # One slice, not pack_into, which zeroes first.
        mm[at : at + layout.OVERFLOW.size] = layout.OVERFLOW.pack(number, 0, 0, total + sum_ns, max(largest, max_ns))
        self._cells.add(OUTCOMES * row + failed, bucket, jobs)

    def _row(self, action: str) -> int:
        row = len(self._rows)
        number = self.arena.intern(action) if row < layout.OVERFLOW_ENTRIES - 1 else 0
        if not number or not self._cells.reserve(OUTCOMES):
            row, number = layout.OVERFLOW_ENTRIES - 1, layout.OVERFLOW_REST
        at = layout.OVERFLOW_OFFSET + row * layout.OVERFLOW.size
        self.arena.mm[at : at + 2] = number.to_bytes(2, "little")
        if number != layout.OVERFLOW_REST:
            self._rows[action] = row
        return row


def histograms(data: bytes, offsets: Sequence[int]) -> dict[int, Histogram]:
    """Return what the cells at `offsets` of `data` have counted: kind -> bucket -> jobs."""
    found: dict[int, Histogram] = {}
    for at in offsets:
        cell = int.from_bytes(data[at : at + SIZE], "little")
        if cell & COUNT_MASK:
            counts = found.setdefault(cell >> KIND_SHIFT, {})
            bucket = cell >> BUCKET_SHIFT & BUCKET_MASK
            counts[bucket] = counts.get(bucket, 0) + (cell & COUNT_MASK)
    return found
