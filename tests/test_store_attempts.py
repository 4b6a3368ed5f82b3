"""Runs that their library does not number are numbered by the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from autoinst.record import Record
from autoinst.store.query import JobFilter
from autoinst.store.sqlite import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

START = 1_700_000_000 * 10**9


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(str(tmp_path / "store.sqlite3")) as opened:
        yield opened


def run(n: int, retries_left: Any, attempts: int | None = None, *, job_id: str | None = "flaky", status: str = "error"):
    record = Record(f"{n:032x}", status, START + n, action="shop.jobs#flaky", name="perform_job.rq")
    record.job_id, record.attempts, record.duration_ns = job_id, attempts, 5
    record.tags = {} if retries_left is None else {"retries_left": retries_left}
    return record


def put(store: Store, *records: Record) -> None:
    with store.transaction():
        store.insert(records)


def attempts(store: Store) -> list[int | None]:
    return [record.attempts for record in store.jobs(JobFilter(limit=0))][::-1]


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        pytest.param([[run(1, 2, 1), run(2, 1), run(3, 0)]], [1, 2, 3], id="together"),
        pytest.param([[run(1, 2, 1)], [run(2, 1)], [run(3, 0)]], [1, 2, 3], id="one after the other"),
        pytest.param([[run(3, 0), run(2, 1), run(1, 2, 1)]], [1, 2, 3], id="backwards"),
        pytest.param([[run(2, 1)], [run(1, 2, 1)]], [1, 2], id="the first one last"),
        pytest.param([[run(1, 5, 1), run(4, 1)]], [1, 5], id="some were recorded elsewhere"),
        pytest.param([[run(1, 2, 1), run(2, 2), run(3, 1)]], [1, 2, 3], id="a run that used up no retry"),
        pytest.param([[run(1, 1, 1), run(2, 0), run(3, 1, 1), run(4, 0)]], [1, 2, 1, 2], id="enqueued anew"),
        pytest.param([[run(2, 1), run(3, 0)]], [None, None], id="the first is unknown"),
        pytest.param([[run(1, None, 1), run(2, None)]], [1, None], id="nothing is told"),
        pytest.param([[run(1, "2", 1), run(2, [1])]], [1, None], id="not numbers"),
        pytest.param([[run(1, 2, 1, job_id=None), run(2, 1, job_id=None)]], [1, None], id="no job id"),
        pytest.param([[run(1, 2, 1), run(2, 1, job_id="other")]], [1, None], id="another job"),
        pytest.param(
            [[run(1, 2, 1)], [run(2, 1, status="killed")], [run(2, 1), run(3, 0)]],
            [1, 2, 3],
            id="an inferred end replaced",
        ),
    ],
)
def test_runs_are_counted_from_the_first(store: Store, batches: list[list[Record]], expected: list[int | None]) -> None:
    for batch in batches:
        put(store, *batch)
    assert attempts(store) == expected


def test_a_rollback_leaves_nothing_to_number(store: Store) -> None:
    def fail_inside() -> None:
        with store.transaction():
            store.insert([run(1, 1, 1)])
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    put(store, run(2, 0))
    assert attempts(store) == [None]


def test_only_the_latest_runs_of_an_id_are_looked_at(store: Store) -> None:
    put(store, run(1, 1, 1))
    put(store, *(run(n, 0) for n in range(2, 300)))
    assert attempts(store)[-2:] == [None, None]
    put(store, run(300, 1, 1), run(301, 0))
    assert attempts(store)[-2:] == [1, 2]
