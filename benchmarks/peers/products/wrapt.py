"""wrapt alone: a wrapper that hands the call on and keeps nothing, the least that a product built on it costs."""

from __future__ import annotations

from benchmarks.peers.product import Product

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Wrapt(Product):
    """The library most of the products are built on."""

    name = "wrapt"
    title = package = "wrapt"

    def job(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap it."""
        import wrapt

        def handed_on(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:  # noqa: ARG001
            return wrapped(*args, **kwargs)

        return wrapt.FunctionWrapper(function, handed_on)

    event = job


PRODUCT = Wrapt()
