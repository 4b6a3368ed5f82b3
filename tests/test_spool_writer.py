"""Single steps of the spool's writer, as a reader sees them. The whole of it is in test_spool_model.py."""

from __future__ import annotations

import marshal
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from autoinst.spool import layout
from autoinst.spool.reader import Arena
from autoinst.spool.slots import OFFSET_BITS
from autoinst.spool.writer import Spool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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


def test_a_drain_that_dies_beside_a_chain_leaves_no_slot_unused(tmp_path):
    spool = Spool(str(tmp_path / "spool"), dict)
    head = ("A#b", None, 0, "background_job", "perform_job.python", None, None)
    for seq in range(1, 100):
        slot = spool.begin(seq, 1, 0.0, head, b"")
        assert slot is not None
        spool.finish(slot, seq, 1, 2, 0.0, layout.OK, 0, marshal.dumps({"args": ["x" * 4000]}, 2))
        arena = spool.arenas[0]
        reader = Arena(arena.mm, arena.path)
        reader.free(reader.done().slots[:1])  # one that is killed frees no more
    assert len(spool.arenas) == 1


def test_the_only_free_slot_of_an_arena_does_not_make_every_long_record_move(tmp_path):
    spool = Spool(str(tmp_path / "spool"), dict)
    slots = [spool.begin(seq, 1, 0.0, HEAD, b"") for seq in range(1, 40)]
    assert len(spool.arenas) == 2
    alone, *others = (slot for slot in slots if slot is not None)
    spool.discard(alone)  # the others of its arena are in use
    assert alone[0] >> OFFSET_BITS == 0
    arenas = []
    for seq in range(100, 104):
        slot = spool.begin(seq, 1, 0.0, HEAD, b"")
        assert slot is not None
        arenas.append(slot[0] >> OFFSET_BITS)
        spool.finish(slot, seq, 1, 2, 0.0, layout.OK, 0, marshal.dumps({"args": ["x" * 1500]}, 2))
    assert arenas == [0, 1, 1, 1]
    for slot in others:
        spool.discard(slot)
    done = [record for arena in spool.arenas for record in Arena(bytes(arena.mm), "x.arena").done().records]
    assert [record.args for record in done] == [["x" * 1500]] * 4


class SendsMail:
    def names(self, _thread: str) -> tuple[object, ...]:
        return HEAD


def claims_by_start(spool: Spool) -> None:
    spool.start(SimpleNamespace(slot=None), 1, 1, SendsMail(), "MainThread")  # type: ignore[arg-type]


def claims_by_begin(spool: Spool) -> object:
    return spool.begin(1, 1, 0.0, HEAD, b"")


@pytest.mark.parametrize("claim", [claims_by_start, claims_by_begin, Spool._claim])
def test_no_exception_is_being_handled_while_an_arena_is_made(tmp_path: Path, claim: Callable[[Spool], object]) -> None:
    # What a signal handler or a finalizer of the program raises at that moment would have it as its context.
    handled = []

    def describe() -> dict[str, str]:
        handled.append(sys.exc_info()[1])
        return {"service": "shop"}

    claim(Spool(str(tmp_path / "spool"), describe))
    assert handled == [None]


class Kind:
    def names(self, thread: str) -> Any:
        return (*HEAD[:6], thread)


@pytest.mark.parametrize("how", ["start", "begin", "amend"])
def test_a_job_in_progress_has_its_names_also_where_the_table_of_names_is_full(spool: Spool, how: str) -> None:
    assert spool.open()
    arena = spool.arenas[0]
    for size in (400, 40, 4, 1):
        number = 0
        while arena.intern(f"{number:0{size}}", 0):
            number += 1
    for _ in range(2):  # the second one finds nothing kept of the first
        job = SimpleNamespace(slot=None)
        if how == "start":
            spool.start(job, 1, 1, Kind(), "MainThread")
        else:
            job.slot = spool.begin(1, 1, 0.0, HEAD, b"")
        if how == "amend":
            job.slot = spool.amend(job.slot, 1, 1, 0.0, HEAD, marshal.dumps({"job_id": "7"}, 2))
        (flight,) = Arena(bytes(arena.mm), "x.arena").running()
        record = flight.record
        assert (record.action, record.namespace, record.name) == ("shop.Mail#perform", HEAD[3], HEAD[4])
        assert record.queue == "mail"
        assert record.job_id == ("7" if how == "amend" else None)
        spool.discard(job.slot)
