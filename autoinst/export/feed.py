"""What an exporter has to bring along, so that `pump` can do the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autoinst.export.source import JOBS

if TYPE_CHECKING:
    import logging
    import threading
    from collections.abc import Sequence

    from autoinst.export.answers import Answer
    from autoinst.export.source import Source
    from autoinst.store.feeds import Batch
    from autoinst.store.sqlite import Store

BACKLOG = 1_000_000  # jobs
BATCH = 512  # jobs
GATHER_SECONDS = 1.0


class Feed:
    """A stream of batches to one receiver, with a cursor of its own; a subclass says how one is sent.

    `name` is what the store knows it by (`otlp/traces`), `place` where it goes, for a person. `batch` is how many jobs
    it takes at once, `gather` the seconds it waits for more where there are fewer, `backlog` how many may wait at all;
    a new one begins with the oldest job there is, or only with what comes (`from_now`). A `strict` one lets `gather`
    seconds pass after each post, however much waits. `source` is what it sends, if not jobs.
    """

    name: str
    place: str
    batch: int = BATCH
    gather: float = GATHER_SECONDS
    backlog: int = BACKLOG
    from_now: bool = False
    strict: bool = False
    source: Source = JOBS

    def look(self, store: Store, *, answering: bool) -> None:
        """Do what does not wait for a batch; called before each look for one. Raises StoreError.

        `answering`: there is no reason to wait before the receiver is asked again.
        """

    def send(self, records: Sequence[Any], batch: Batch) -> Answer:
        """Send the jobs of a batch; never raises for what the network or the receiver does."""
        raise NotImplementedError

    def test(self) -> Answer:
        """Send something that the receiver can be seen to take, and that is no job."""
        raise NotImplementedError

    def close(self) -> None:
        """Close connections."""


class Service:
    """Something that is asked for rather than sends: it runs in a thread of its own beside the feeds.

    `name` is what it is called in the log, `place` where it is found, for a person.
    """

    name: str
    place: str

    def run(self, store: str, journal: logging.Logger, stop: threading.Event) -> None:
        """Serve what is in the store (a path) until `stop` is set; never raises for what others do."""
        raise NotImplementedError

    def once(self, store: str) -> str:  # noqa: ARG002 - what only serves has nothing to do
        """Do what `--once` asks for, and return a line that says what that was; raises AutoinstError, OSError."""
        return ""

    def test(self) -> Answer:
        """Say whether it can be asked."""
        raise NotImplementedError
