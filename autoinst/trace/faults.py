"""Counts what went wrong inside autoinst in this process, for `doctor`; nothing of it reaches the program."""

from __future__ import annotations

MAX_KINDS = 50

counts: dict[str, int] = {}


def note(what: str) -> None:
    """Count one fault of kind `what`."""
    if what in counts or len(counts) < MAX_KINDS:
        counts[what] = counts.get(what, 0) + 1
