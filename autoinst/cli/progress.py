"""How far long work is: on standard error, on a terminal only."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import TYPE_CHECKING, TypeVar

from autoinst.cli.output import is_steerable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    T = TypeVar("T")

STEP_SECONDS = 0.2
PATIENCE_SECONDS = 0.5  # what takes less says nothing
BAR_WIDTH = 30


class Bar:
    """A line that says how many of something have been, as a context manager; it ends with how many there were."""

    def __init__(self, noun: str, *, shown: bool | None = None) -> None:
        """Count `noun`; `shown` None means: on a terminal."""
        self._noun = noun
        self._shown = is_steerable(sys.stderr) if shown is None else shown
        self._at = time.monotonic()
        self._number = 0

    def __enter__(self) -> Bar:  # noqa: PYI034 - Self is not in typing before 3.11
        """Return the bar itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the number as the line's last word."""
        if self._shown:
            _write(f"{self._number:,} {self._noun}\n")

    def clear(self) -> None:
        """Make room for a message on the bar's line."""
        if self._shown:
            _write("")

    def show(self, number: int, share: float | None) -> None:
        """Say that there have been `number`, which is `share` (0 to 1) of the work; None where nobody knows."""
        self._number = number
        if not self._shown or time.monotonic() - self._at <= STEP_SECONDS:
            return
        self._at = time.monotonic()
        text = f"{number:,} {self._noun} "
        if share is not None:
            filled = min(int(BAR_WIDTH * share), BAR_WIDTH)
            text = f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {text}"
        _write(text)


def bar(items: Iterable[T], total: int, noun: str) -> Iterator[T]:
    """Yield `items` and show how many of at most `total` have been; not where standard output is a terminal too."""
    with Bar(noun, shown=is_steerable(sys.stderr) and not sys.stdout.isatty()) as shown:
        for number, item in enumerate(items, 1):
            shown.show(number, number / max(total, 1))
            yield item


@contextlib.contextmanager
def busy(what: str) -> Iterator[None]:
    """Say what is being done, and for how long by now, while the block runs."""
    if not is_steerable(sys.stderr):
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
