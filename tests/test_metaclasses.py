"""Values of classes whose metaclass says what it likes: nothing that a rule does with them asks it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.harness import Program
from tests.test_hostile_values import RULES

if TYPE_CHECKING:
    from pathlib import Path


def test_no_class_is_asked_what_it_is(tmp_path: Path) -> None:
    program = Program(tmp_path)
    program.write("jobs.py", "def job(value, other=None):\n    pass\n")
    program.write("rules.yaml", RULES)
    program.write(
        "worker.py",
        """
        import jobs

        class Meta(type):
            def __eq__(cls, other):
                print("asked")
                return True
            def __hash__(cls):
                print("asked")
                return 1

        class Unhashable(type):
            __eq__ = Meta.__eq__

        for meta in (Meta, Unhashable):
            kind = meta("Kind", (), {})
            value = kind()
            value.x = kind()
            other = type("Task", (), {"x": value})
            for given in (value, other(), other, [value], {"a": value}):
                jobs.job(given, other=value)
                jobs.job(value, other=given)
        """,
    )
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.status, result.stdout, result.stderr) == (0, "", "")
    attributes = [record["tags"].get("attribute") for record in result.records]
    read, cannot = "#<__main__.Kind>", None  # a list and a dictionary have no such attribute
    assert attributes == [read, read, read, read, read, read, cannot, read, cannot, read] * 2


def test_no_class_is_asked_where_functions_are_looked_for(tmp_path: Path) -> None:
    program = Program(tmp_path)
    program.write(
        "odd.py",
        """
        class Meta(type):
            def __eq__(cls, other):
                print("asked")
                return False
            def __hash__(cls):
                print("asked")
                return 1

        class Odd(metaclass=Meta):
            def __call__(self, n):
                return n
            def job(self, n):
                return n
            @staticmethod
            def static(n):
                return n

        thing = Odd()

        class Holder:
            inner = thing
        """,
    )
    program.write("worker.py", "import odd\nprint(odd.thing(1), odd.thing.job(2), odd.Odd.static(3))\n")
    program.write(
        "rules.yaml",
        """
        version: 1
        jobs:
          - {module: odd, functions: [thing]}
          - {class: odd.Odd, methods: [job, static]}
          - {class: odd.Holder, methods: ["*"]}
          - {function: odd.Holder.inner}
        """,
    )
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.status, result.stdout, result.stderr) == (0, "1 2 3\n", "")
    assert [record["action"] for record in result.records] == ["odd#thing", "odd.Odd#job", "odd.Odd#static"]
