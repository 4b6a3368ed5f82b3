"""What an exporter has to bring along, so that `pump` can do the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autoinst.export.answers import Answer
    from autoinst.record import Record
    from autoinst.store.feeds import Batch

BACKLOG = 1_000_000  # jobs
BATCH = 512  # jobs
GATHER_SECONDS = 1.0


class Feed(Protocol):
    """A stream of batches to one receiver, with a cursor of its own.

    `batch` is how many jobs it takes at once, `gather` the seconds it waits for more where there are fewer, `backlog`
    how many may wait at all; a new one begins with the oldest job there is, or only with what comes (`from_now`).
    """

    @property
    def name(self) -> str:
        """Its name in the store: `otlp/traces`."""

    @property
    def place(self) -> str:
        """Where it goes, for a person."""

    batch: int
    gather: float
    backlog: int
    from_now: bool

    def send(self, records: Sequence[Record], batch: Batch) -> Answer:
        """Send the jobs of a batch; never raises for what the network or the receiver does."""

    def test(self) -> Answer:
        """Send something that the receiver can be seen to take, and that is no job."""

    def close(self) -> None:
        """Close connections."""
