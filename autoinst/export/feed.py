"""What an exporter has to bring along, so that `pump` can do the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autoinst.export.answers import Answer
    from autoinst.store.feeds import Batch
    from autoinst.store.sqlite import Store

BACKLOG = 1_000_000  # jobs
BATCH = 512  # jobs
GATHER_SECONDS = 1.0


class Feed:
    """A stream of batches to one receiver, with a cursor of its own; a subclass says how one is sent.

    `name` is what the store knows it by (`otlp/traces`), `place` where it goes, for a person. `batch` is how many jobs
    it takes at once, `gather` the seconds it waits for more where there are fewer, `backlog` how many may wait at all;
    a new one begins with the oldest job there is, or only with what comes (`from_now`).
    """

    name: str
    place: str
    batch: int = BATCH
    gather: float = GATHER_SECONDS
    backlog: int = BACKLOG
    from_now: bool = False

    def look(self, store: Store) -> None:
        """Do what does not wait for a batch; called before each look for one, while the receiver answers."""

    def send(self, records: Sequence[Any], batch: Batch) -> Answer:
        """Send the jobs of a batch; never raises for what the network or the receiver does."""
        raise NotImplementedError

    def test(self) -> Answer:
        """Send something that the receiver can be seen to take, and that is no job."""
        raise NotImplementedError

    def close(self) -> None:
        """Close connections."""
