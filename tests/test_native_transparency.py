"""A program sees no difference between C code with a rule and without, but what a wrapper cannot hide.

data/transparency/natives.py asks about functions, methods, class methods, partials and objects that are called. What
differs is in DIFFERENCES, and docs/transparency.md says what it means for a user: a difference more or less fails here.
"""

from __future__ import annotations

import json
import shutil
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from tests.harness import Program
from tests.test_transparency import BEFORE_311, BEFORE_314, EVERYWHERE, SOURCES, VERSION

if TYPE_CHECKING:
    from pathlib import Path

RULES = """
version: 1
jobs:
  - {class: decimal.Decimal, methods: [from_float]}
  - {module: things, functions: [job, worker]}
events:
  - {class: sqlite3.Cursor, methods: [execute]}
  - {module: time, functions: [sleep]}
"""
KINDS = ("function", "method", "bound method", "class method", "partial", "object")
BOUND = ("bound method", "class method")
# What differs -> of which of the kinds.
BEFORE_313 = ((3, 10), (3, 12))
BY_KIND: dict[str, tuple[str, ...]] = {
    "type": KINDS,
    "help": ("partial", "object"),
    "__wrapped__": KINDS,
    "unwrap": KINDS,
    "is a descriptor": ("function", *BOUND, "object"),
    "ismethoddescriptor": ("function", *BOUND, "object"),
    "isroutine": ("object",),
    "__objclass__": BOUND,
    "weak reference": ("method",),
    "copy": ("method",),
    "deepcopy": ("method",),
    "settrace": KINDS,
    "setprofile": KINDS,
}
# What differs -> on which versions, from and to.
DIFFERENCES: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {
    **{f"{kind}: {question}": EVERYWHERE for question, kinds in BY_KIND.items() for kind in kinds},
    "method: help": BEFORE_314,
    # Partials are descriptors themselves since then.
    "partial: is a descriptor": BEFORE_313,
    "partial: ismethoddescriptor": BEFORE_313,
    "partial: isroutine": BEFORE_313,
    "same object": EVERYWHERE,
    "static": EVERYWHERE,
    "stack in a callback": EVERYWHERE,
    "traceback": BEFORE_311 if find_spec("wrapt._wrappers") is not None else EVERYWHERE,
}


def look(program: Program, *, instrumented: bool) -> dict[str, Any]:
    result = program.run("natives.py", instrumented=instrumented, AUTOINST_PACKS="none")
    assert (result.status, result.stderr) == (0, "")
    seen: dict[str, Any] = json.loads(result.stdout)
    return seen


def test_only_the_inherent_differences_are_seen(tmp_path: Path) -> None:
    program = Program(tmp_path)
    for name in ("natives.py", "things.py"):
        shutil.copy(SOURCES / name, program.folder)
    program.write("rules.yaml", RULES)
    plain, seen = look(program, instrumented=False), look(program, instrumented=True)
    assert list(plain) == list(seen)
    assert len(plain) >= 290
    differing = {name: (plain[name], seen[name]) for name in plain if plain[name] != seen[name]}
    expected = {name for name, (first, last) in DIFFERENCES.items() if first <= VERSION <= last}
    assert {name: both for name, both in differing.items() if name not in expected} == {}
    assert expected - differing.keys() == set()
    actions = {record["action"] for record in program.records()}
    assert actions >= {"decimal.Decimal#from_float", "things#job", "things#worker"}, sys.version
