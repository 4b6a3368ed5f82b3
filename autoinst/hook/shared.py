"""Stands for a loader while it loads one module: for loaders that are classes, and serve all modules of their kind."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any


class Shared:
    """Loads one module in place of `loader`, and calls `loaded` with it then."""

    def __init__(self, loader: Any, loaded: Callable[[ModuleType], None]) -> None:
        """Load as `loader` does."""
        self._loader = loader
        self._loaded = loaded

    def __getattr__(self, name: str) -> Any:
        """Be the loader for who asks."""
        return getattr(self._loader, name)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module with its own loader, and look at it then."""
        spec: ModuleSpec | None = module.__spec__
        module.__loader__ = self._loader
        if spec is not None:
            spec.loader = self._loader
        self._loader.exec_module(module)
        self._loaded(module)
