"""Whatever a line of an import says: it is a job that the store takes and gives back, or it is said why it is none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoinst.record import Event, ExceptionInfo, Frame, Killed, Record
from autoinst.store.incoming import NotAJobError, parse
from autoinst.store.sqlite import Store

pytestmark = pytest.mark.once

JOB = Record("0123456789abcdef" * 2, "error", 10**18, action="a#b", queue="q", attempts=1, pid=7, job_id="j")
JOB.events = [Event("query.sql", "t", "SELECT 1", 5_000, 7_000, None)]
JOB.exception = ExceptionInfo("E", "m", [Frame("f.py", 1, "f", True)], [ExceptionInfo("F", "")])
JOB.killed, JOB.tags, JOB.enqueued_ns = Killed(7, "SIGKILL", "x"), {"retries_left": 3}, 10**17
EXTREME = [0, -1, 2**63, -(2**63), 10**400, 1e308, "", "\0", "\ud800", "9999-12-31T23:59:59Z", [], {}, True, "-1"]

values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(EXTREME)),
    lambda inside: st.one_of(st.lists(inside, max_size=4), st.dictionaries(st.text(), inside, max_size=4)),
    max_leaves=8,
)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to each value inside `value`."""
    pairs = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    return [way for key, inside in pairs for way in [(*path, key), *paths(inside, (*path, key))]]


PATHS = paths(JOB.to_json())


def taken(line: bytes) -> bool:
    """Return whether `line` is a job; then a store has it, and gives it back as a job that is equal."""
    try:
        record = parse(line)
    except NotAJobError:
        return False
    with Store.empty() as store:
        with store.transaction():
            assert sum(store.import_([record])) == 1
        found = store.job(record.id)
        assert found is not None
        again = json.dumps(found.to_json()).encode()
        with store.transaction():
            assert store.import_([parse(again)]).known == 1
    return True


@given(st.sampled_from(PATHS), values)
@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_any_value_in_any_place(path: tuple[Any, ...], value: Any) -> None:
    whole = json.loads(json.dumps(JOB.to_json()))
    inside = whole
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    taken(json.dumps(whole).encode())


@given(st.binary(max_size=200), st.integers(0, 1000), st.integers(0, 50))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_bytes(noise: bytes, at: int, cut: int) -> None:
    whole = json.dumps(JOB.to_json()).encode()
    taken(noise)
    taken(whole[:at] + noise + whole[at + cut :])


def test_it_itself_is_taken() -> None:
    assert taken(json.dumps(JOB.to_json()).encode())
    assert parse(json.dumps(JOB.to_json()).encode()).to_json() == JOB.to_json()
