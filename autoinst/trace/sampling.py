"""Leaves out the records of most jobs that ended well, where a rule says `keep`: such a job is only counted.

Its slot keeps the fixed fields, so that every total stays exact. Loaded with the first rule that has `keep`.
"""

from __future__ import annotations

from autoinst.spool import layout
from autoinst.spool.shorten import spelled_out
from autoinst.trace.transaction import Transaction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from autoinst.spool.writer import Spool

# Steps by the golden ratio fall evenly into a circle however many there are, and in step with no period of the
# program's; each process begins elsewhere (D. Knuth, The Art of Computer Programming 6.4, on multiplicative hashing).
CIRCLE = 1 << 64
GOLDEN = 0x9E3779B97F4A7C15


class Sampler:
    """What one rule keeps."""

    __slots__ = ("_shares", "_slow_ns")

    def __init__(self, keep: tuple[float, float, int | None]) -> None:
        """Take a rule's `keep`: the shares of `ok` and of `ignored` jobs, and the ns from which on all are kept."""
        ok, ignored, slow_ns = keep
        self._shares = {layout.OK: ok, layout.IGNORED: ignored}
        self._slow_ns = slow_ns

    def transaction(self, namespace: str, name: str, rule: str | None) -> SampledTransaction:
        """Return a transaction that asks this sampler at its end."""
        made = SampledTransaction(namespace, name, rule)
        made.sampler = self
        return made

    def share(self, status: int, duration_ns: int) -> float:
        """Return the share of jobs like this one that are kept."""
        if self._slow_ns is not None and duration_ns >= self._slow_ns:
            return 1.0
        return self._shares.get(status, 1.0)


def keeps(spool: Spool, seq: int, share: float) -> bool:
    """Return whether job `seq` of this process is among the `share` that is kept."""
    return (int.from_bytes(spool.uid, "little") + seq * GOLDEN) % CIRCLE < share * CIRCLE


class SampledTransaction(Transaction):
    """One run of a job whose record may be left out."""

    __slots__ = ("sampler",)

    sampler: Sampler

    def _store(self, spool: Spool, duration: int, status: int) -> None:
        if status == layout.UNSET:
            status = layout.OK if self.exception is None else self._status(self.exception)
        slot = self.slot
        share = self.sampler.share(status, duration)
        if slot is None or share >= 1:
            super()._store(spool, duration, status)
        elif keeps(spool, self._seq, share):
            self.set_detail("adjusted_count", 1 / share)
            super()._store(spool, duration, status)
        else:
            tail = spelled_out(b"", self._names()) if spool.crowded else b""
            flags = self.flags | layout.FLAG_LEFT_OUT
            spool.finish(slot, self._seq, self.started_ns, duration, self.queue_time, status, flags, tail)
