"""How far long work is: on standard error, on a terminal only."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    T = TypeVar("T")

STEP_SECONDS = 0.2
PATIENCE_SECONDS = 0.5  # what takes less says nothing
BAR_WIDTH = 30


def bar(items: Iterable[T], total: int, noun: str) -> Iterator[T]:
    """Yield `items` and show how many of at most `total` have been; not where standard output is a terminal too."""
    if not sys.stderr.isatty() or sys.stdout.isatty():
        yield from items
        return
    shown = time.monotonic()
    number = 0
    for number, item in enumerate(items, 1):
        if time.monotonic() - shown > STEP_SECONDS:
            shown = time.monotonic()
            filled = min(BAR_WIDTH * number // max(total, 1), BAR_WIDTH)
            _write(f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {number} {noun} ")
        yield item
    _write(f"{number} {noun}\n")


@contextlib.contextmanager
def busy(what: str) -> Iterator[None]:
    """Say what is being done, and for how long by now, while the block runs."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()
    began = time.monotonic()

    def show() -> None:
        wait = PATIENCE_SECONDS
        while not done.wait(wait):
            _write(f"{what} ... {time.monotonic() - began:.0f} s")
            wait = STEP_SECONDS

    thread = threading.Thread(target=show, name="autoinst-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        _write("")


def _write(text: str) -> None:
    sys.stderr.write(f"\r\033[K{text}")
    sys.stderr.flush()
