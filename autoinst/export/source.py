"""What a feed's cursor runs over: jobs, or notices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from autoinst.store.feeds import Batch
    from autoinst.store.sqlite import Store


class Source(Protocol):
    """Items in the order of their numbers, which only grow; `noun` is what some of them are called."""

    noun: str

    def last(self, store: Store) -> int:
        """Return the number of the last item."""

    def upto(self, store: Store, n: int, limit: int) -> int:
        """Return the number of the last of up to `limit` items after `n`; `n` where there are none."""

    def items(self, store: Store, batch: Batch) -> list[Any]:
        """Return the items of a batch."""

    def count(self, store: Store, n: int, upto: int) -> int:
        """Return how many items there are after `n` up to `upto`."""

    def name(self, item: Any) -> str:
        """Return what an item is called in a message."""


class Jobs:
    """The store's jobs that have ended; those that were recorded elsewhere and imported if `imported`."""

    noun = "job(s)"

    def __init__(self, *, imported: bool = False) -> None:
        """Leave imported jobs out unless told otherwise: whoever recorded them has sent them."""
        self._imported = imported

    def last(self, store: Store) -> int:
        """Return the number of the last job."""
        return store.last()

    def upto(self, store: Store, n: int, limit: int) -> int:
        """Return the number of the last of up to `limit` jobs."""
        return store.cursor_after(n, limit)

    def items(self, store: Store, batch: Batch) -> list[Any]:
        """Return the jobs of a batch that are not running still."""
        jobs = store.jobs_after(batch.after, -1, upto=batch.upto, imported=self._imported)
        return [record for _, record in jobs if record.status != "running"]

    def count(self, store: Store, n: int, upto: int) -> int:
        """Return how many jobs there are."""
        return store.count_after(n, upto)

    def name(self, item: Any) -> str:
        """Return the job's id."""
        return f"job {item.id}"


class Notices:
    """What people are to be told of."""

    noun = "notice(s)"

    def last(self, store: Store) -> int:
        """Return the number of the last notice."""
        return store.last_notice()

    def upto(self, store: Store, n: int, limit: int) -> int:
        """Return the number of the last of up to `limit` notices."""
        return max((notice.n for notice in store.notices_after(n, limit)), default=n)

    def items(self, store: Store, batch: Batch) -> list[Any]:
        """Return the notices of a batch."""
        return store.notices_after(batch.after, -1, upto=batch.upto)

    def count(self, store: Store, n: int, upto: int) -> int:
        """Return how many notices there are."""
        return len(store.notices_after(n, -1, upto=upto))

    def name(self, item: Any) -> str:
        """Return the notice's kind and subject."""
        return f"{item.kind} {item.subject}"


JOBS, ALL_JOBS, NOTICES = Jobs(), Jobs(imported=True), Notices()
