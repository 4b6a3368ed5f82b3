"""Code that evaluates what type statements and type parameters say (PEP 695): it looks like a function's, and is none.

From 3.14 on it has a parameter that no source can name. In 3.12 and 3.13 only what is done with it tells: the code
around it makes a function of it and hands that to one of the interpreter's makers of aliases and type parameters.
"""

from __future__ import annotations

import sys
from types import CodeType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# MAKE_FUNCTION, EXTENDED_ARG, CALL_INTRINSIC_1, CALL_INTRINSIC_2: fixed since 3.12.0 and 3.13.0 (`opcode.opmap`).
OPERATIONS = {(3, 12): (132, 144, 173, 174), (3, 13): (26, 71, 55, 56)}
# Which maker is meant (Include/internal/pycore_intrinsics.h of 3.12 and 3.13).
ALIAS = 11
BOUND, CONSTRAINTS, DEFAULT = 2, 3, 5


def evaluators(code: CodeType) -> set[int]:
    """Return the ids of the constants of `code` that evaluate something late, on 3.12 and 3.13."""
    operations = OPERATIONS.get(sys.version_info[:2])
    if operations is None:
        return set()
    make, extended, one, two = operations
    text = code.co_code
    found: set[int] = set()
    # How far a maker is from the function it is handed: an alias's is put into a tuple first.
    for maker, back in (((one, ALIAS), 4), *(((two, each), 2) for each in (BOUND, CONSTRAINTS, DEFAULT))):
        if bytes(maker) not in text:
            continue
        for end in range(back, len(text), 2):
            if (text[end], text[end + 1]) == maker:
                # 3.13 gives a function its closure by one more instruction.
                made = next((at for at in (end - back, end - back - 2) if text[at] == make), None)
                constant = None if made is None else _loaded(code, made - 2, extended)
                if type(constant) is CodeType:
                    found.add(id(constant))
    return found


def _loaded(code: CodeType, at: int, extended: int) -> Any:
    """Return the constant that the instruction at `at` loads, whose number may begin in those before it."""
    text = code.co_code
    number, shift = text[at + 1], 8
    while at > 0 and text[at - 2] == extended:
        at -= 2
        number |= text[at + 1] << shift
        shift += 8
    return code.co_consts[number] if number < len(code.co_consts) else None
