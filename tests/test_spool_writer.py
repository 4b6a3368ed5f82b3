"""Single steps of the spool's writer, as a reader sees them. The whole of it is in test_spool_model.py."""

from __future__ import annotations

import marshal
from typing import TYPE_CHECKING

import pytest

from autoinst.spool.reader import Arena
from autoinst.spool.writer import Spool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEAD = ("shop.Mail#perform", "mail", 1, "background_job", "perform_job.python", None, "MainThread")


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(str(tmp_path / "spool"), lambda: {"service": "shop"})
    yield made
    for arena in made.arenas:
        arena.mm.close()
        arena.abandon()


@pytest.mark.parametrize("tail", [b"", marshal.dumps({"job_id": "1"}, 2)], ids=["nothing known", "job_id known"])
def test_a_job_does_not_begin_in_the_event_that_the_last_one_in_its_slot_ended_in(spool: Spool, tail: bytes) -> None:
    first = spool.begin(1, 1, 0.0, HEAD, tail)
    assert first is not None
    spool.mark_event(first, "query.sql")
    spool.discard(first)
    second = spool.begin(2, 2, 0.0, HEAD, tail)
    assert second is not None
    assert first[0] == second[0]
    (flight,) = Arena(bytes(second[1]), "x.arena").running()
    assert flight.last_event is None
