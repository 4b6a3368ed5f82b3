"""`autoinst explain`: what it says of a function is what the rules then do."""

from __future__ import annotations

import json
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from autoinst.cli import main as cli
from autoinst.rules.explain import ACTS, LEFT_OUT, SOMETIMES, explain
from autoinst.rules.load import load_files
from autoinst.rules.sources import Sources
from tests.harness import Program

if TYPE_CHECKING:
    from pathlib import Path

SHOP = """
import functools
import sqlite3
from sqlite3 import Cursor
from elsewhere import *


class Base:
    def perform(self):
        return 1

    @property
    def total(self):
        return 1


class Mailer(Base):
    pass


class Sms(Base):
    def perform(self):
        return 2

    def send(self):
        return 3


class Other:
    def perform(self):
        return 4


def task(function):
    return function


@task
def report():
    return 5


@functools.lru_cache
def cached():
    return 6


def make():
    def inner():
        return 7
    return inner


inner = make()
made = type("Made", (), {"perform": lambda self: 8})
"""
RULES = """
version: 1
jobs:
  - class: shop.jobs.Mailer
    methods: [perform]
  - subclass_of: shop.jobs.Base
    methods: [perform]
    payload: {queue: mail}
  - module: shop.jobs
    decorated_by: task
  - class: shop.jobs.Sms
    methods: [perform, sent]
  - class: shop.jobs.Base
    methods: [total]
  - function: shop.jobs.cached
    requires: {pyyaml: ">=999"}
  - module: shop.*
    functions: ["re*", cached]
    exclude: [shop.jobs.cached]
  - function: shop.jobs.make.<locals>.inner
events:
  - class: sqlite3.Cursor
    methods: [execute]
    name: query.sqlite
"""
LINES = RULES.splitlines()


def line_of(text: str) -> int:
    return next(number for number, line in enumerate(LINES, 1) if text in line)


@pytest.fixture
def shop(tmp_path: Path) -> Program:
    program = Program(tmp_path)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("from shop.jobs import Sms, report\n")
    (tmp_path / "shop" / "jobs.py").write_text(SHOP)
    (tmp_path / "elsewhere.py").write_text("")
    (tmp_path / "rules.yaml").write_text(RULES)
    return program


def decisions(shop: Program, path: str) -> dict[int, str]:
    """Return the decisions of the rules that name something of the module, by the line of each."""
    rules, _ = load_files([str(shop.folder / "rules.yaml")], "none")
    (found,) = explain(path, rules, Sources([str(shop.folder), *sys.path]))
    assert found.problem is None, found.problem
    return {int(verdict.rule.where.rpartition(":")[2]): verdict.decision for verdict in found.verdicts}


MAILER, BASES, TASKS = line_of("jobs.Mailer"), line_of("subclass_of"), line_of("module: shop.jobs")
SMS, TOTAL, REQUIRES = line_of("jobs.Sms"), line_of("class: shop.jobs.Base"), line_of("function: shop.jobs.cached")
GLOBS, INNER, EXECUTE = line_of("module: shop.*"), line_of("inner"), line_of("sqlite3.Cursor")


@pytest.mark.parametrize(
    ("path", "acting"),
    [
        ("shop.jobs:Mailer.perform", {MAILER: SOMETIMES, BASES: ACTS}),
        ("shop.jobs.Base.perform", {BASES: ACTS}),
        ("shop.jobs.Sms.perform", {BASES: ACTS}),
        ("shop.Sms.perform", {BASES: ACTS}),
        ("shop.jobs.Sms.send", {}),
        ("shop.jobs.Other.perform", {BASES: SOMETIMES}),
        ("shop.jobs.Base.total", {}),
        ("shop.jobs.report", {TASKS: ACTS}),
        ("shop:report", {TASKS: ACTS}),
        ("shop.jobs.cached", {}),
        ("shop.jobs:make.<locals>.inner", {INNER: ACTS}),
        ("sqlite3.Cursor.execute", {EXECUTE: ACTS}),
    ],
)
def test_the_acting_rules_are_those_the_hook_would_choose(shop: Program, path: str, acting: dict[int, str]) -> None:
    found = decisions(shop, path)
    assert {line: decision for line, decision in found.items() if decision != LEFT_OUT} == acting


@pytest.mark.parametrize(
    ("path", "line", "why"),
    [
        ("shop.jobs.Sms.perform", SMS, f"rules.yaml:{BASES} comes first"),
        ("shop.jobs.Sms.send", SMS, "names Sms.perform, Sms.sent there"),
        ("shop.jobs.Base.total", TOTAL, "is a property"),
        ("shop.jobs.cached", REQUIRES, "pyyaml >=999 is required"),
        ("shop.jobs.cached", GLOBS, "exclude: shop.jobs.cached"),
        ("shop.jobs.cached", TASKS, "decorated_by: task; it has @functools.lru_cache"),
        ("shop.jobs.report", GLOBS, f"rules.yaml:{TASKS} comes first"),
        ("shop.jobs.Mailer.perform", MAILER, "calls on objects of shop.jobs:Mailer"),
        ("shop.jobs.Other.perform", BASES, "calls on objects of shop.jobs.Base"),
    ],
)
def test_each_rule_says_why(shop: Program, path: str, line: int, why: str) -> None:
    rules, _ = load_files([str(shop.folder / "rules.yaml")], "none")
    (found,) = explain(path, rules, Sources([str(shop.folder), *sys.path]))
    (verdict,) = [each for each in found.verdicts if each.rule.where == f"rules.yaml:{line}"]
    assert why in verdict.why


@pytest.mark.parametrize(
    ("path", "problem", "hint"),
    [
        ("shop.jobs.Sms.prform", "'shop.jobs' has no 'Sms.prform'", "did you mean 'Sms.perform'?"),
        ("nosuch.thing", "no module 'nosuch'", "--path DIR"),
        ("shop.nosuch:thing", "no module 'shop.nosuch'", "--path DIR"),
        ("nomodule:x", "no module 'nomodule'", "--path DIR"),  # however like another module's name, as 'mdurl'
        ("shop.jbos:Sms.perform", "no module 'shop.jbos'", "did you mean 'shop.jobs'?"),
        ("shp.jobs:Sms.perform", "no module 'shp.jobs'", "did you mean 'shop.jobs'?"),
        ("elsewher:x", "no module 'elsewher'", "did you mean 'elsewhere'?"),
        ("shop.extr:x", "no module 'shop.extr'", "did you mean 'shop.extra'?"),
        ("__main__:thing", "which program is '__main__'?", "worker.py:function"),
        ("nosuch.py:thing", "no file 'nosuch.py'", None),
        ("shop.jobs:Other", None, None),
        ("elsewhere", "no rule acts on a function of elsewhere", None),
    ],
)
def test_what_is_not_there_is_said_with_a_way_out(
    shop: Program, path: str, problem: str | None, hint: str | None
) -> None:
    rules, _ = load_files([str(shop.folder / "rules.yaml")], "none")
    for name in ("mdurl", "jobs", "shap"):  # are nobody's here
        shop.write(f"other/{name}.py", "")
    shop.write("shop/extra.py", "")
    (found,) = explain(path, rules, Sources([str(shop.folder), str(shop.folder / "other"), *sys.path]))
    assert (found.problem or "").startswith(problem or "")
    assert (problem is None) == (found.problem is None)
    assert (hint or "") in (found.hint or "")


CALLS = {
    "shop.jobs:Mailer.perform": "shop.jobs.Mailer().perform()",
    "shop.jobs:Base.perform": "shop.jobs.Base().perform()",
    "shop.jobs:Sms.perform": "shop.jobs.Sms().perform()",
    "shop.jobs:Sms.send": "shop.jobs.Sms().send()",
    "shop.jobs:Other.perform": "shop.jobs.Other().perform()",
    "shop.jobs:report": "shop.report()",
    "shop.jobs:cached": "shop.jobs.cached()",
    "shop.jobs:make.<locals>.inner": "shop.jobs.make()()",
    "worker.py:main": "main()",
}


def test_a_run_bears_it_out_call_by_call(
    shop: Program, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = RULES.replace("events:", "  - function: __main__.main\nevents:")
    source = "import shop.jobs\n\ndef main():\n    return 9\n\n" + "\n".join(CALLS.values())
    (shop.folder / "rules.yaml").write_text(rules)
    (shop.folder / "worker.py").write_text(source)
    result = shop.run("worker.py", AUTOINST_PACKS="none")
    assert result.status == 0, result.stderr
    recorded = {record["action"]: record["rule"] for record in result.records}
    monkeypatch.chdir(shop.folder)
    monkeypatch.setenv("AUTOINST_HOME", str(shop.home))
    monkeypatch.setenv("AUTOINST_RULES", "rules.yaml")
    monkeypatch.setenv("AUTOINST_PACKS", "none")
    expected: dict[str, str] = {}
    cli.main(["explain", *CALLS, "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["path"] for line in lines] == list(CALLS)
    for line in lines:
        for row in line["rules"]:
            only = row["why"] or ""
            if row["decision"] == ACTS or (row["decision"] == SOMETIMES and "Mailer" in only):
                expected.setdefault(row["action"], row["rule"])
    assert recorded == expected
    running: list[dict[str, Any]] = [row["running"] for line in lines for row in line["rules"] if row["running"]]
    assert {row["status"] for row in running} >= {"patched"}


def test_it_is_readable_and_says_so_in_its_exit_status(
    shop: Program, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shop.folder)
    monkeypatch.setenv("AUTOINST_HOME", str(shop.home))
    monkeypatch.setenv("AUTOINST_PACKS", "none")
    assert cli.main(["explain", "shop.jobs.Mailer.perform", "--rules", "rules.yaml"]) == 0
    expected = f"""\
        shop.jobs:Base.perform  {shop.folder}/shop/jobs.py:9
          also shop.jobs:Mailer.perform
           RULE           KIND  DECISION
        ◐  rules.yaml:{MAILER}   job   opens a transaction, shop.jobs.Mailer#perform in background_job; only calls on\
 objects of shop.jobs:Mailer and its subclasses, which inherit it
        ✓  rules.yaml:{BASES}   job   opens a transaction, shop.jobs.Mailer#perform in background_job; with queue
        ○  rules.yaml:{TASKS}   job   decorated_by: task; it has no decorator
        """
    assert capsys.readouterr().out.startswith(textwrap.dedent(expected))
    assert cli.main(["explain", "shop.jobs.Sms.send", "--rules", "rules.yaml"]) == 1
    capsys.readouterr()
    assert cli.main(["explain", "shop.jobs", "--rules", "rules.yaml"]) == 0
    shown = capsys.readouterr().out
    assert [line.partition("  ")[0] for line in shown.splitlines() if line.startswith("shop.jobs:")] == [
        "shop.jobs:Base.perform",
        "shop.jobs:Sms.perform",
        "shop.jobs:Other.perform",
        "shop.jobs:report",
        "shop.jobs:make.<locals>.inner",
    ]
