"""The arena against a plain model: whatever a process does with its spool, a reader sees exactly that, at any moment.

Hypothesis makes up the story: jobs begin, learn more, end with short and long tails, are dropped; slots run out, arenas
are added or refused; a drain takes some, is killed between two slots, or does not come; an exception of a signal
handler lands anywhere in the writer; the process forks and the child has jobs of its own. The model is a few dicts.
"""

from __future__ import annotations

import contextlib
import dis
import marshal
import os
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from autoinst.agent import tally
from autoinst.spool import layout, slots, writer
from autoinst.spool.counted import Counted
from autoinst.spool.reader import Arena
from autoinst.spool.writer import Spool
from autoinst.store.histogram import bucket

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

    from autoinst.record import Record
    from autoinst.spool.slots import Slot

CELLS = 150  # kinds of jobs for which there is a cell each, in the arena and in the tally
SEGMENTS = (8, 16, 24)  # so small that a story of some dozen steps fills them
# No signal handler runs there, and CPython leaves the exception handled for ever when a trace function raises.
WRITER = (writer.__file__, slots.__file__)
HANDLER_EDGES = [dis.opmap[name] for name in ("PUSH_EXC_INFO", "POP_EXCEPT") if name in dis.opmap]
STATUS = {layout.OK: "ok", layout.ERROR: "error", layout.IGNORED: "ignored"}


class TimeLimitError(Exception):
    """What a signal handler raises."""


@dataclass(frozen=True)
class Job:
    """What the model knows of one job."""

    seq: int
    start: int
    action: str
    queue: str | None
    attempts: int
    thread: str
    args: str | None = None
    event: str | None = None
    status: int = layout.UNSET
    duration: int | None = None
    slot: Slot | None = field(default=None, compare=False)

    @property
    def head(self) -> tuple[str, str | None, int, str, str, None, str]:
        return (self.action, self.queue, self.attempts, "background_job", "perform_job.model", None, self.thread)

    @property
    def job_id(self) -> str:
        return f"job-{self.seq}"

    @property
    def tail(self) -> bytes:
        content: dict[str, Any] = {"job_id": self.job_id}
        if self.args is not None:
            content["args"] = [self.args]
        return marshal.dumps(content, 2)


actions = st.sampled_from(["a.Job#run", "b.Job#run", "ü.Job#perform"]) | st.integers(0, 80).map("many.Job{}#run".format)
actions |= st.integers(0, 30).map(lambda number: f"long.Job{number}#{'r' * 450}")
queues = st.none() | st.sampled_from(["mail", "q" * 400])
threads = st.integers(0, 60).map("Thread-{} (with a long name, as frameworks give them)".format)
# Sizes around what one slot, a chain and the longest chain hold.
texts = st.none() | st.builds(
    lambda size, letter: letter * size,
    st.sampled_from([0, 10, 380, 420, 440, 900, 4000, 12_000, layout.TAIL_MAX + 1000]) | st.integers(0, 3000),
    st.sampled_from("xyz"),
)
ends = st.tuples(st.sampled_from(sorted(STATUS)), st.integers(0, 2**40), texts)


class SpoolMachine(RuleBasedStateMachine):
    """One process with one spool."""

    def __init__(self) -> None:
        super().__init__()
        self.segments = layout.SEGMENTS
        layout.SEGMENTS = SEGMENTS  # type: ignore[assignment]
        self.home = tempfile.mkdtemp(prefix="autoinst-model-")
        self.spool = Spool(os.path.join(self.home, "spool"), lambda: {"service": "model"})
        self.numbers = iter(range(1, 1_000_000))
        self.open: dict[int, Job] = {}
        self.done: dict[str, Job] = {}
        self.stored: dict[str, Job] = {}
        self.counted: dict[str, list[Counted]] = {}
        self.readers: list[Arena] = []  # those of a drain that stays, with what they remember

    def teardown(self) -> None:
        layout.SEGMENTS = self.segments
        for arena in self.spool.arenas:
            arena.mm.close()
            arena.abandon()
        shutil.rmtree(self.home)

    # -- the process ------------------------------------------------------------------------------------------------

    @rule(action=actions, queue=queues, attempts=st.integers(0, 3), thread=threads, text=texts, early=st.booleans())
    def begin(
        self, action: str, queue: str | None, attempts: int, thread: str, text: str | None, *, early: bool
    ) -> None:
        job = Job(next(self.numbers), 1_700_000_000_000_000_000, action, queue, attempts, thread, text)
        if not early:
            job = replace(job, args=None)
        slot = self.spool.begin(job.seq, job.start, 1.5, job.head, job.tail)
        if slot is None:  # nothing but counting is left only where slots are used up or refused
            assert self.spool.problem or len(self.spool.arenas) == len(SEGMENTS)
        self.open[job.seq] = replace(job, slot=slot)

    @rule(jobs=st.integers(1, 60), action=actions, status=st.sampled_from(sorted(STATUS)), text=texts)
    def burst(self, jobs: int, action: str, status: int, text: str | None) -> None:
        for _ in range(jobs):
            job = Job(next(self.numbers), 1_700_000_000_000_000_000, action, None, 1, "T", None)
            slot = self.spool.begin(job.seq, job.start, 1.5, job.head, job.tail)
            job = replace(job, slot=slot, status=status, duration=job.seq, args=text)
            self.open[job.seq] = job
            self.store(job)
            self.finished(job)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), action=actions, queue=queues, text=texts)
    def amend(self, data: st.DataObject, action: str, queue: str | None, text: str | None) -> None:
        job = self.pick(data)
        job = replace(job, action=action, queue=queue, args=text)
        if job.slot is not None:
            slot = self.spool.amend(job.slot, job.seq, job.start, 1.5, job.head, job.tail)
            job = replace(job, slot=slot)
        self.open[job.seq] = job

    @precondition(lambda self: self.open)
    @rule(data=st.data(), name=st.sampled_from(["", "query.sql", "request.http"]))
    def mark(self, data: st.DataObject, name: str) -> None:
        job = self.pick(data)
        if job.slot is not None:
            self.spool.mark_event(job.slot, name)
            self.open[job.seq] = replace(job, event=name or None)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), end=ends)
    def finish(self, data: st.DataObject, end: tuple[int, int, str | None]) -> None:
        job = self.ended(data, end)
        self.store(job)
        self.finished(job)

    @precondition(lambda self: any(job.slot for job in self.open.values()))
    @rule(data=st.data(), end=ends, after=st.integers(0, 400))
    def finish_in_spite_of_a_time_limit(
        self, data: st.DataObject, end: tuple[int, int, str | None], after: int
    ) -> None:
        """As Transaction.finish does: what landed inside is kept until the record is stored."""
        job = self.ended(data, end, held=True)
        with time_limit(after), contextlib.suppress(TimeLimitError):
            self.store(job)
        assert job.slot is not None
        if self.spool.is_running(job.slot):
            self.store(job)
        self.finished(job)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        job = self.pick(data)
        del self.open[job.seq]
        if job.slot is not None:
            self.spool.discard(job.slot)

    @rule(limit=st.sampled_from([0, 1, 30_000, 200_000]))
    def limit(self, limit: int) -> None:
        """What all arenas may take changes, or the time has come to ask again."""
        self.spool.limit = limit
        self.spool._retry_at = 0.0

    @rule(jobs=st.integers(0, 12), left=st.integers(0, 3), text=texts)
    def fork(self, jobs: int, left: int, text: str | None) -> None:
        """A child does not touch what it inherited; its own jobs, the `left` last of them in flight, are its own."""
        pid = os.fork()
        if not pid:
            status = 1
            try:
                layout.SEGMENTS = self.segments
                for arena in self.spool.arenas:
                    arena.abandon()
                spool = Spool(self.spool.folder, dict)
                for n in range(jobs + left):
                    job = Job(n, 5, "child.Job#run", None, 1, "T", text)
                    slot = spool.begin(n, 5, 1.5, job.head, job.tail if len(job.tail) <= layout.TAIL_ROOM else b"")
                    if slot is not None and n < jobs:
                        spool.finish(slot, n, 5, 7, 1.5, layout.OK, 0, job.tail)
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        done, flying = [], 0
        for name in os.listdir(self.spool.folder) if os.path.isdir(self.spool.folder) else []:
            if name.startswith(f"{pid}-"):
                path = os.path.join(self.spool.folder, name)
                child = Arena.open(path)
                found = child.done()
                assert not found.torn
                done += found.records
                flying += len(child.running())
                child.close()
                os.unlink(path)
        assert sorted(str(record.job_id) for record in done) == sorted(f"job-{n}" for n in range(jobs))
        assert flying == left
        assert all(record.args == (None if text is None else [text]) for record in done if not record.truncated)

    # -- the drain --------------------------------------------------------------------------------------------------

    @rule(limit=st.none() | st.integers(1, 20), killed_after=st.none() | st.integers(0, 10))
    def drain(self, limit: int | None, killed_after: int | None) -> None:
        """Store what there is, then give the slots back, all or as many as its life lasts."""
        for arena in self.spool.arenas[len(self.readers) :]:
            self.readers.append(Arena(arena.mm, arena.path))
        for reader in self.readers:
            found = reader.done(limit)
            assert not found.torn
            for record in found.records:
                if record.id not in self.stored:
                    job = self.done[record.id]
                    self.check(record, job)
                    self.stored[record.id] = job
            reader.free(found.slots if killed_after is None else found.slots[:killed_after])
        if killed_after is not None:
            self.readers.clear()
        for ident in self.stored:
            self.done.pop(ident, None)

    # -- a reader at any moment -------------------------------------------------------------------------------------

    @invariant()
    def a_reader_sees_what_there_is(self) -> None:
        done: dict[str, Record] = {}
        running: dict[str, Any] = {}
        counted: list[Counted] = []
        for arena in self.spool.arenas:
            reader = Arena(bytes(arena.mm), arena.path)
            found = reader.done()
            assert not found.torn
            for record in found.records:
                assert record.id not in done
                done[record.id] = record
            for flight in reader.running():
                assert flight.record.job_id not in running
                running[str(flight.record.job_id)] = flight
            counted += reader.overflow()
        again = {ident for ident in done if ident in self.stored}  # left by a drain that was killed
        assert done.keys() - again == self.done.keys()
        for ident, job in self.done.items():
            self.check(done[ident], job)
        held = {job.job_id: job for job in self.open.values() if job.slot is not None}
        assert running.keys() == held.keys()
        for job_id, job in held.items():
            self.check_flight(running[job_id], job)
        self.check_counted(counted)

    def check(self, record: Record, job: Job) -> None:
        assert record.job_id == job.job_id
        assert (record.status, record.duration_ns, record.started_ns) == (STATUS[job.status], job.duration, job.start)
        self.check_names(record, job)
        if not record.truncated:
            assert record.args == (None if job.args is None else [job.args])
        else:
            assert len(job.tail) > layout.TAIL_ROOM

    def check_flight(self, flight: Any, job: Job) -> None:
        record = flight.record
        assert (flight.complete, flight.ended, record.started_ns) == (False, False, job.start)
        self.check_names(record, job)
        if len(job.tail) <= layout.TAIL_ROOM:
            assert record.args == (None if job.args is None else [job.args])
        assert flight.last_event == job.event or (flight.last_event is None and self.spool.crowded)

    def check_names(self, record: Record, job: Job) -> None:
        assert (record.attempts, record.queue_time_ms) == (job.attempts or None, 1.5)
        for found, wanted in ((record.action, job.action), (record.queue, job.queue)):
            assert found == wanted or (found is None and self.spool.crowded)
        assert record.thread in (job.thread, None)

    def check_counted(self, rows: list[Counted]) -> None:
        """What is in the arena's table, in the tally before there was an arena, and in memory before that."""
        told = tally.read(os.path.join(self.spool.folder, "tally"), None)
        if told:
            assert not told.last
            told.close()
            rows += told.rows
        for (action, failed, number), (count, sum_ns, max_ns) in self.spool.overflow._early.items():
            rows.append(Counted(action, count, count * failed, sum_ns, max_ns, {number: count}))
        jobs = [job for jobs in self.counted.values() for job in jobs]
        assert sum_up(rows) == sum_up(jobs)
        kinds = {(job.action, job.errors, *job.durations) for job in jobs}
        if len(kinds) <= CELLS:
            assert durations(rows) == durations(jobs)
        for row in rows:
            assert sum(row.durations.values()) == row.jobs
            if row.action is not None:  # one that is long has lost its end in the tally
                most = sum_up(next(known for name, known in self.counted.items() if name.startswith(row.action)))
                assert all(part <= whole for part, whole in zip(row[1:5], most, strict=True))

    # -- steps of the rules -----------------------------------------------------------------------------------------

    def pick(self, data: st.DataObject, *, held: bool = False) -> Job:
        return self.open[data.draw(st.sampled_from([n for n, job in self.open.items() if job.slot or not held]))]

    def ended(self, data: st.DataObject, end: tuple[int, int, str | None], *, held: bool = False) -> Job:
        status, duration, text = end
        return replace(self.pick(data, held=held), status=status, duration=duration, args=text)

    def store(self, job: Job) -> None:
        duration = job.duration or 0
        if job.slot is None:
            self.spool.overflow.add(job.action, job.status == layout.ERROR, duration)
        else:
            self.spool.finish(job.slot, job.seq, job.start, duration, 1.5, job.status, 0, job.tail)

    def finished(self, job: Job) -> None:
        del self.open[job.seq]
        if job.slot is None:
            took, failed = job.duration or 0, int(job.status == layout.ERROR)
            one = Counted(job.action, 1, failed, took, took, {bucket(took): 1})
            self.counted.setdefault(job.action, []).append(one)
        else:
            self.done[layout.record_id(self.spool.uid_of(job.slot), job.seq)] = job


def sum_up(rows: list[Counted]) -> tuple[int, int, int, int]:
    """Return jobs, errors, sum and maximum of the durations."""
    return (
        sum(row.jobs for row in rows),
        sum(row.errors for row in rows),
        sum(row.sum_ns for row in rows),
        max((row.max_ns for row in rows), default=0),
    )


def durations(rows: list[Counted]) -> Counter[int]:
    return sum((Counter(row.durations) for row in rows), Counter())


@contextlib.contextmanager
def time_limit(after: int) -> Any:
    """Raise TimeLimitError at the bytecode number `after` that the writer executes, as a signal handler would."""
    left = after

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in WRITER:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_code.co_code[frame.f_lasti] not in HANDLER_EDGES:
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise TimeLimitError
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


STORY = settings(
    max_examples=60,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


def test_a_time_limit_leaves_no_exception_handled(tmp_path: Path) -> None:
    # Else the tests that follow would find it as the context of theirs.
    claimed = 0
    for after in (10**6, *range(1000)):  # 3.12 tells of the bytecodes of a function from its second call on
        spool = writer.Spool(str(tmp_path / str(after)), lambda: {"service": "shop"})
        with contextlib.suppress(TimeLimitError), time_limit(after):
            spool._claim()
            claimed += 1
        assert sys.exc_info()[1] is None
        if claimed == 2:
            break
    assert (claimed, after > 10) == (2, True)


def test_a_reader_sees_what_the_process_did() -> None:
    run_state_machine_as_test(SpoolMachine, settings=STORY)


def tell(stories: int, steps: int) -> None:
    """Try so many stories of so many steps; `make kill` asks for more of them than the tests."""
    run_state_machine_as_test(SpoolMachine, settings=settings(STORY, max_examples=stories, stateful_step_count=steps))
