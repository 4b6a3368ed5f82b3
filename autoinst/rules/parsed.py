"""Parses Python's source by the parser that is built in, without the 6 ms of importing `ast`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ONLY_AST = 0x400  # ast.PyCF_ONLY_AST
TRIES = 20


def parse(source: bytes | str, file: str, mode: str = "exec") -> Any:
    """Return the tree of `source`; raises what `compile` does.

    It is tried again where CPython 3.11 loses count of a tree's depth: it counts that of all threads' trees together.
    """
    for _ in range(TRIES - 1):
        try:
            return compile(source, file, mode, ONLY_AST, True)
        except SystemError:
            continue
    return compile(source, file, mode, ONLY_AST, True)
