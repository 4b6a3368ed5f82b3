"""The page of one job: its events on a time line, its backtrace, its other runs, and the jobs it belongs with."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autoinst.record import CSV_COLUMNS
from autoinst.store import traces
from autoinst.store.events import repeated, self_times, statement_text
from autoinst.store.failures import HOUR_NS, fingerprint
from autoinst.store.query import JobFilter
from autoinst.store.rollups import merge
from autoinst.web import sources
from autoinst.web.jobs import quoted
from autoinst.web.overview import is_query
from autoinst.web.page import Page, PageError
from autoinst.wording import duration, exact

if TYPE_CHECKING:
    from autoinst.record import Event, Record
    from autoinst.store.rollups import Cell
    from autoinst.web.page import Context

TRACE = 200
RUNS = 50
SLOW_NS = 100_000_000  # an event at least that long that takes SLOW_SHARE of its job is told of
SLOW_SHARE = 0.3
SCALE = 1000.0  # the width of a time line in its own units
MAX_ROWS = 400
RULER = 4  # parts of the time line
MAX_PARTS = 6


@dataclass
class Row:
    """Events in a row that look alike: `bars` are (x, width) of each, `own_ns` is without their children."""

    name: str
    title: str
    body: str
    depth: int
    count: int
    duration_ns: int | None
    own_ns: int
    bars: list[tuple[float, float]]
    kind: str


@dataclass(frozen=True)
class Fact:
    """Something that is known of a job; `search` finds the jobs that share it."""

    label: str
    value: str
    search: str = ""


@dataclass
class Member:
    """A job of a trace, indented below the one that enqueued it, with its wait and itself on the trace's time line."""

    record: Record
    depth: int
    wait: tuple[float, float] | None
    bar: tuple[float, float]


def job(ctx: Context, record_id: str) -> Page:
    """Show the job with that id."""
    stored = ctx.store.job(record_id)
    record = stored or next((one for one in ctx.flying if one.id == record_id), None)
    if record is None:
        raise PageError(404, "No such job", f"No job has the id {record_id[:40]!r}; it may be too old to be kept.")
    elapsed = record.elapsed_ms(ctx.now_ns)
    took_ns = 0 if elapsed is None else int(elapsed * 1e6)
    runs = runs_of(ctx, record)
    trace = ctx.store.trace(record.trace_id or record.id, TRACE)
    error = record.exception
    return Page(
        "job.html",
        record.action or record.name,
        {
            "job": record,
            "took_ns": took_ns,
            "known": elapsed is not None,
            "rows": waterfall(record, took_ns),
            "ruler": ruler(span_ns(record, took_ns)),
            "split": split(record, took_ns),
            "wait": waiting(record, took_ns),
            "given": given(record),
            "facts": facts(record),
            "notes": notes(record, took_ns),
            "traces": sources.chain(error, record.started_ns) if error else [],
            "fingerprint": fingerprint(error).hex() if error and record.status == "error" else None,
            "runs": runs,
            "trace": members(trace) if len(trace) > 1 else [],
            "usual": usual(ctx, record),
        },
        {**record.to_json(), "runs": [run.id for run in runs], "trace": [one.id for one in trace]},
        CSV_COLUMNS,
        [record.to_csv()],
        nav="jobs",
    )


def usual(ctx: Context, record: Record) -> Cell:
    """Return the totals of the action's last day."""
    found = ctx.store.series(ctx.now_ns - 24 * HOUR_NS, ctx.now_ns, step_ns=HOUR_NS, action=record.action or "")
    return merge(found.values())


def given(record: Record) -> list[tuple[str, Any]]:
    """Return what the job was called with, and what it or its rule said of it."""
    every = (
        ("Arguments", record.args),
        ("Keyword arguments", record.kwargs),
        ("Tags", record.tags or None),
        ("Parameters", record.params or None),
        ("Environment variables", record.env or None),
    )
    return [(label, value) for label, value in every if value is not None]


def facts(record: Record) -> list[Fact]:
    """Return what else is known of a job, each with the search for its like."""
    enqueued = exact(record.enqueued_ns) if record.enqueued_ns else None
    every: tuple[tuple[str, Any, str], ...] = (
        ("Enqueued", enqueued, ""),
        ("Queue", record.queue, "queue"),
        ("Service", record.service, "service"),
        ("Environment", record.environment, "environment"),
        ("Revision", record.revision, "revision"),
        ("Host", record.host, "host"),
        ("Process", record.pid, "pid"),
        ("Thread", record.thread, ""),
        ("Name", record.name, "name"),
        ("Namespace", record.namespace, ""),
        ("Rule", record.rule, ""),
        ("The library's id", record.job_id, "job"),
        ("Id", record.id, ""),
        ("Trace", record.trace_id, "trace"),
        ("Parent span", record.parent_span_id, ""),
    )
    return [
        Fact(label, str(value), f"{key}:{quoted(str(value))}" if key else "")
        for label, value, key in every
        if value is not None
    ]


def runs_of(ctx: Context, record: Record) -> list[Record]:
    """Return all runs of the same job, the first one first; only this one where the library names none."""
    if record.job_id is None:
        return [record]
    found = {one.id: one for one in ctx.flying if one.job_id == record.job_id and one.action == record.action}
    stored = ctx.store.jobs(JobFilter(limit=RUNS, job_id=record.job_id))
    found.update({one.id: one for one in stored if one.action == record.action})
    found[record.id] = record
    return sorted(found.values(), key=lambda one: one.started_ns)


def span_ns(record: Record, took_ns: int) -> int:
    """Return how long the time line is: the job and all its events."""
    return max([took_ns, *(event.start_ns + (event.duration_ns or 0) for event in record.events), 1])


def ruler(span: int) -> list[tuple[float, str, str]]:
    """Return what stands above the time line: (x in %, time, where the text begins)."""
    anchors = {0: "start", RULER: "end"}
    return [
        (100 * part / RULER, (duration(span * part / RULER / 1e6) or "") if part else "0", anchors.get(part, "middle"))
        for part in range(RULER + 1)
    ]


def split(record: Record, took_ns: int) -> list[dict[str, Any]]:
    """Return how the time is spent: (name, share, x and width in %, kind) of the events by name, then the rest."""
    own: dict[str, int] = {}
    for event, time in zip(record.events, self_times(record.events), strict=True):
        own[event.name] = own.get(event.name, 0) + time
    inside = sum(own.values())
    whole = max(took_ns, inside, 1)
    parts = sorted(own.items(), key=lambda item: -item[1])
    shown = [*parts[:MAX_PARTS], ("the job's own code", whole - inside)]
    if len(parts) > MAX_PARTS:
        shown.insert(MAX_PARTS, ("other events", sum(time for _, time in parts[MAX_PARTS:])))
    out, x = [], 0.0
    for name, time in shown:
        share = time / whole
        kind = "job" if name == "the job's own code" else kind_of(name)
        out.append({"name": name, "share": share, "x": round(x * 100, 2), "width": round(share * 100, 2), "kind": kind})
        x += share
    return out


def waterfall(record: Record, took_ns: int) -> list[Row]:
    """Return the events as a tree, neighbours that are alike as one row."""
    span = span_ns(record, took_ns)
    own = {id(event): time for event, time in zip(record.events, self_times(record.events), strict=True)}
    rows = []
    for key, members in itertools.groupby(record.event_tree(), lambda item: (*_look(item[0]), item[1])):
        events = [event for event, _ in members]
        known = [event.duration_ns for event in events if event.duration_ns is not None]
        rows.append(
            Row(
                key[0],
                key[1],
                events[0].body or "",
                key[3],
                len(events),
                sum(known) if len(known) == len(events) else None,
                sum(own[id(event)] for event in events),
                [_bar(event, span) for event in events],
                kind_of(key[0]),
            )
        )
    return rows[:MAX_ROWS]


def _look(event: Event) -> tuple[str, str, str]:
    return event.name, event.title or "", statement_text(event)


def _bar(event: Event, span: int) -> tuple[float, float]:
    x = min(max(event.start_ns / span * SCALE, 0.0), SCALE - 1)
    length = span - event.start_ns if event.duration_ns is None else event.duration_ns
    return round(x, 2), round(min(max(length / span * SCALE, 1.5), SCALE - x), 2)


def kind_of(name: str) -> str:
    """Return one of the kinds that events are coloured by."""
    if name.startswith("perform_job"):
        return "job"
    if is_query(name):
        return "query"
    return "request" if "request" in name or "http" in name else "other"


def waiting(record: Record, took_ns: int) -> float | None:
    """Return the share of the time since it was enqueued that the job waited, 0..1."""
    if not record.queue_time_ms or record.queue_time_ms <= 0:
        return None
    waited = record.queue_time_ms * 1e6
    return waited / (waited + max(took_ns, 1))


def notes(record: Record, took_ns: int) -> list[str]:
    """Return what stands out: a query for each row, slow events, a late start, what is missing from the record."""
    out = []
    for (name, text), count in repeated(record.events).items():
        what = f"{name}: {text}" if text else name
        out.append(f"{count} times the same: {what}. One query for each row (N+1)? Ask for all rows at once.")
    for event in record.events:
        long = event.duration_ns or 0
        if long >= SLOW_NS and long >= SLOW_SHARE * took_ns and is_query(event.name):
            out.append(f"Slow: {event.name} took {duration(long / 1e6)}, {long / max(took_ns, 1):.0%} of the job.")
    if record.clock_skew:
        out.append("It seems to have started before it was enqueued: the clocks of two machines disagree.")
    if record.dropped_events:
        out.append(f"{record.dropped_events} more events were not kept: there were too many.")
    if record.truncated:
        out.append("Some of it was too long to keep whole.")
    return out


def members(trace: list[Record]) -> list[Member]:
    """Return a trace's jobs as a tree."""
    begin = min(record.started_ns - int(max(record.queue_time_ms or 0.0, 0.0) * 1e6) for record in trace)
    end = max(record.started_ns + (record.duration_ns or 0) for record in trace)
    span = max(end - begin, 1)
    return [_member(record, depth, begin, span) for record, depth in traces.tree(trace)]


def _member(record: Record, depth: int, begin: int, span: int) -> Member:
    x = (record.started_ns - begin) / span * SCALE
    wide = max((record.duration_ns or 0) / span * SCALE, 2.0)
    waited = (record.queue_time_ms or 0.0) * 1e6 / span * SCALE
    wait = (round(x - waited, 2), round(waited, 2)) if waited > 1 else None
    x = min(x, SCALE - 2)
    return Member(record, min(depth, 8), wait, (round(x, 2), round(min(wide, SCALE - x), 2)))
