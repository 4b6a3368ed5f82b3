"""The decorators of a module's functions are read from the few lines in question, and are those of the whole source."""

from __future__ import annotations

import contextlib
import functools
import http.cookiejar
import py_compile
import subprocess
import typing
import unittest.mock
import urllib.request
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from autoinst.hook.decorators import Decorators, decorators_of
from autoinst.hook.rewrite import functions
from tests.harness import Program

if TYPE_CHECKING:
    from pathlib import Path

MODULES = (contextlib, functools, http.cookiejar, subprocess, typing, unittest.mock, urllib.request)
ODD = '''
def task(*names, **options):
    return lambda function: function

@task("a",
  "@b",
    key=lambda x: x)
@staticmethod  # and a remark

def over_lines(): pass

class Class:
    @property
    def value(self):
        return 1

    @value.setter
    def value(self, new): pass

    @task(key="""
def no(): pass
""")
    def text(self):
        @task
        async def inside(): pass

    @(lambda f: f)
    def of_a_lambda(self): pass

    one = lambda self: 1; two = 2
'''


def read(source: str, file: str) -> tuple[Decorators, list[str]]:
    code = compile(source, file, "exec", dont_inherit=True)
    return Decorators(code, everything=True), [name for name, _ in functions(code)]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_they_are_those_of_the_whole_source(module: Any) -> None:
    with open(module.__file__, encoding="utf-8") as file:
        found, names = read(file.read(), module.__file__)
    expected = decorators_of(module.__file__)
    assert len(names) > 50
    for name, count in Counter(names).items():
        if count == 1 and name in expected:  # no lambda, nor what 3.12's `type` statement makes
            assert found.get(name) == expected[name], name


def test_odd_ones(tmp_path: Path) -> None:
    path = tmp_path / "odd.py"
    path.write_text(ODD)
    found, _ = read(ODD, str(path))
    assert found.get("over_lines") == ["task", "staticmethod"]
    assert found.get("Class.value") == ["property", "value.setter"]
    assert found.get("Class.text") == ["task"]
    assert found.get("Class.text.<locals>.inside") == ["task"]
    assert found.get("Class.of_a_lambda") == []
    assert found.get("task.<locals>.<lambda>") == []
    assert found.get("nothing") == []


def test_without_the_source_there_are_none() -> None:
    found, names = read(ODD, "/nowhere/odd.py")
    assert [found.get(name) for name in names] == [[]] * len(names)


def test_the_compilers_warnings_are_not_given_again(tmp_path: Path) -> None:
    program = Program(tmp_path)
    source = program.write(
        "jobs.py",
        'class Job:\n    x = property(id)\n    def perform(self):\n        return "\\d"\n    def call(self): pass\n',
    )
    rule = "{class: jobs.Job, methods: [perform]}, {decorated_by: task, module: jobs}"
    program.write("rules.yaml", f"version: 1\njobs: [{rule}]\n")
    program.write("worker.py", "import jobs\njobs.Job().perform()\n")
    with pytest.warns((SyntaxWarning, DeprecationWarning), match="escape"):
        py_compile.compile(str(source))  # plain Python warns no more
    result = program.run("-W", "always", "worker.py", AUTOINST_PACKS="none")
    assert (result.status, result.stderr) == (0, "")
    assert [record["action"] for record in result.records] == ["jobs.Job#perform"]
