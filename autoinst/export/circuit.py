"""When an endpoint is tried again: later and later, at times nobody else chose, and when it asks to be."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 300.0
WRONG_SECONDS = 60.0  # the least where settings are wrong, since somebody has to see to them


class Circuit:
    """Closed while an endpoint answers; open after a failure, until it is time for one trial.

    The pause doubles from `first` to `longest` seconds, of which the upper half is left to chance.
    """

    def __init__(
        self,
        first: float = FIRST_SECONDS,
        longest: float = LONGEST_SECONDS,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Begin closed; `clock` gives seconds, `chance` numbers from 0 to 1."""
        self.failures = 0
        self._first = first
        self._longest = longest
        self._clock = clock
        self._chance = chance
        self._until = 0.0

    def wait(self) -> float:
        """Return the seconds until the next trial, 0 where it may be now."""
        return max(self._until - self._clock(), 0.0) if self.failures else 0.0

    def succeeded(self) -> None:
        """Close it."""
        self.failures = 0

    def failed(self, retry_after: float | None = None, *, wrong: bool = False) -> float:
        """Open it; return the seconds until the next trial."""
        pause: float = min(self._first * 2.0 ** min(self.failures, 30), self._longest)
        if wrong:
            pause = max(pause, min(WRONG_SECONDS, self._longest))
        pause *= 0.5 + 0.5 * self._chance()
        if retry_after is not None:
            pause = max(pause, retry_after)
        self.failures += 1
        self._until = self._clock() + pause
        return pause
