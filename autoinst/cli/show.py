"""`autoinst show`: one job, with its events on a time line and its backtrace."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any

from autoinst.cli.output import Output, message
from autoinst.cli.reading import Home, short_id
from autoinst.config import from_environ
from autoinst.store import traces
from autoinst.web.sources import source
from autoinst.wording import ago, duration, exact, to_json

if TYPE_CHECKING:
    import argparse

    from autoinst.record import Event, ExceptionInfo, Frame, Record

LABEL_WIDTH = 10
BAR_WIDTH = 30
NAME_WIDTH = 48
MAX_TEXT = 2000  # characters of one value, SQL text or message


def run(options: argparse.Namespace) -> int:
    """Print the job `options.id` names; returns 0, or 1 where there is none or more than one."""
    with Home(from_environ()) as home:
        found = home.find(options.id)
        trace = home.trace(found[0]) if len(found) == 1 else []
    if not found:
        message(f"no job {options.id!r} in {home.path}; `autoinst jobs` lists them")
        return 1
    if len(found) > 1:
        message(f"{options.id!r} means more than one job; give more digits:")
        for record in found:
            message(f"  {record.id}  {record.status:8} {record.action or record.name}")
        return 1
    out = Output()
    if options.json:
        out.data(found[0].to_json())
    else:
        print_job(out, found[0], full=options.full)
        if len(trace) > 1:
            out.line()
            print_trace(out, trace, found[0])
    return 0


def print_job(out: Output, record: Record, *, full: bool) -> None:
    """Write everything known of a job; `full` shows the frames of libraries too."""
    out.line(f"{out.status(record.status)}  {out.style(record.action or record.name, 'bold')}")
    for label, text in facts(record):
        if text:
            out.line(f"  {out.style(label.ljust(LABEL_WIDTH), 'dim')} {clip(text, 0 if full else MAX_TEXT)}")
    if record.events or record.queue_time_ms:
        out.line()
        print_waterfall(out, record, full=full)
    if record.exception is not None:
        out.line()
        print_exception(out, record.exception, full=full)
    elif record.killed is not None:
        out.line()
        out.line(out.style(record.problem() or "", "magenta"))


def facts(record: Record) -> list[tuple[str, str | None]]:
    """Return what there is to say of a job as (label, text), None where a thing is unknown."""
    now = time.time_ns()
    started = f"{exact(record.started_ns)} ({ago(record.started_ns, now)})"
    place = " ".join(f"{word} {value}" for word, value in process_words(record) if value)
    waited = duration(record.queue_time_ms)
    took = duration(record.elapsed_ms(now))
    return [
        ("id", record.id),
        ("job id", record.job_id),
        ("name", record.name if record.namespace == "background_job" else f"{record.name} in {record.namespace}"),
        ("started", started),
        ("took", f"{took} so far" if took and record.status == "running" else took),
        ("queue", record.queue),
        ("enqueued", exact(record.enqueued_ns) if record.enqueued_ns is not None else None),
        ("waited", f"{waited} (the clocks disagree)" if waited and record.clock_skew else waited),
        ("attempt", None if record.attempts is None else str(record.attempts)),
        ("args", value_text(record.args)),
        ("kwargs", value_text(record.kwargs)),
        ("tags", value_text(record.tags or None)),
        ("params", value_text(record.params or None)),
        ("env", value_text(record.env or None)),
        ("process", place),
        ("rule", record.rule),
        ("trace", record.trace_id if record.trace_id != record.id else None),
        ("parent", record.parent_span_id),
        ("dropped", f"{record.dropped_events} events" if record.dropped_events else None),
        ("truncated", "some of it was too long to keep" if record.truncated else None),
    ]


def process_words(record: Record) -> list[tuple[str, Any]]:
    """Return where the job ran, as words with values that may be None."""
    return [
        ("pid", record.pid),
        ("on", record.host),
        ("thread", record.thread),
        ("service", record.service),
        ("environment", record.environment),
        ("revision", record.revision),
    ]


def value_text(value: Any) -> str | None:
    """Return arguments, tags and their like as JSON, None for None."""
    return None if value is None else to_json(value)


def clip(text: str, limit: int) -> str:
    """Return at most `limit` characters (0: all), saying how many are left out."""
    return text if not limit or len(text) <= limit else f"{text[:limit]} ... ({len(text) - limit} more characters)"


def print_waterfall(out: Output, record: Record, *, full: bool) -> None:
    """Write the wait in the queue and the events, each with its place on the job's time line.

    Neighbours that are alike are one line with their number, unless `full`.
    """
    total = record.elapsed_ms(time.time_ns()) or 0.0
    ends = [(event.start_ns + (event.duration_ns or 0)) / 1e6 for event in record.events]
    span = max([total, *ends, 0.001])
    if record.queue_time_ms:
        waited = duration(record.queue_time_ms)
        out.line(f"  {'waited in ' + (record.queue or 'the queue'):{NAME_WIDTH}} {waited:>10}")
    out.line(f"  {'the job':{NAME_WIDTH}} {duration(total) or '?':>10}  {bar(out, [(0, total)], span)}")
    placed = record.event_tree()
    while placed:
        event, depth = placed[0]
        look = appearance(event)
        same = itertools.takewhile(lambda other: appearance(other[0]) == look and other[1] == depth, placed)  # noqa: B023
        events = [event] if full else [member for member, _ in same]
        print_events(out, events, depth, span)
        placed = placed[len(events) :]


def appearance(event: Event) -> tuple[str, str | None, str | None]:
    """Return what a reader sees of an event beside its time."""
    return event.name, event.title, event.body


def print_events(out: Output, events: list[Event], depth: int, span: float) -> None:
    """Write one line for events that look alike, and their body below it; `span` in ms."""
    name, title, body = appearance(events[0])
    times = f" ({len(events)} times)" if len(events) > 1 else ""
    label = "  " * (depth + 1) + " ".join(f"{name} {title or ''}".split())
    label = out.cut(label, NAME_WIDTH - len(times)) + times
    parts = [(event.start_ns / 1e6, None if event.duration_ns is None else event.duration_ns / 1e6) for event in events]
    known = [length for _, length in parts if length is not None]
    took = duration(sum(known)) if len(known) == len(parts) else "unfinished"
    drawn = bar(out, [(start, span - start if length is None else length) for start, length in parts], span)
    out.line(f"  {label:{NAME_WIDTH}} {took:>10}  {drawn}")
    if body:
        out.line(f"  {'  ' * (depth + 2)}{out.style(clip(' '.join(body.split()), MAX_TEXT), 'dim')}")


def bar(out: Output, parts: list[tuple[float, float]], span: float) -> str:
    """Return a line of BAR_WIDTH cells, those of each (start, length) full; all in the same unit as `span`."""
    full, empty = ("█", "·") if out.unicode else ("#", ".")
    cells = [empty] * BAR_WIDTH
    for start, length in parts:
        first = max(0, min(int(start / span * BAR_WIDTH), BAR_WIDTH - 1))
        count = max(1, min(round(length / span * BAR_WIDTH), BAR_WIDTH - first))
        cells[first : first + count] = [full] * count
    return out.style("".join(cells), "cyan")


def print_trace(out: Output, trace: list[Record], shown: Record) -> None:
    """Write the jobs of a trace as a tree, across processes; the one that is `shown` is marked."""
    out.line(f"  {out.style('one trace', 'bold')}")
    for record, depth in traces.tree(trace):
        name = out.cut("  " * (depth + 1) + (record.action or record.name), NAME_WIDTH)
        took = duration(record.elapsed_ms(time.time_ns())) or "?"
        mark = "this one" if record.id == shown.id else short_id(record.id)
        wait = duration(record.queue_time_ms)
        waited = f"  waited {wait}" if wait else ""
        out.line(f"  {name:{NAME_WIDTH}} {took:>10}  {out.status(record.status)} {mark:12} pid {record.pid}{waited}")


def print_exception(out: Output, error: ExceptionInfo, *, full: bool) -> None:
    """Write an exception with its backtrace (innermost last), then what caused it."""
    print_one(out, error, "", full=full)
    for cause in error.causes:
        out.line()
        print_one(out, cause, "caused by ", full=full)


def print_one(out: Output, error: ExceptionInfo, lead: str, *, full: bool) -> None:
    """Write one exception; frames of libraries are folded into a count unless `full`."""
    first, *rest = clip(error.message, 0 if full else MAX_TEXT).splitlines() or [""]
    head = out.style(error.class_name, "red", "bold")
    out.line(f"{lead}{head}{': ' if first else ''}{first}")
    for line in rest:
        out.line(f"  {line}")
    folded = 0
    for frame in error.backtrace:
        if not frame.in_app and not full:
            folded += 1
            continue
        folded = say_folded(out, folded)
        print_frame(out, frame)
    say_folded(out, folded)


def say_folded(out: Output, count: int) -> int:
    """Write that `count` frames are not shown, if any; returns the new count, 0."""
    if count:
        frames = "frame" if count == 1 else "frames"
        out.line("  " + out.style(f"({count} {frames} of libraries, --full shows them)", "dim"))
    return 0


def print_frame(out: Output, frame: Frame) -> None:
    """Write a frame, and its source line where the file can be read here."""
    place = f"{frame.file}:{frame.line}"
    out.line(f"  {place} in {out.style(frame.function, 'bold')}")
    lines, _ = source(frame, 0) if frame.in_app else ([], False)
    for text in (text.strip() for _, text, is_it in lines if is_it):
        out.line(f"    {out.style(text, 'dim')}")
