"""Which jobs a command is asked for: its options as a JobFilter, wrong ones as errors of usage."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from autoinst.errors import UsageError
from autoinst.store.query import JobFilter
from autoinst.store.search import SearchError, parse
from autoinst.wording import parse_since

if TYPE_CHECKING:
    import argparse

    from autoinst.store.search import Search


def asked_for(options: argparse.Namespace) -> JobFilter:
    """Return the filter that `options` (those of `commands.add_filters`) mean; raises UsageError."""
    now = time.time_ns()
    return JobFilter(
        limit=options.limit,
        status=frozenset(options.status or ()),
        since_ns=since(options.since, now),
        action=options.action,
        queue=options.queue,
        search=None if options.search is None else search(options.search, now),
    )


def since(text: str | None, now_ns: int) -> int | None:
    """Return the time that `--since` means in ns since the epoch, None for None; raises UsageError."""
    if text is None:
        return None
    try:
        return parse_since(text, now_ns)
    except ValueError as error:
        raise UsageError(f"--since: {error}") from None


def search(text: str, now_ns: int) -> Search:
    """Return what `--search` means; raises UsageError, which points to the place."""
    try:
        return parse(text, now_ns)
    except SearchError as error:
        hint = f" ({error.hint})" if error.hint else ""
        shown = "".join(letter if letter.isprintable() else " " for letter in text)
        raise UsageError(f"--search: {error}{hint}\n  {shown}\n  {' ' * error.at}^") from None
