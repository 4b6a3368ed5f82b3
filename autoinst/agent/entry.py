"""Enters into the store what was read of an arena, within the transaction of whoever calls."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoinst.agent.deaths import FIRST_PID_NAMESPACE
from autoinst.record import Killed
from autoinst.store.processes import ProcessInfo

if TYPE_CHECKING:
    from autoinst.agent.deaths import Deaths
    from autoinst.agent.intake import Taken
    from autoinst.record import Record
    from autoinst.spool.reader import InFlight
    from autoinst.store.sqlite import Store

SUMS = ("stored", "replaced", "known", "killed", "counted", "left_out", "torn", "quarantined", "unlinked")


@dataclass(slots=True)
class Counts:
    """What a step did, in records (`arenas`, `quarantined`, `unlinked`: files).

    `more` says that another step would find work at once.
    """

    stored: int = 0
    replaced: int = 0
    known: int = 0
    killed: int = 0
    counted: int = 0
    left_out: int = 0
    torn: int = 0
    quarantined: int = 0
    unlinked: int = 0
    arenas: int = 0
    more: bool = False

    def add(self, other: Counts) -> None:
        """Add a later step's numbers; `arenas` and `more` are the later step's."""
        for name in SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.arenas, self.more = other.arenas, other.more


def store_taken(store: Store, taken: Taken, process: int, found: Counts) -> None:
    """Store what is finished and counted in an arena."""
    arena, done = taken.arena, taken.done
    if done.records:
        inserted = store.insert(done.records, process)
        found.stored += inserted.new
        found.replaced += inserted.replaced
        found.known += inserted.known
    left_out = [*done.left_out, *(flight.record for flight in taken.flights if flight.left_out)]
    if left_out:
        found.left_out += store.count_left_out(arena.uid, left_out, process, freed=taken.source.seen_whole)
    if done.torn:
        found.torn += done.torn
        store.note_problem("torn", f"{taken.source.path}: records whose checksum is wrong", done.torn)
    if taken.overflow is not None:
        found.counted += store.set_counted(arena.uid, arena.overflow())
    if taken.status is not None:
        store.process_status(process, taken.status)


def enter_process(store: Store, taken: Taken, evidence: dict[bytes, int]) -> int:
    """Return the row of the arena's process, and gather in `evidence` until when it surely lived."""
    arena, header, source = taken.arena, taken.arena.header, taken.source
    process = source.process
    if process is None:
        info = ProcessInfo(header.process_uid, header.pid, header.created_ns, arena.description())
        process = store.enter_process(info)
    alive = max(evidence.get(header.process_uid, 0), source.alive_ns or 0, source.written_ns or 0, header.created_ns)
    for record in (*taken.done.records, *taken.done.left_out):
        alive = max(alive, record.started_ns + (record.duration_ns or 0))
    for flight in taken.flights:
        alive = max(alive, flight.record.started_ns + (flight.record.duration_ns or 0))
    alive = min(alive, time.time_ns())  # a clock may have been set back since, and a record may say anything
    evidence[header.process_uid] = alive
    store.process_seen(process, alive)
    return process


def killed_record(flight: InFlight, pid: int, cause: str | None, last_alive_ns: int, noticed_ns: int | None) -> Record:
    """Turn a job in flight into the record of a killed one.

    Its duration ends when its process was last known alive: the last record's end, the last start, the last write to
    the file, the last look that found its lease held. Where nothing of that is later than the job's own start, it ends
    when the death was noticed if this leader had seen the process alive (then it died within one interval of looking),
    and is unknown otherwise.
    """
    record = flight.record
    record.status = "killed"
    record.killed = Killed(pid, cause, flight.last_event)
    if flight.ended:  # it died while storing the job's end, whose duration was there already
        return record
    record.duration_ns = None
    if last_alive_ns > record.started_ns:
        record.duration_ns = last_alive_ns - record.started_ns
    elif noticed_ns is not None:
        record.duration_ns = max(noticed_ns - record.started_ns, 0)
    return record


def store_dead(
    store: Store, deaths: Deaths, taken: Taken, process: int, evidence: dict[bytes, int], found: Counts
) -> None:
    """Store what a dead process leaves: jobs whose end lacked only its last byte, and those that died with it."""
    header, verdict = taken.arena.header, taken.verdict
    uid = header.process_uid
    lost = [flight for flight in taken.flights if not flight.complete]
    cause = verdict.signal
    if lost and cause in (None, "SIGKILL") and verdict.how is None:  # this boot's kernel tells of this boot only
        # Its log has the pids of the first namespace; of another one's process only its cgroup tells.
        pid = header.pid if header.pid_namespace == FIRST_PID_NAMESPACE else None
        cause = deaths.cause(pid, header.start_time, taken.source.cgroup) or cause
    last_alive = max(evidence.get(uid, 0), store.last_seen(uid) or 0)
    noticed = time.time_ns() if taken.source.alive_ns is not None else None
    records = [flight.record for flight in taken.flights if flight.complete and not flight.left_out]
    records += [killed_record(flight, header.pid, cause, last_alive, noticed) for flight in lost]
    inserted = store.insert(records, process)
    found.stored += inserted.new
    found.replaced += inserted.replaced
    found.known += inserted.known
    found.killed += len(lost)
    store.process_seen(process, last_alive)
    store.process_ended(process, cause or verdict.how or ("killed" if lost else "gone"))
