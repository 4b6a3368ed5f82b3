from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoinst.rules.match import bad_pattern, is_everything, matches, matches_qualname, split_path


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.bc", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("a.*.c", "a.b.c", True),
        ("a.*Job", "a.MailJob", True),
        ("a.*Job", "a.Job", True),
        ("a.*Job", "a.JobX", False),
        ("a.s*d_*", "a.send_mail", True),
        ("a.aba*aba", "a.aba", False),
        ("a.**", "a", True),
        ("a.**", "a.b.c", True),
        ("a.**.z", "a.z", True),
        ("a.**.z", "a.b.c.z", True),
        ("a.**.z", "a.b.c.y", False),
        ("**.jobs.*", "x.y.jobs.Mail", True),
        ("**.jobs.**.run", "jobs.run", True),
        ("**.x.**.x.y", "x.x.x.y", True),
        ("**", "anything.at.all", True),
    ],
)
def test_star_stays_within_a_part_and_two_stars_cross(pattern: str, name: str, expected: bool) -> None:
    assert matches(pattern, name) is expected


@pytest.mark.parametrize(
    ("pattern", "qualname", "expected"),
    [
        ("C.*", "C.run", True),
        ("C.*", "C.__init__", False),
        ("C.__*", "C.__call__", True),
        ("C.__init__", "C.__init__", True),
        ("**", "f.<locals>.<lambda>", False),
        ("**", "f.<locals>.g", True),
        ("**.<lambda>", "f.<locals>.<lambda>", True),
        ("*", "f.<locals>.g", False),
        ("*", "__annotate__", False),
    ],
)
def test_wildcards_leave_dunders_and_made_up_names_alone(pattern: str, qualname: str, expected: bool) -> None:
    assert matches_qualname(pattern, qualname) is expected


def test_a_dotted_path_may_split_at_every_dot_and_a_colon_says_where() -> None:
    assert split_path("a.b.C.run", 2) == (("a.b", "C.run", False), ("a", "b.C.run", False))
    assert split_path("a.b.f") == (("a.b", "f", False), ("a", "b.f", False))
    assert split_path("a.b:C.run", 2) == (("a.b", "C.run", True),)
    assert split_path("a.b.make.<locals>.job")[0] == ("a.b.make", "<locals>.job", False)
    assert ("a.b", "make.<locals>.job", False) in split_path("a.b.make.<locals>.job")
    assert split_path("f") == ()


def test_two_stars_may_lie_across_the_border_of_module_and_name() -> None:
    found = split_path("a.**.Job.run", 2)
    for module, qualname in (("a", "Job.run"), ("a.b.c", "Job.run"), ("a", "Outer.Job.run"), ("a.b", "Outer.Job.run")):
        assert any(matches(m, module) and matches_qualname(q, qualname) for m, q, _ in found)


parts = st.text(alphabet="ab", min_size=0, max_size=4).filter(bool)
pattern_parts = st.one_of(
    st.just("**"), st.text(alphabet="ab*", min_size=1, max_size=4).filter(lambda t: "**" not in t)
)


def as_regex(pattern: str) -> str:
    whole = ""
    for at, part in enumerate(pattern.split(".")):
        dot = r"\." if at else ""
        if part == "**":
            # its own dots belong to it: any number of parts, each with the dot that joins it to what came before
            whole += rf"(?:{dot}[^.]+)*" if at else r"(?:[^.]+(?:\.[^.]+)*)?"
        else:
            whole += dot + re.escape(part).replace(r"\*", "[^.]*")
    return whole


@given(st.lists(pattern_parts, min_size=1, max_size=5), st.lists(parts, min_size=1, max_size=6))
def test_the_matcher_agrees_with_a_regular_expression(pattern: list[str], name: list[str]) -> None:
    # A leading `**` may stand for nothing, and then the next part has no dot before it.
    joined, dotted = ".".join(["x", *pattern]), ".".join(["x", *name])
    assert matches(joined, dotted) is (re.fullmatch(as_regex(joined), dotted) is not None)


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_texts_can_be_matched_and_judged(pattern: str, name: str) -> None:
    assert matches(pattern, name) in (True, False)
    assert isinstance(bad_pattern(pattern), (str, type(None)))
    assert is_everything(pattern) in (True, False)
    if bad_pattern(pattern) is not None:  # the loader asks that first
        return
    for module, qualname, _ in split_path(pattern):
        assert f"{module}.{qualname}".replace(".", "").replace("**", "") == pattern.replace(":", ".").replace(
            ".", ""
        ).replace("**", "")


def test_no_pattern_makes_the_matcher_take_exponential_time() -> None:
    pattern = ".".join(["**", "a"] * 30)
    began = time.perf_counter()
    assert not matches(pattern, ".".join(["a"] * 200 + ["b"]))
    assert not matches("*a" * 40 + "b", "a" * 5_000)
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize(
    ("pattern", "word"),
    [
        ("a..b", "empty part"),
        ("", "empty part"),
        ("a.b c", "not a Python name"),
        ("a/b.py", "not a Python name"),
        ("a.1b", "not a Python name"),
        ("a.**b", "within a part"),
        ("a:b:c", "more than one ':'"),
        ("a:", "needs a module"),
        (":b", "needs a module"),
    ],
)
def test_a_path_that_cannot_be_one_is_told(pattern: str, word: str) -> None:
    assert word in (bad_pattern(pattern) or "")


@pytest.mark.parametrize(
    "pattern", ["a", "a.b.C", "a:C", "*_job", "a.*1", "a.**.C", "a.f.<locals>.g", "a.<lambda>", "é.x"]
)
def test_a_path_that_can_be_one_is_taken(pattern: str) -> None:
    assert bad_pattern(pattern) is None
