from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoinst.config import Config
from autoinst.hook.registry import Registry
from autoinst.rules import keys, packs
from autoinst.rules.document import Document
from autoinst.rules.load import load_files
from autoinst.rules.match import matches_qualname
from autoinst.rules.model import MEMO_MAX, Rule, RuleSet
from autoinst.rules.parse import Parser

if TYPE_CHECKING:
    from pathlib import Path


def load(tmp_path: Path, text: str, packs: str = "none") -> RuleSet:
    file = tmp_path / "rules.yaml"
    file.write_text(textwrap.dedent(text), "utf-8")
    return load_files([str(file)], packs)[0]


def one_rule(tmp_path: Path, text: str, section: str = "jobs") -> Rule:
    rules = load(tmp_path, f"version: 1\n{section}:\n  - " + text.strip().replace("\n", "\n    "))
    assert rules.problems == []
    (rule,) = rules.rules
    return rule


def test_the_rules_of_the_readme(tmp_path: Path) -> None:
    rules = load(
        tmp_path,
        """\
        version: 1
        jobs:
          - class: shop.jobs.InvoiceMailer
            methods: [perform]
          - function: shop.tasks.send_email
          - class: __main__.Cleanup
            methods: [run]
        """,
    )
    assert rules.problems == []
    assert [rule.where for rule in rules.rules] == ["rules.yaml:3", "rules.yaml:5", "rules.yaml:6"]
    mailer, email, cleanup = rules.rules
    assert mailer.targets == (
        ("shop.jobs", "InvoiceMailer.perform", False),
        ("shop", "jobs.InvoiceMailer.perform", False),
    )
    assert (mailer.kind, mailer.name, mailer.namespace, mailer.nested) == (
        "job",
        "perform_job.python",
        "background_job",
        "event",
    )
    assert mailer.matches("shop.jobs", "InvoiceMailer.perform")
    assert not mailer.matches("shop.jobs", "InvoiceMailer.other")
    assert not mailer.matches("shop.other", "InvoiceMailer.perform")
    assert rules.wanted("shop.tasks") == (email,)
    assert rules.wanted("shop") == (mailer, email)
    assert rules.wanted("__main__") == (cleanup,)
    assert rules.wanted("other") == ()
    assert not rules.anywhere


def test_words_that_yaml_takes_for_booleans_and_numbers_are_names(tmp_path: Path) -> None:
    rule = one_rule(tmp_path, "class: a.B\nmethods: [on, off, yes, no, null_, 'y']")
    assert {target[1] for target in rule.targets if target[0] == "a"} == {
        f"B.{n}" for n in ("on", "off", "yes", "no", "null_", "y")
    }
    rules = load(tmp_path, "version: 1\nservice: on\nrevision: 1234e5\ndefaults: {redact: [no, 123], env: [HOME]}\n")
    assert rules.settings["service"] == "on"
    assert rules.settings["revision"] == "1234e5"
    assert rules.settings["redact"] == ("no", "123")


def test_a_rule_may_be_narrowed(tmp_path: Path) -> None:
    rule = one_rule(
        tmp_path, 'module: billing.**\nfunctions: ["send_*"]\nexclude: ["billing.**.send_nothing", "billing:send_x"]'
    )
    assert rule.matches("billing", "send_a")
    assert rule.matches("billing.a.b", "send_a")
    assert not rule.matches("billing.a.b", "send_nothing")
    assert not rule.matches("billing", "send_x")
    assert not rule.matches("billings", "send_a")
    rule = one_rule(tmp_path, "subclass_of: billing.base.Job\nmethods: [perform]\nrequires: {rq: '>=1.16,<3'}")
    assert rule.subclass_of == "billing.base.Job"
    assert rule.requires == {"rq": ">=1.16,<3"}
    assert rule.matches("billing.base", "Job.perform")
    rule = one_rule(tmp_path, "decorated_by: app.task\nmodule: billing.*")
    assert rule.decorated_by == "app.task"
    assert rule.targets == (("billing.*", "**", False),)
    rule = one_rule(tmp_path, "subclass_of: billing.base.Job\nmodule: plugins.**\nmethods: [run]")
    assert rule.targets == (("plugins.**", "**.run", False),)


def test_values_are_literals_expressions_alternatives_or_the_long_form(tmp_path: Path) -> None:
    rule = one_rule(
        tmp_path,
        """
class: a.B
methods: [m]
payload:
  queue: mail
  attempts: 3
  args: "3"
  job_id: ["${self.id}", none]
  enqueued_at: {value: "${self.at}", unit: ms, naive: local, at: enter}
  kwargs: ${result.kwargs}
tags: {a: "x-${y}", b: true, c: ~, d: 1.5, e: 0x10, f: -2, g: '', "on": 1}
when: ${self.real}
""",
    )
    fields = rule.fields
    assert {key: fields[key].literal for key in ("queue", "attempts", "args")} == {
        "queue": "mail",
        "attempts": 3,
        "args": "3",
    }
    assert fields["job_id"].source == "_first(lambda: _attr($self$, 'id'), lambda: 'none')"
    when = fields["enqueued_at"]
    assert (when.unit, when.naive, when.at, when.names) == ("ms", "local", "enter", ("self",))
    assert fields["kwargs"].at == "exit"
    assert [fields[f"tags.{name}"].literal for name in "bcdefg"] == [True, None, 1.5, "0x10", -2, ""]
    assert fields["tags.on"].literal == 1
    assert fields["when"].at == "enter"


def test_unsafe_values_wait_for_the_end_unless_they_say_otherwise(tmp_path: Path) -> None:
    rule = one_rule(
        tmp_path,
        'class: a.B\nmethods: [m]\nunsafe: true\nwhen: "${self.x}"\n'
        'payload: {queue: "${self.q}", job_id: {value: "${self.id}", at: enter}, attempts: 1}',
    )
    assert rule.unsafe
    assert {key: field.at for key, field in rule.fields.items()} == {
        "when": "enter",
        "queue": "exit",
        "job_id": "enter",
        "attempts": "enter",
    }
    assert rule.fields["queue"].source == "_uattr($self$, 'q')"


def test_every_section_has_its_kind_and_default_name(tmp_path: Path) -> None:
    for section, kind, name, extra in (
        ("jobs", "job", "perform_job.python", ""),
        ("events", "event", "call.python", "title: t"),
        ("exceptions", "exception", "", 'exception: "${exc}"'),
        ("enqueues", "enqueue", "enqueue.python", ""),
        ("carries", "carry", "", "carry: {into: '${x}'}"),
        ("enrich", "enrich", "", "tags: {a: 1}"),
    ):
        rule = one_rule(tmp_path, f"function: a.f\n{extra}", section)
        assert (rule.kind, rule.name) == (kind, name)


def test_ignored_exceptions_of_the_file_and_of_the_rule_add_up(tmp_path: Path) -> None:
    rules = load(
        tmp_path,
        """\
        version: 1
        ignore_exceptions: [celery.exceptions.Retry, "app.*"]
        jobs:
          - {function: a.f, ignore_exceptions: [KeyError]}
          - {function: a.g}
        """,
    )
    assert rules.rules[0].ignore == ("KeyError", "celery.exceptions.Retry", "app.*")
    assert rules.rules[1].ignore == ("celery.exceptions.Retry", "app.*")
    assert rules.settings["ignore"] == ("celery.exceptions.Retry", "app.*")


def test_includes_add_rules_and_fill_in_settings(tmp_path: Path) -> None:
    (tmp_path / "rules.d").mkdir()
    (tmp_path / "rules.d" / "b.yaml").write_text(
        "version: 1\nservice: other\nenvironment: test\njobs: [{function: b.f}]\n"
    )
    (tmp_path / "rules.d" / "a.yaml").write_text("version: 1\ninclude: [../rules.yaml]\njobs: [{function: a.f}]\n")
    rules = load(tmp_path, 'version: 1\nservice: mine\ninclude: ["rules.d/*.yaml"]\njobs: [{function: c.f}]\n')
    assert rules.problems == []
    assert [rule.where for rule in rules.rules] == ["rules.yaml:4", "a.yaml:3", "b.yaml:4"]
    assert [rule.index for rule in rules.rules] == [0, 1, 2]
    assert (rules.settings["service"], rules.settings["environment"]) == ("mine", "test")


def test_a_folder_is_its_yaml_files(tmp_path: Path) -> None:
    (tmp_path / "b.yml").write_text("version: 1\njobs: [{function: b.f}]\n")
    (tmp_path / "a.yaml").write_text("version: 1\njobs: [{function: a.f}]\n")
    (tmp_path / "c.txt").write_text("nonsense: [")
    rules, _ = load_files([str(tmp_path)], "none")
    assert [rule.where for rule in rules.rules] == ["a.yaml:2", "b.yml:2"]


words = st.sampled_from(
    [
        *(key.name for key in (*keys.TOP, *keys.RULE, *keys.PAYLOAD, *keys.LONG_FORM)),
        "1",
        "true",
        "~",
        "a.b.C",
        "${x}",
        "${",
        "*",
        "**",
        "a:b",
        ">=1",
    ]
)
trees = st.recursive(
    words,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.lists(st.tuples(words, inner), max_size=5)),
    max_leaves=25,
)


def as_yaml(tree: Any) -> str:
    if isinstance(tree, str):
        return '"' + tree + '"'
    if all(isinstance(item, tuple) for item in tree):
        return "{" + ", ".join(f'"{key}": {as_yaml(value)}' for key, value in tree) + "}"
    return "[" + ", ".join(as_yaml(item) for item in tree) + "]"


def check_any(text: str) -> None:
    document = Document("any.yaml", text)
    found = Parser(document).parse()
    for problem in document.problems:
        assert problem.line >= 1
        assert problem.column >= 1
        assert "\n" not in problem.one_line
        assert problem.render()
    for rule in found.rules:
        assert Rule(*rule.to_data()).to_data() == rule.to_data()


@given(st.text(max_size=120))
def test_any_text_is_read_or_has_problems(text: str) -> None:
    check_any(text)
    check_any("version: 1\njobs:\n  - " + text)


@given(st.lists(st.tuples(st.sampled_from(keys.SECTIONS), st.lists(trees, max_size=3)), max_size=3))
@settings(max_examples=200)
def test_any_tree_is_read_or_has_problems(sections: list[tuple[str, list[Any]]]) -> None:
    check_any("{version: 1, " + ", ".join(f"{name}: {as_yaml(tree)}" for name, tree in sections) + "}")


def test_a_rule_set_round_trips_through_marshal(tmp_path: Path) -> None:
    import marshal

    rules = load(tmp_path, 'version: 1\njobs: [{function: a.f, tags: {x: "${y}"}}, {module: "b.*", functions: [g]}]\n')
    again = RuleSet.from_data(marshal.loads(marshal.dumps(rules.to_data(), 2)))
    assert again.to_data() == rules.to_data()
    assert [rule.where for rule in again.wanted("b.c")] == ["rules.yaml:2"]
    for wrong in (None, (), (1, 2), (0, *rules.to_data()[1:]), (rules.to_data()[0], [], {}, [], (), {}, ())):
        with pytest.raises(ValueError):
            RuleSet.from_data(wrong)


def test_the_digest_is_that_of_the_content(tmp_path: Path) -> None:
    first = load(tmp_path, "version: 1\njobs: [{function: a.f}]\n").digest
    assert first == load(tmp_path, "version:   1\njobs: [{function: a.f}]\n").digest
    assert first != load(tmp_path, "version: 1\njobs: [{function: a.g}]\n").digest


def test_globs_are_found_by_head_and_thousands_of_rules_cost_nothing(tmp_path: Path) -> None:
    lines = [f"  - {{class: pkg{i}.jobs.J{i}, methods: [run]}}" for i in range(3000)]
    lines += ['  - {module: "billing.*", functions: [f]}', '  - {module: "*.tail", functions: [f]}']
    rules = load(tmp_path, "version: 1\njobs:\n" + "\n".join(lines) + "\n")
    assert rules.problems == []
    assert [rule.index for rule in rules.wanted("pkg7.jobs")] == [7]
    assert [rule.index for rule in rules.wanted("billing.tail")] == [3000, 3001]
    assert [rule.index for rule in rules.wanted("x.tail")] == [3001]
    assert rules.wanted("other.x") == ()
    assert rules.wanted("pkg7.jobs") is rules.wanted("pkg7.jobs")
    for i in range(MEMO_MAX + 10):
        rules.wanted(f"generated.m{i}")
    assert len(rules._memo) <= MEMO_MAX


def test_of_thousands_of_rules_only_those_of_the_packages_asked_for_are_unpacked(tmp_path: Path) -> None:
    lines = [f"  - {{module: shop.part{i}.*, functions: [f]}}" for i in range(3000)]
    lines += [f"  - function: other{i}.jobs.send" for i in range(10)]
    lines += ["  - {module: shop.**.last, functions: [f]}", "  - {module: shop.part*, functions: [f]}"]
    rules = load(tmp_path, "version: 1\njobs:\n" + "\n".join(lines) + "\n")
    assert rules.problems == []
    assert rules.wanted("elsewhere.part7.x") == ()
    assert not rules._indexes
    assert [rule.index for rule in rules.wanted("other3.jobs")] == [3003]
    assert set(rules._indexes) == {"other3"}
    assert [rule.index for rule in rules.wanted("shop.part7.x")] == [7]
    assert [rule.index for rule in rules.wanted("shop.part7.last")] == [7, 3010]
    assert [rule.index for rule in rules.wanted("shop.part7")] == [3011]
    assert [rule.index for rule in rules.wanted("shop.last")] == [3010]
    assert rules.wanted("shop") == ()
    assert set(rules._made) == {7, 3003, 3010, 3011}


def test_packs_are_chosen_by_name() -> None:
    builtin = {name: f"/{name}.yaml" for name in ("celery", "click", "rq")}
    for wanted, expected in (
        (None, ["celery", "rq"]),
        (["none"], []),
        (["-rq"], ["celery"]),
        (["default", "click"], ["celery", "rq", "click"]),
        (["rq"], ["rq"]),
        (["default", "-celery", "click", "-click"], ["rq"]),
        ([], ["celery", "rq"]),
    ):
        chosen, wrong = packs.choose(wanted, builtin)
        assert (list(chosen), wrong) == (expected, [])
    assert packs.choose(["-nope", "celry"], builtin)[1] == [
        (0, "there is no pack 'nope'", None),
        (1, "there is no pack 'celry'", "did you mean 'celery'?"),
    ]
    assert packs.words("default, click -rq") == ["default", "click", "-rq"]


def test_a_file_chooses_packs_unless_the_environment_does(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("version: 1\npacks: [none]\n")
    assert load_files([str(file)], None)[0].settings["packs"] == ()
    usual = tuple(name for name in packs.builtin_packs() if name not in packs.OPT_IN)
    assert load_files([str(file)], "default")[0].settings["packs"] == usual
    assert load_files([str(file)], "rq,none,rq")[0].settings["packs"] == ("rq",)
    assert load_files([], "qqqq")[0].problems == ["AUTOINST_PACKS: there is no pack 'qqqq'"]


def test_an_installed_pack_is_on_where_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "acme_jobs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-jobs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[autoinst.rules]\nacme = acme_jobs.rules\n")
    (tmp_path / "acme_jobs" / "rules").mkdir(parents=True)
    (tmp_path / "acme_jobs" / "rules" / "acme.yaml").write_text("version: 1\nservice: no\njobs: [{function: acme.f}]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    rules, _ = load_files([], "acme")
    assert [(rule.pack, rule.where) for rule in rules.rules] == [("acme", "acme.yaml:3")]
    assert rules.problems == ["acme.yaml:2:1: 'service' may not be in a pack"]
    assert rules.settings["service"] is None


def test_every_built_in_pack_is_right() -> None:
    names = packs.builtin_packs()
    assert "rq" in names
    for name in names:
        rules, loader = load_files([], name)
        assert loader.problems == []
        assert {rule.pack for rule in rules.rules} == {name}
        assert all(rule.name.startswith("perform_job.") and rule.requires for rule in rules.rules if rule.kind == "job")


def test_a_function_is_compared_only_with_rules_that_may_mean_it(tmp_path: Path) -> None:
    lines = [f"  - function: many.work{i}" for i in range(50)]
    lines += ["  - {module: many, functions: ['work1*']}", "  - {module: many, functions: [work7, 'Job.*']}"]
    lines += ["  - {class: many.Job, methods: [run]}", "  - function: many.work7"]
    rules = load(tmp_path, "version: 1\njobs:\n" + "\n".join(lines) + "\n")
    assert rules.problems == []
    candidates = Registry(rules, Config({}, str(tmp_path))).candidates("many", None)
    assert len(candidates) == 54
    for qualname in ("work7", "work12", "work49", "Job.run", "Job.__init__", "other"):
        meant = [state for state, patterns in candidates if any(matches_qualname(each, qualname) for each in patterns)]
        near = candidates.near(qualname)
        found = [state for state, patterns in near if any(matches_qualname(each, qualname) for each in patterns)]
        assert found == meant
        assert len(near) <= 5
    assert [state.rule.index for state, _ in candidates.near("work7")] == [7, 50, 51, 53]
