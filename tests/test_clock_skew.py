"""A job that was put on its queue by a machine whose clock is ahead: its queue time is 0, and said to be wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.servers import Redis
from tests.test_oldest import CASES
from tests.workers import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.service, pytest.mark.once]

# Library -> the environment of its newest version.
NEWEST = {"dramatiq": "queues", "kombu": "celery", "rq": "databases", "saq": "queues", "taskiq": "taskiq"}


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


@pytest.mark.parametrize("library", NEWEST)
def test_a_clock_that_is_ahead_is_told(redis: Redis, tmp_path: Path, library: str) -> None:
    case = CASES[library]
    url = redis.database(list(NEWEST).index(library))
    variables: dict[str, str | None] = {name: value.replace("SERVER", url) for name, value in case.variables.items()}
    worker = Worker(tmp_path / "program", NEWEST[library], case.files, variables)
    ahead, *words = case.ahead.split()
    worker.call("python", "ahead.py", ahead, *words)
    worker.start(*case.start.replace("SERVER", url).split())
    if case.by is not None:
        worker.wait_for_records(1)
    worker.stop_after(words[-1:], by=case.by)
    (record,) = worker.program.records()
    assert (record["status"], record["queue_time"], record["clock_skew"]) == ("ok", 0, True), worker.output
    assert record["enqueued_at"] > record["started_at"]
