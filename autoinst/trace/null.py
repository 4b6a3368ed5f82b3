"""What stands where no transaction is open, and the question both can answer."""

from __future__ import annotations

from autoinst.trace import recorder as recorders
from autoinst.trace.exceptions import matches


def is_ignored_exception(exception: BaseException) -> bool:
    """Return whether the rules file's `ignore_exceptions` name the exception's class or a base of it."""
    return matches(exception, recorders.get().ignored)


class NullTransaction:
    """Stands where no transaction is open: everything is accepted, nothing is kept."""

    __slots__ = ()

    id = None
    action = None
    closed = True
    namespace = None
    is_ignored_exception = staticmethod(is_ignored_exception)

    def _nothing(self, *_args: object, **_kwargs: object) -> None:
        """Do nothing."""

    add_exception = set_error = complete = discard = set_action = set_namespace = _nothing
    set_queue_start = set_tags = set_params = _nothing

    def __bool__(self) -> bool:
        """Return False, so that `if Transaction.current():` reads as it should."""
        return False


NULL = NullTransaction()


def null(*_arguments: object) -> NullTransaction:
    """Be the default of a method that returns a transaction."""
    return NULL
