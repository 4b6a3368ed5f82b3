"""Events of a job that nothing else is known of: its run keeps them, or hands them over to its transaction."""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import autoinst
import autoinst.testing
from autoinst.spool.writer import Spool
from autoinst.trace import run as runs
from autoinst.trace.context import current
from autoinst.trace.events import MAX_EVENTS
from autoinst.trace.run import Run
from autoinst.trace.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from autoinst.record import Record
    from autoinst.testing import Jobs

RULES = {
    "version": 1,
    "jobs": [{"function": f"{__name__}.job"}],
    "events": [
        {"function": f"{__name__}.step", "name": "step.shop"},
        {"function": f"{__name__}.titled", "name": "titled.shop", "title": "${title}"},
    ],
}


def job(body: Callable[[], Any]) -> Any:
    return body()


def step(body: Callable[[], Any] = int) -> Any:
    return body()


def titled(title: str) -> str:
    return title


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    with autoinst.testing.record(RULES) as recorded:
        yield recorded


@pytest.fixture
def unfolded(monkeypatch: pytest.MonkeyPatch) -> list[Transaction]:
    made: list[Transaction] = []
    real = Transaction.__init__

    def init(self: Transaction, *args: Any) -> None:
        real(self, *args)
        made.append(self)

    monkeypatch.setattr(Transaction, "__init__", init)
    return made


def told(record: Record) -> list[tuple[str, str | None, int | None]]:
    """Return names, titles and parents of a record's events, all of which have ended."""
    assert all(event.duration_ns is not None and event.duration_ns >= 0 for event in record.events)
    starts = [event.start_ns for event in record.events]
    assert starts == sorted(starts)
    return [(event.name, event.title, event.parent) for event in record.events]


def test_a_job_with_events_alone_never_becomes_a_transaction(jobs: Jobs, unfolded: list[Transaction]) -> None:
    assert job(lambda: (step(lambda: step(lambda: titled("a"))), step(), titled("b"))) == ("a", 0, "b")
    record = jobs.one()
    assert told(record) == [
        ("step.shop", None, None),
        ("step.shop", None, 0),
        ("titled.shop", "a", 1),
        ("step.shop", None, None),
        ("titled.shop", "b", None),
    ]
    assert (record.status, record.dropped_events, record.killed) == ("ok", 0, None)
    assert unfolded == []


def test_one_that_becomes_a_transaction_takes_its_events_along(jobs: Jobs, unfolded: list[Transaction]) -> None:
    def tag() -> None:
        assert type(current.get().parent) is Run  # type: ignore[union-attr]
        autoinst.Transaction.current().set_tags({"order": 7})
        titled("inside")

    job(lambda: (titled("before"), step(tag), titled("after")))
    record = jobs.one()
    assert told(record) == [
        ("titled.shop", "before", None),
        ("step.shop", None, None),
        ("titled.shop", "inside", 1),
        ("titled.shop", "after", None),
    ]
    assert record.tags == {"order": 7}
    assert len(unfolded) == 1


def test_a_job_that_raises_keeps_its_events(jobs: Jobs) -> None:
    with pytest.raises(ZeroDivisionError):
        job(lambda: step(lambda: 1 / 0))
    record = jobs.one()
    assert told(record) == [("step.shop", None, None)]
    assert record.status == "error"


@pytest.mark.parametrize("becomes", [False, True])
def test_more_events_than_are_kept_are_counted(jobs: Jobs, unfolded: list[Transaction], becomes: bool) -> None:
    def many() -> None:
        for number in range(MAX_EVENTS + 7):
            step()
            if becomes and number == MAX_EVENTS + 2:
                autoinst.Transaction.current().set_tags({})

    job(many)
    record = jobs.one()
    assert (len(record.events), record.dropped_events) == (MAX_EVENTS, 7)
    assert len(unfolded) == becomes


def test_text_beyond_the_limit_is_cut_and_counted(jobs: Jobs) -> None:
    def wordy() -> None:
        for _ in range(200):
            titled("x" * 1_000)

    job(wordy)
    record = jobs.one()
    assert {len(event.title or "") for event in record.events} == {200}
    assert len(record.events) + record.dropped_events == 200
    assert record.dropped_events > 0


@pytest.mark.parametrize("inside", [True, False])
def test_a_kill_tells_the_event_in_progress(jobs: Jobs, inside: bool) -> None:
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def die_inside() -> None:
        titled("x")
        die()

    def die_after() -> None:
        step()
        die()

    child = os.fork()
    if not child:
        job(partial(step, die_inside) if inside else die_after)
        os._exit(0)
    os.waitpid(child, 0)
    killed = jobs.one(status="killed").killed
    assert killed is not None
    assert killed.last_event == ("step.shop" if inside else None)


def test_a_forked_childs_copy_of_the_run_stores_nothing(jobs: Jobs) -> None:
    def forking() -> None:
        child = os.fork()
        if child:
            os.waitpid(child, 0)
        else:
            step()

    parent = os.getpid()
    job(lambda: (step(forking), step()))
    if os.getpid() != parent:
        os._exit(0)
    assert told(jobs.one()) == [("step.shop", None, None)] * 2


@pytest.mark.parametrize(
    ("owner", "name", "after"),
    [(runs, "tail_of_events", False), (runs, "leave", False), (Spool, "finish", False), (Spool, "finish", True)],
)
def test_a_time_limit_in_its_end_passes_and_loses_nothing(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, after: bool
) -> None:
    class LimitError(Exception):
        pass

    real = getattr(owner, name)

    def struck(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(owner, name, real)
        if after:
            real(*args, **kwargs)
        raise LimitError

    monkeypatch.setattr(owner, name, struck)
    with pytest.raises(LimitError):
        job(lambda: (step(), titled("a")))
    assert current.get() is None
    record = jobs.one()
    assert told(record) == [("step.shop", None, None), ("titled.shop", "a", None)]
    assert record.status == "ok"


def test_records_of_many_shapes_follow_one_another(jobs: Jobs) -> None:
    def shape(number: int) -> None:
        for _ in range(number):
            titled("t" * 200)

    for number in range(60):
        job(partial(shape, number % 6))
    assert sorted(len(record.events) for record in jobs) == sorted(n % 6 for n in range(60))
    assert {event.title for record in jobs for event in record.events} == {"t" * 200}


# -- where threads of one job meet; the other thread is what comes at the worst moment ---------------------------------


def test_two_threads_that_ask_at_once_get_the_same_transaction(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Transaction.__init__
    found: list[Transaction] = []

    def init(self: Transaction, *args: Any) -> None:
        monkeypatch.setattr(Transaction, "__init__", real)
        run = current.get()
        assert run is not None
        found.append(run.whole())
        real(self, *args)

    def body() -> None:
        monkeypatch.setattr(Transaction, "__init__", init)
        run = current.get()
        assert run is not None
        found.append(run.whole())
        found[0].set_tags({"from": "the other thread"})

    job(body)
    assert found[0] is found[1]
    assert jobs.one().tags == {"from": "the other thread"}


def test_a_transaction_made_while_the_run_is_stored_is_closed(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Spool.complete
    found: list[Transaction] = []
    inside: list[Run] = []

    def complete(self: Spool, *args: Any) -> None:
        found.append(inside[0].whole())
        real(self, *args)

    def body() -> None:
        run = current.get()
        assert isinstance(run, Run)
        inside.append(run)

    monkeypatch.setattr(Spool, "complete", complete)
    job(body)
    assert jobs.one().status == "ok"
    assert found[0].closed


class Late(list[Any]):
    """A list of events into which another thread puts one of its own before each."""

    def append(self, entry: Any) -> None:
        super().append(["other.shop", None, None, 0, 0, -1])
        super().append(entry)


def test_an_event_beside_another_threads_keeps_its_own_duration(jobs: Jobs) -> None:
    def body() -> None:
        run = current.get()
        assert isinstance(run, Run)
        step()
        run.events = Late(run.events or ())
        step(step)
        run.events = list(run.events)

    job(body)
    found = [(event.name, event.parent, event.duration_ns is not None) for event in jobs.one().events]
    assert found == [
        ("step.shop", None, True),
        ("other.shop", None, True),
        ("step.shop", None, True),
        ("other.shop", None, True),
        ("step.shop", 2, True),
    ]
