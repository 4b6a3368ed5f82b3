"""Rules of `enrich` and `exceptions`: what a nested call knows of the transaction in progress."""

from __future__ import annotations

from autoinst.hook.probe import Probe, end_other
from autoinst.trace.context import Node, current
from autoinst.trace.payload import PERFORM_JOB
from autoinst.trace.transaction import owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from autoinst.trace.transaction import Transaction


class EnrichProbe(Probe):
    """Gives the transaction in progress what a nested call knows: fields, or an exception that a library swallows."""

    __slots__ = ()

    def begin(self, values: tuple[Any, ...]) -> Node | None:
        """Set the fields read at the start; a call whose fields are read at the end is watched to its end."""
        node = current.get()
        if node is None or owner(node).closed or owner(node).foreign():
            return None
        transaction = owner(node)
        if is_in_job_inside(node, transaction):  # which is an event and no more: what is known of it goes nowhere
            return None
        if self.fields.at_enter:
            self.fields.apply(transaction, self.fields.at_enter, values)
            transaction.amend()
        if not self.fields.at_exit:
            return None
        return Watch(transaction, values)

    def end(self, node: Node, result: Any, exception: BaseException | None) -> None:
        """Set the fields read at the end."""
        if not isinstance(node, Watch):
            end_other(node, result, exception)
        elif node.transaction is not None and not node.transaction.closed:
            self.fields.apply(node.transaction, self.fields.at_exit, (*node.values, result, exception))
            node.transaction.amend()

    def suspend(self, node: Node | None) -> None:
        """Leave the context, which a watched call is not in, only for what another probe opened."""
        if not isinstance(node, Watch):
            super().suspend(node)

    def resume(self, node: Node | None) -> None:
        """Come back into the context, which a watched call is not in, only for what another probe opened."""
        if not isinstance(node, Watch):
            super().resume(node)


class Watch(Node):
    """A call in progress that is only watched to its end; it is never the context's current node."""

    __slots__ = ("values",)

    def __init__(self, transaction: Transaction | None, values: tuple[Any, ...]) -> None:
        self.transaction = transaction
        self.values = values
        self.event = -1
        self.token = None


def is_in_job_inside(node: Node, transaction: Transaction) -> bool:
    """Return whether `node` is, or is inside, an event of `transaction` that is a job by itself."""
    above: Node | None = node
    while above is not None and above.event != -1:
        if above.event >= 0 and transaction.events and transaction.events[above.event][0].startswith(PERFORM_JOB):
            return True
        above = above.parent
    return False
