from __future__ import annotations

import os
import textwrap
from typing import TYPE_CHECKING

import pytest

from autoinst.rules.load import load_files

if TYPE_CHECKING:
    from pathlib import Path

    from autoinst.rules.model import RuleSet


def load(tmp_path: Path, text: str, packs: str = "none") -> RuleSet:
    file = tmp_path / "rules.yaml"
    file.write_text(textwrap.dedent(text), "utf-8")
    return load_files([str(file)], packs)[0]


def problems(tmp_path: Path, text: str) -> list[tuple[int, int, str, str | None]]:
    file = tmp_path / "rules.yaml"
    file.write_text(textwrap.dedent(text), "utf-8")
    return [(p.line, p.column, p.message, p.hint) for p in load_files([str(file)], "none")[1].problems]


@pytest.mark.parametrize(
    ("text", "line", "column", "message", "hint"),
    [
        ("jobs: []\n", 1, 1, "'version' is missing", "version: 1"),
        ("version: 2\n", 1, 10, "version '2' is not known", None),
        ("version: 1\njbos: []\n", 2, 1, "unknown key 'jbos'", "did you mean 'jobs'?"),
        ("version: 1\njobs: []\njobs: []\n", 3, 1, "duplicate key 'jobs'", "first at line 2"),
        ("version: 1\njobs: {}\n", 2, 7, "'jobs' must be a list", "- "),
        ("version: 1\njobs: [a.b.C]\n", 2, 8, "a rule of 'jobs' must be a mapping", None),
        ("version: 1\njobs: [{class: a.B, metods: [m]}]\n", 2, 21, "unknown key 'metods'", "did you mean 'methods'?"),
        ("version: 1\njobs: [{class: a.B}]\n", 2, 16, "'class' needs 'methods'", "methods: [name, ...]"),
        ("version: 1\njobs: [{class: a.B, methods: m}]\n", 2, 30, "'methods' must be a list, not 'm'", "write [m]"),
        ("version: 1\njobs: [{class: a.B, methods: []}]\n", 2, 30, "'methods' is empty", None),
        ("version: 1\njobs: [{class: B, methods: [m]}]\n", 2, 16, "'B' has no module", "some.module.B"),
        ("version: 1\njobs: [{class: a/b.py, methods: [m]}]\n", 2, 16, "not a Python name", "'a.b'"),
        ("version: 1\njobs: [{methods: [m]}]\n", 2, 8, "does not say what it means", "'function'"),
        (
            "version: 1\njobs: [{class: a.B, methods: [m], function: a.f}]\n",
            2,
            45,
            "'class' or 'function'",
            "two rules",
        ),
        ("version: 1\njobs: [{function: a.f, methods: [m]}]\n", 2, 33, "'methods' goes with 'class'", None),
        ('version: 1\njobs: [{class: "**", methods: ["*"]}]\n', 2, 16, "match every function of everything", None),
        ('version: 1\njobs: [{module: "*", functions: ["**"]}]\n', 2, 17, "match every function of everything", None),
        ('version: 1\njobs: [{function: "*.*"}]\n', 2, 19, "match every function of everything", None),
        (
            "version: 1\njobs: [{function: a.f, name: mail}]\n",
            2,
            30,
            "a job's name starts with 'perform_job'",
            "perform_job.mail",
        ),
        ("version: 1\njobs: [{function: a.f, name: perform_jobs}]\n", 2, 30, "a job's name starts with", None),
        (
            "version: 1\njobs: [{function: a.f, nested: nwe}]\n",
            2,
            32,
            "'nested' cannot be 'nwe'",
            "did you mean 'new'?",
        ),
        ("version: 1\njobs: [{function: a.f, unsafe: maybe}]\n", 2, 32, "'unsafe' must be true or false", None),
        ("version: 1\njobs: [{function: a.f, title: x}]\n", 2, 24, "unknown key 'title' in a rule of 'jobs'", None),
        ("version: 1\njobs: [{function: a.f, requires: {rq: 1.16}}]\n", 2, 39, "'1.16' is not a comparison", ">="),
        (
            "version: 1\njobs: [{function: a.f, payload: {quue: x}}]\n",
            2,
            34,
            "unknown key 'quue' in 'payload'",
            "'queue'",
        ),
        ("version: 1\njobs: [{function: a.f, payload: x}]\n", 2, 33, "'payload' must be a mapping", None),
        ("version: 1\njobs: [{function: a.f, tags: [x]}]\n", 2, 30, "'tags' must be a mapping", None),
        ("version: 1\njobs: [{function: a.f, tags: {a: [[x]]}}]\n", 2, 35, "must be a value", None),
        (
            'version: 1\njobs: [{function: a.f, tags: {a: "ab ${foo(x)}"}}]\n',
            2,
            40,
            "function 'foo' may not be called",
            None,
        ),
        ("version: 1\njobs: [{function: a.f, payload: {queue: {valu: x}}}]\n", 2, 42, "unknown key 'valu'", "'value'"),
        (
            "version: 1\njobs: [{function: a.f, payload: {queue: {value: x, unit: s}}}]\n",
            2,
            58,
            "'unit' is for times",
            None,
        ),
        (
            "version: 1\njobs: [{function: a.f, payload: {eta: {value: 5, unit: m}}}]\n",
            2,
            56,
            "'unit' cannot be 'm'",
            "s, ms, us, ns",
        ),
        (
            'version: 1\njobs: [{function: a.f, payload: {args: {value: "${result}", at: enter}}}]\n',
            2,
            40,
            "'args' reads 'result'",
            "leave out",
        ),
        ("version: 1\njobs: [{function: a.f, when: 1}]\n", 2, 30, "'when' must be an expression", None),
        ('version: 1\njobs: [{function: a.f, when: "${result}"}]\n', 2, 30, "'when' reads 'result'", None),
        ("version: 1\nexceptions: [{function: a.f}]\n", 2, 14, "needs 'exception'", None),
        ("version: 1\ncarries: [{function: a.f}]\n", 2, 11, "needs 'carry'", "into"),
        ("version: 1\ncarries: [{function: a.f, carry: x}]\n", 2, 34, "'carry' must be a mapping", "into"),
        ("version: 1\ncarries: [{function: a.f, carry: {}}]\n", 2, 34, "'carry' needs 'into'", "into"),
        ("version: 1\ncarries: [{function: a.f, carry: {into: x}}]\n", 2, 41, "must be an expression", None),
        ("version: 1\ncarries: [{function: a.f, carry: {info: x}}]\n", 2, 35, "unknown key 'info'", "'into'"),
        (
            "version: 1\ncarries: [{function: a.f, carry: {into: '${x}', form: csv}}]\n",
            2,
            55,
            "'form' cannot be 'csv'",
            "plain, text, sqs, sqs_batch",
        ),
        ("version: 1\ndefaults: {carry: maybe}\n", 2, 19, "'carry' must be true or false", None),
        ("version: 1\nenrich: [{function: a.f}]\n", 2, 10, "needs 'payload' or 'tags'", None),
        ("version: 1\ninclude: [nope.yaml]\n", 2, 11, "no such file", None),
        ("version: 1\npacks: [defalt]\n", 2, 9, "there is no pack 'defalt'", "did you mean 'default'?"),
        ("version: 1\ndefaults: {redat: [x]}\n", 2, 12, "unknown key 'redat' in 'defaults'", "'redact'"),
        ("version: 1\nservice: ${x}\n", 2, 10, "it cannot have expressions", None),
        ("- a\n", 1, 1, "a rules file is a mapping, not a list", "version: 1"),
    ],
)
def test_problems_have_place_and_hint(
    tmp_path: Path, text: str, line: int, column: int, message: str, hint: str | None
) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(text, "utf-8")
    found = load_files([str(file)], "none" if "packs:" not in text else None)[1].problems
    assert len(found) == 1, [p.one_line for p in found]
    (problem,) = found
    assert (problem.line, problem.column) == (line, column)
    assert message in problem.message
    assert (hint or "") in (problem.hint or "")


@pytest.mark.parametrize(
    ("line", "column", "hint"),
    [
        ("{title: ${x}}", 12, 'quote it: "${x}"'),
        ("[${a}]", 5, 'quote it: "${a}"'),
        ("[*_job]", 5, 'quote it if it is a pattern: "*_job"'),
        ("*_job", 4, 'quote it if it is a pattern: "*_job"'),
        ("*", 4, 'quote it: "*"'),
        ("[a, *]", 8, 'quote it: "*"'),
        ("${d[1: 2]}", 4, 'quote it: "${d[1: 2]}"'),
        ("{a: \"${ok}\", b: ${x['y']}}", 20, "quote it: \"${x['y']}\""),
        ("@x", 4, "quote the value"),
    ],
)
def test_yamls_traps_say_quote_it(tmp_path: Path, line: str, column: int, hint: str) -> None:
    found = problems(tmp_path, f"version: 1\nx: {line}\n")
    assert [(found[0][0], found[0][1])] == [(2, column)]
    assert hint in (found[0][3] or "")


def test_a_comment_that_cuts_an_expression_says_quote_it(tmp_path: Path) -> None:
    found = problems(tmp_path, "version: 1\njobs:\n  - function: a.f\n    tags:\n      a: ${d['x #1']}\n")
    assert found[0][:2] == (5, 10)
    assert "quote it, ' #' begins a comment: \"${d['x #1']}\"" in (found[0][3] or "")


def test_all_problems_come_in_one_pass_and_a_bad_rule_leaves_the_others(tmp_path: Path) -> None:
    text = """\
        version: 1
        srvice: x
        jobs:
          - {function: a.f, nmae: x, tags: {a: "${}"}}
          - {function: a.g}
          - {class: a.C}
          - {function: a.h}
        events: x
        """
    rules = load(tmp_path, text)
    assert [rule.where for rule in rules.rules] == ["rules.yaml:5", "rules.yaml:7"]
    assert [rule.index for rule in rules.rules] == [0, 1]
    assert [problem.split(": ")[0] for problem in rules.problems] == [
        "rules.yaml:2:1",
        "rules.yaml:4:21",
        "rules.yaml:4:43",
        "rules.yaml:6:13",
        "rules.yaml:8:9",
    ]
    assert rules.problems[1] == "rules.yaml:4:21: unknown key 'nmae' in a rule of 'jobs' (did you mean 'name'?)"


def test_a_problem_shows_the_line_a_caret_and_the_hint(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("version: 1\njobs:\n\t\n  - {function: a.f, nested: nwe}\n".replace("\t\n", ""))
    (problem,) = load_files([str(file)], "none")[1].problems
    assert problem.render().splitlines() == [
        f"{file}:3:29: error: 'nested' cannot be 'nwe'",
        "    3 |   - {function: a.f, nested: nwe}",
        "      |                             ^ did you mean 'new'?",
    ]
    assert problem.to_json() == {
        "file": str(file),
        "line": 3,
        "column": 29,
        "severity": "error",
        "message": "'nested' cannot be 'nwe'",
        "hint": "did you mean 'new'?",
        "source": "  - {function: a.f, nested: nwe}",
    }


def test_what_is_no_readable_file_is_one_problem(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"version: 1\nservice: caf\xe9\n")
    (tmp_path / "zero.yaml").write_bytes(b"version: 1\nservice: a\0b\n")
    (tmp_path / "deep.yaml").write_text("version: 1\njobs: " + "[" * 100_000)
    (tmp_path / "two.yaml").write_text("version: 1\n---\nversion: 1\n")
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "tab.yaml").write_text("version: 1\njobs:\n\t- function: a.f\n")
    names = ["missing.yaml", "pipe.yaml", "latin.yaml", "zero.yaml", "deep.yaml", "two.yaml", "tab.yaml", "empty.yaml"]
    rules, loader = load_files([str(tmp_path / name) for name in names], "none")
    assert rules.rules == ()
    shown = [problem.one_line for problem in loader.problems]
    assert len(shown) == len(names) - 1
    for one_line, expected in zip(
        shown,
        [
            "missing.yaml: no such file",
            "pipe.yaml: not a file",
            "latin.yaml:2:13: not UTF-8",
            "zero.yaml:2:",
            "deep.yaml:2:",
            "two.yaml:2:1: a second document begins",
            "tab.yaml:3:1: not YAML",
        ],
        strict=True,
    ):
        assert one_line.removeprefix(f"{tmp_path}{os.sep}").startswith(expected)
    assert "not YAML" in shown[3]
    assert "nested too deeply" in shown[4]
