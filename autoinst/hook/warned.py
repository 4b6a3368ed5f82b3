"""Keeps to itself what the compiler warns about: the program was told when its code was compiled first."""

from __future__ import annotations

import _warnings
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

IGNORE = ("ignore", None, Warning, None, 0)


class NoWarnings:
    """While entered, the compiler warns of nothing.

    The filter is put into the list that is in force, not by `warnings.catch_warnings`, whose change of the filters'
    version would make the program's `once` and `default` warnings appear again.
    """

    def __enter__(self) -> None:
        """Ignore all warnings."""
        self.filters: Any = _in_force()
        self.filters.insert(0, IGNORE)

    def __exit__(self, *_: object) -> None:
        """Go by the program's filters again."""
        try:
            self.filters.remove(IGNORE)
        except ValueError:  # another thread has set all filters anew meanwhile
            return


def _in_force() -> Any:
    module = sys.modules.get("warnings")
    of_context = getattr(module, "_get_filters", None)  # since 3.14 a context may have filters of its own
    found = getattr(module, "filters", None) if of_context is None else of_context()
    return _warnings.filters if found is None else found
