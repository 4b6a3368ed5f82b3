"""Python 3.12's type statements: what they evaluate late is no function, whatever a glob says."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.harness import Program

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.version_info < (3, 12), reason="there are no type statements")

SHAPES = """
evaluated = []

def size(n: int) -> type:
    evaluated.append(n)
    return int

def around():
    return size

type Plain = size(1)
type Text = "text"
type Nothing = None
type Listed[T: size(2), U: (size(3), int), *V, **W] = list[T]

def Alias():
    return None

def generic[T: size(4)](x: T, *more: T) -> T:
    type Inner = size(5)
    return Inner

class Box[T: size(6)]:
    type Kept = tuple[Box, size(7)]

    def put[U: size(8)](self, item: U, also=lambda: size(9)) -> type:
        type Held = tuple[T, U, size(10)]
        return Held
"""
CONSTANTS = "\n".join(f"v{n} = {n + 1000}" for n in range(300))  # so that there are operands above 255

WORKER = """
import sys
from shapes import *
import shapes

print(evaluated)
inner, held = generic(1), Box().put(2)
print(evaluated)
for alias in (Plain, Text, Nothing, Listed, inner, held, Box.Kept):
    print(alias.__value__)
kinds = [getattr(kind, "__type_params__")[0] for kind in (Listed, generic, Box, Box.put)]
print([kind.__bound__ for kind in kinds], Listed.__type_params__[1].__constraints__)
print(Alias(), evaluated)
"""

RULES = """
version: 1
jobs:
  - {module: shapes, functions: ["**"], exclude: [shapes.size], nested: new}
"""


@pytest.mark.parametrize("mechanism", ["", "trampoline"])
@pytest.mark.parametrize("constants", ["", CONSTANTS])
def test_a_glob_means_no_type_statement(tmp_path: Path, constants: str, mechanism: str) -> None:
    program = Program(tmp_path)
    program.write("shapes.py", f"{constants}\n{SHAPES}")
    program.write("rules.yaml", RULES)
    program.write("worker.py", WORKER)
    plain = program.run("worker.py", instrumented=False)
    assert plain.stdout.startswith("[]\n[]\n")
    result = program.run("worker.py", AUTOINST_PACKS="none", AUTOINST_MECHANISM=mechanism or None)
    assert (result.status, result.stdout, result.stderr) == (plain.status, plain.stdout, plain.stderr)
    called = [record["action"] for record in result.records]
    assert called == ["shapes#generic", "shapes.Box#put", "shapes#Alias"]


def test_a_default_is_evaluated_late_too(tmp_path: Path) -> None:
    if sys.version_info < (3, 13):
        pytest.skip("they are new in 3.13")
    program = Program(tmp_path)
    program.write("shapes.py", "def job[T = print('late')]():\n    return 1\ntype Late[U = 1 / 0] = list[U]\n")
    program.write("rules.yaml", RULES)
    worker = "from shapes import *; print(job()); print(job.__type_params__[0].__default__)"
    result = program.run("-c", worker, AUTOINST_PACKS="none")
    assert (result.status, result.stdout, result.stderr) == (0, "1\nlate\nNone\n", "")
    assert [record["action"] for record in result.records] == ["shapes#job"]
