"""autoinst: instruments background jobs by rules, without a change to the program.

A program needs none of these names to be instrumented; they are for what rules cannot say.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from autoinst.trace.notifications import instrument, monitor, subscribe
    from autoinst.trace.null import NullTransaction, is_ignored_exception
    from autoinst.trace.transaction import BACKGROUND_JOB, Transaction

__all__ = [
    "BACKGROUND_JOB",
    "NullTransaction",
    "Transaction",
    "__version__",
    "instrument",
    "is_ignored_exception",
    "monitor",
    "subscribe",
]


def __getattr__(name: str) -> Any:
    """Import the public API when it is first asked for: a worker under rules needs none of it."""
    if name in ("instrument", "monitor", "subscribe"):
        from autoinst.trace import notifications as home
    elif name in ("BACKGROUND_JOB", "Transaction"):
        from autoinst.trace import transaction as home  # type: ignore[no-redef]
    elif name in ("NullTransaction", "is_ignored_exception"):
        from autoinst.trace import null as home  # type: ignore[no-redef]
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(home, name)
