"""Gives the end of an inlined function its line where the compiler of 3.12 leaves it on none.

There, a part of the code that begins a line by a jump alone keeps only its first instruction on that line. Such a part
is what ends the `with` after an `except`; a frame that returns there would have None as its line.
"""

from __future__ import annotations

import sys
from types import CodeType

# RETURN_VALUE, JUMP_FORWARD, RERAISE, RETURN_CONST, RAISE_VARARGS, JUMP_BACKWARD_NO_INTERRUPT, JUMP_BACKWARD, which do
# not run on into the next instruction: fixed since 3.12.0 (`opcode.opmap`).
ENDS = (83, 110, 119, 121, 130, 134, 140)
# An entry of `co_linetable` (Objects/locations.md of 3.12): 1 bit that is set, 4 of its code, 3 of its length less one.
FIRST, CODE, NO_LOCATION, NO_COLUMNS = 0x80, 0x78, 15 << 3, 13 << 3
UNIT = 2  # bytes of an instruction
SAME_LINE = 0  # as the entry before that has a line


def mend(code: CodeType, keys: set[tuple[str, int]]) -> CodeType:
    """Return `code` with the functions in it that `keys` names (qualified name, first line) ending on lines."""
    if sys.version_info[:2] != (3, 12):
        return code
    constants = tuple(mend(each, keys) if type(each) is CodeType else each for each in code.co_consts)
    mine = (code.co_qualname, code.co_firstlineno) in keys
    return code.replace(co_consts=constants, co_linetable=_table(code) if mine else code.co_linetable)


def _table(code: CodeType) -> bytes:
    table, body = code.co_linetable, code.co_code
    starts = [at for at, byte in enumerate(table) if byte & FIRST]
    new = bytearray()
    has_line = False
    offset = 0  # in `body`
    for start, end in zip(starts, [*starts[1:], len(table)], strict=True):
        entry = table[start:end]
        if entry[0] & CODE != NO_LOCATION:
            has_line = True
        elif has_line and body[offset - UNIT] not in ENDS:
            entry = bytes((entry[0] & ~CODE | NO_COLUMNS, SAME_LINE))
        else:
            has_line = False
        new += entry
        offset += UNIT * ((entry[0] & 7) + 1)
    return bytes(new)
