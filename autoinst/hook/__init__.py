"""WHERE: the import hook, the probes it puts into code, and how they come off again."""

from __future__ import annotations


def is_own(name: str) -> bool:
    """Return whether `name` is a module of autoinst itself."""
    return name == "autoinst" or name.startswith("autoinst.")
