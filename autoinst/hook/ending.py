"""The end of a process, at which the last statuses of its rules are written."""

from __future__ import annotations

import sys

from autoinst.trace import recorder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from autoinst.hook.registry import Registry


class Ending:
    """Whose statuses are written at the end of the process: those of the rules in force."""

    __slots__ = ("is_awaited", "registry")

    def __init__(self) -> None:
        self.registry: Registry | None = None
        self.is_awaited = False

    def wait_for(self, registry: Registry) -> None:
        """Take `registry`, and have the end of the process told, once."""
        self.registry = registry
        if not self.is_awaited:
            import atexit

            self.is_awaited = True
            atexit.register(self.at_end)
            if self.after_fork not in recorder.at_fork:
                recorder.at_fork.append(self.after_fork)

    def at_end(self) -> None:
        """Write the last statuses."""
        if self.registry is not None:
            self.registry.flush_last()

    def after_fork(self) -> None:
        """Go on in a child, whose calls are its own."""
        if sys.version_info >= (3, 13):  # multiprocessing takes away what its parent has registered with atexit
            self.is_awaited = False
        if self.registry is not None:
            self.registry.forget_calls()


ending = Ending()
