"""Imports the few libraries the worker half may need, also where they only lie beside the package (autoinst.pyz)."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType


def load(name: str) -> ModuleType:
    """Return module `name`, the program's own if it has one; raises ImportError."""
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        if error.name != name or folder in sys.path:
            raise
        sys.path.append(folder)
        try:
            __import__(name)
        finally:
            sys.path.remove(folder)
    return sys.modules[name]
