from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from autoinst.rules.check import check_files
from autoinst.rules.sources import Sources

if TYPE_CHECKING:
    from pathlib import Path

    from autoinst.rules.problems import Problem

FILES = {
    "shop/__init__.py": "from .jobs import InvoiceMailer as Mailer\nraise SystemExit('imported')\n",
    "shop/base.py": "class Job:\n    def perform(self): ...\n    def run(self, now): ...\n",
    "shop/jobs.py": """\
from shop import base
from shop.more import *
import collections, functools
try:
    import json
except ImportError:
    json = None
class InvoiceMailer(base.Job):
    def deliver(self, invoice, *, retries=0): ...
    @property
    def total(self): return 1
    @functools.cached_property
    def cached(self): return 1
    alias = lambda self: 1
    if True:
        async def conditional(self): ...
    class Inner:
        def go(self): ...
class Plain:
    class Inner:
        def go(self): ...
class Dicty(dict):
    def go(self): ...
class Unknown(made_somewhere()):
    pass
class Generic(base.Job[int], metaclass=type): ...
def send_email(to, *rest): ...
def send_sms(to): ...
def factory():
    def inner(x): ...
    return inner
made = factory()
""",
    "shop/more.py": "def starred(a): ...\nclass Starry:\n    def go(self): ...\n",
    "shop/dynamic.py": "def __getattr__(name): ...\n",
    "bad/broken.py": "def f(:\n",
    "shop/sub/__init__.py": "",
    "shop/sub/m.py": "def z(a): ...\nclass MailJob:\n    def perform(self): ...\n",
    "space/inner.py": "def f(): ...\n",
}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def check(program: Path, rules: str) -> list[Problem]:
    file = program / "rules.yaml"
    file.write_text(f"version: 1\njobs:\n{rules}\n")
    return check_files([str(file)], [str(program), *sys.path], "none")


@pytest.mark.parametrize(
    ("rule", "message", "hint"),
    [
        (
            "{class: shop.jobs.InvoiceMailer, methods: [delivr]}",
            "no method 'delivr' in class 'InvoiceMailer'",
            "'deliver'",
        ),
        ("{class: shop.jobs.InvoiceMailer, methods: [perfrom]}", "no method 'perfrom'", "'perform'"),
        ("{class: shop.Mailer, methods: [nope]}", "no method 'nope' in class 'InvoiceMailer' of 'shop.jobs'", "it has"),
        ("{class: shop.jobs.InvoiceMailer, methods: [total]}", "'total' is a property", None),
        ("{class: shop.jobs.InvoiceMailer, methods: [cached]}", "'cached' is a property", None),
        ("{class: shop.jobs.Dicty, methods: [update]}", "'update' is a method of the built-in type 'dict'", None),
        ("{class: shop.jobs.Dicty, methods: [nope]}", "no method 'nope'", "it has go"),
        ("{class: shop.jobs.Generic, methods: [perfor]}", "no method 'perfor'", "'perform'"),
        ("{class: shop.jobs.InvoiceMailr, methods: [x]}", "no class 'InvoiceMailr' in 'shop.jobs'", "'InvoiceMailer'"),
        (
            "{class: shop.jobs.Plain.Iner, methods: [go]}",
            "no class 'Plain.Iner'",
            "'Plain.Inner'",
        ),
        ("{class: shop.jobs:InvoiceMailr, methods: [x]}", "no class 'InvoiceMailr'", "'InvoiceMailer'"),
        ("{class: shop.jobs.send_sms, methods: [x]}", "'send_sms' of 'shop.jobs' is a function", "function:"),
        ("{class: shop.jobs, methods: [x]}", "'shop.jobs' is a module, not a class", None),
        ("{class: shp.jobs.X, methods: [x]}", "no module 'shp'", "'shop'"),
        ("{class: shop.jbs.X, methods: [x]}", "'shop.jbs' is neither a module nor defined in 'shop'", "'shop.jobs'"),
        ("{class: shop.jbs:X, methods: [x]}", "'shop.jbs' is neither a module nor", "'shop.jobs'"),
        ("{function: shop.jobs.send_emal}", "no function 'send_emal' in 'shop.jobs'", "'send_email'"),
        ("{function: shop.jobs.factory.<locals>.iner}", "no function 'factory.<locals>.iner'", "inner"),
        ("{function: shop.jobs.InvoiceMailer}", "'InvoiceMailer' is a class", "class:"),
        ("{function: shop.jobs}", "'shop.jobs' is a module, not a function", "functions:"),
        ("{function: shop.jobs.InvoiceMailer.total}", "'InvoiceMailer.total' is a property", None),
        ("{function: builtins.len}", "'builtins.len' is built in", "name the function of the program"),
        ("{module: shop.jobs, functions: [send_sms, send_sns]}", "no function 'send_sns'", "'send_sms'"),
        ('{module: shop.jobs, functions: ["post_*"]}', "no function 'post_*' in 'shop.jobs'", None),
        ('{class: "shop.**.*Jop", methods: [perform]}', "'shop.**.*Jop' matches nothing in shop, ", None),
        ('{class: "shp.**.*Job", methods: [perform]}', "no module 'shp'", "'shop'"),
        ("{subclass_of: shop.base.Jb, methods: [run]}", "no class 'Jb' in 'shop.base'", "'Job'"),
        ('{function: shop.jobs.send_sms, tags: {a: "${too}"}}', "'send_sms' has no parameter 'too'", "'to'"),
        ('{function: shop.jobs.send_sms, tags: {a: "${self.x}"}}', "'send_sms' has no parameter 'self'", "it has to"),
        (
            '{class: shop.Mailer, methods: [deliver], payload: {queue: {value: "x-${invoic}"}}}',
            "no parameter 'invoic'",
            "'invoice'",
        ),
        ('{module: "shop.sub.*", functions: [z], when: "${b}"}', "'shop.sub.*' has no parameter 'b'", "it has a"),
    ],
)
def test_what_the_program_does_not_have_is_a_problem(program: Path, rule: str, message: str, hint: str | None) -> None:
    found = check(program, f"  - {rule}")
    assert len(found) == 1, [problem.one_line for problem in found]
    assert message in found[0].message
    assert (hint or "") in (found[0].hint or "")
    assert found[0].line == 3
    assert found[0].column > 5
    assert "shop" not in sys.modules


@pytest.mark.parametrize(
    "rule",
    [
        "{class: shop.jobs.InvoiceMailer, methods: [deliver, perform, run, alias, conditional]}",
        "{class: shop.jobs.InvoiceMailer.Inner, methods: [go]}",
        "{class: shop.Mailer, methods: [deliver]}",
        "{class: shop.jobs:InvoiceMailer, methods: [deliver]}",
        "{class: shop.jobs.Starry, methods: [go]}",
        "{class: shop.jobs.Unknown, methods: [anything]}",
        "{class: shop.jobs.Generic, methods: [perform]}",
        "{class: shop.dynamic.Anything, methods: [x]}",
        "{class: bad.broken.Anything, methods: [x]}",
        "{class: __main__.Anything, methods: [x]}",
        "{function: shop.jobs.starred}",
        "{function: shop.jobs.made}",
        "{function: shop.jobs.factory.<locals>.inner}",
        "{function: shop.jobs.factory.<locals>.inner, payload: {queue: '${around}'}}",
        "{function: shop.jobs.InvoiceMailer.deliver}",
        "{function: space.inner.f}",
        "{function: json.dumps}",
        '{module: shop.jobs, functions: ["send_*", made]}',
        '{module: "shop.**", functions: [z]}',
        '{class: "shop.**.*Job", methods: [perform, "r*"]}',
        '{class: "**.*Job", methods: [perform]}',
        '{class: "__main__.*", methods: [perform]}',
        "{subclass_of: shop.base.Job, methods: [run, other]}",
        '{function: shop.jobs.send_email, tags: {a: "${to}", b: "${rest[0]}", d: "${now}", e: "${result}"}}',
        '{function: shop.jobs.send_email, tags: {a: "${args}", b: "${kwargs}", c: "${env}", d: "${exception}"}}',
        '{function: shop.jobs.send_email, tags: {a: ["${nope}", "${to}"]}}',
        '{class: shop.Mailer, methods: [deliver, run], tags: {a: "${self.x}", b: "${cls}"}}',
        '{function: nowhere.at.all, requires: {not-installed: ">=1"}}',
    ],
)
def test_what_it_has_or_may_have_is_none(program: Path, rule: str) -> None:
    assert [problem.one_line for problem in check(program, f"  - {rule}")] == []


def test_problems_of_the_file_and_of_the_program_come_in_one_pass_in_order(program: Path) -> None:
    found = check(
        program,
        "  - {function: shop.jobs.send_emal}\n"
        "  - {function: shop.jobs.send_sms, nmae: x}\n"
        "  - {class: shop.Mailer, methods: [total, nope]}",
    )
    assert [(problem.line, problem.column) for problem in found] == [(3, 16), (4, 36), (5, 36), (5, 43)]


def test_missing_and_unreadable_files_are_problems(program: Path) -> None:
    (found,) = check_files([str(program / "nope.yaml")], [str(program)])
    assert found.render() == f"{program}/nope.yaml: error: no such file"


def test_the_built_in_packs_are_not_checked_against_the_program(program: Path) -> None:
    (program / "rules.yaml").write_text("version: 1\n")
    assert check_files([str(program / "rules.yaml")], [str(program)]) == []


def test_a_search_in_zip_files_and_extension_modules(program: Path) -> None:
    import zipfile

    with zipfile.ZipFile(program / "lib.zip", "w") as archive:
        archive.writestr("zipped.py", "def f(): ...\n")
    sources = Sources([str(program / "lib.zip"), str(program)])
    zipped = sources.module("zipped")
    assert zipped is not None
    assert not zipped.is_source
    assert sources.module("nowhere") is None
    assert [module.name for module in sources.below("shop.sub")] == ["shop.sub", "shop.sub.m"]
