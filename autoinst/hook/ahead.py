"""Finders that a program puts before autoinst's, as pytest does to rewrite assertions: what they find is prepared too.

Their order stays as the program made it, since who inserts a finder may take it away by its place. Each gets a
`find_spec` of its own, an instance's attribute. Loaded when the first such finder is met.
"""

from __future__ import annotations

import sys

from autoinst.hook.trampoline import trim

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from typing import Any

    from autoinst.hook.finder import Finder

FIND = "find_spec"
MARK = "__autoinst_finder__"


def watch(finder: Finder) -> None:
    """Let `finder` prepare what those before it on `sys.meta_path` find."""
    for other in tuple(sys.meta_path):
        if other is finder:
            return
        # A class serves all that know it, and another finder of autoinst's has this one prepare nothing.
        if issubclass(type(other), type) or type(other).__module__ == type(finder).__module__:
            continue
        own = getattr(other, "__dict__", None)
        if type(own) is dict and getattr(own.get(FIND), MARK, None) is not finder:
            find = getattr(other, FIND, None)
            if find is not None:
                own[FIND] = _find_and_prepare(finder, find)


def _find_and_prepare(finder: Finder, find: Any) -> Any:
    def find_spec(name: str, *args: Any, **kwargs: Any) -> ModuleSpec | None:
        try:
            spec: ModuleSpec | None = find(name, *args, **kwargs)
        except BaseException as error:
            trim(error)  # of this frame, which plain Python has not
            raise
        if spec is not None:
            finder.found(spec, name)
        return spec

    setattr(find_spec, MARK, finder)
    return find_spec
