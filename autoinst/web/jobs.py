"""The page that lists jobs: search, live, page after page; and those that run or were killed."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from autoinst.record import CSV_COLUMNS, INT64_MAX
from autoinst.store.query import JobFilter
from autoinst.store.search import STATUSES, WORDS, SearchError, parse
from autoinst.web.page import Page

if TYPE_CHECKING:
    from autoinst.record import Record
    from autoinst.web.page import Context

SECONDS = 1.2  # for one page of a search
SHOWN = 50
EXPORTED = 1_000
MOST = 20  # suggestions
# Label -> what it searches for.
TABS = {
    "All": "",
    "Failed": "status:error,killed",
    "Running": "status:running",
    "Ignored": "status:ignored",
    "Retried": "attempts>1",
    "Slow": "duration>1s",
}
_QUOTED = re.compile(r'("(?:[^"\\]|\\.)*")')
_TAB_TERM = re.compile(r"(?<!\S)(?:status:[\w,]+|attempts>1|duration>1s)(?!\S)")
_CURSOR = re.compile(r"(\d{1,19})\.(\d{1,39})")
_LAST_TERM = re.compile(r"(-?)([^\s]*)$")


def jobs(ctx: Context, *, limit: int = SHOWN) -> Page:
    """Show the jobs that `q` asks for, newest first."""
    text = ctx.get("q", 2_001)
    problem: SearchError | None = None
    records: list[Record] = []
    before, complete = None, True
    try:
        search = parse(text, ctx.now_ns)
    except SearchError as error:
        problem = error
    else:
        wanted = JobFilter(limit=limit, search=search, before=cursor(ctx.get("before", 60)))
        if ctx.query.get("from") or ctx.query.get("to") or ctx.query.get("range"):
            wanted = replace(wanted, since_ns=ctx.window.since_ns, until_ns=ctx.window.until_ns)
        records, before, complete = ctx.store.page(wanted, SECONDS)
        if wanted.before is None:
            flying = [record for record in ctx.flying_ones() if wanted.matches(record)]
            records = sorted([*flying, *records], key=lambda record: -record.started_ns)
    next_url = ctx.here(before=f"{before[0]}.{before[1]}") if before is not None else None
    return Page(
        "jobs.html",
        "Jobs",
        {
            "q": text,
            "problem": problem,
            "records": records,
            "tabs": tabs(ctx, text),
            "everything": not (ctx.query.get("from") or ctx.query.get("to") or ctx.query.get("range")),
            "next": next_url,
            "first": ctx.here() if ctx.get("before") else None,
            "complete": complete,
            "looked_until": before[0] if before and not complete else None,
            "words": WORDS,
            "anything": bool(ctx.store.last()) or bool(ctx.flying),
        },
        {
            "q": text,
            "error": None if problem is None else {"message": str(problem), "at": problem.at, "hint": problem.hint},
            "complete": complete,
            "before": f"{before[0]}.{before[1]}" if before else None,
            "jobs": [record.to_json() for record in records],
        },
        CSV_COLUMNS,
        [record.to_csv() for record in records],
        status=400 if problem is not None else 200,
        nav="jobs",
    )


def tabs(ctx: Context, text: str) -> list[tuple[str, str, bool]]:
    """Return (label, address, whether it is shown) of the searches people want most, the other terms of `text` kept."""
    parts = _QUOTED.split(text)
    parts[::2] = [_TAB_TERM.sub("", part) for part in parts[::2]]
    rest = "".join(parts).strip()
    out = []
    for label, term in TABS.items():
        wanted = f"{term} {rest}".strip()
        out.append((label, ctx.here(q=wanted or None), sorted(wanted.split()) == sorted(text.split())))
    return out


def cursor(text: str) -> tuple[int, int] | None:
    """Return the place in the list that `text` stands for, None if it is none."""
    found = _CURSOR.fullmatch(text)
    return (min(int(found[1]), INT64_MAX), int(found[2])) if found else None


def running(ctx: Context) -> Page:
    """Show the jobs in progress, each beside what its action usually takes, and those whose process died."""
    flying = ctx.flying_ones()
    usual: dict[str | None, float | None] = {}
    if flying:
        cells = ctx.store.totals(ctx.now_ns - 24 * 3600 * 10**9, ctx.now_ns)
        usual = {action: cell.percentile_ns(0.95) for action, cell in cells.items()}
    rows = []
    for record in flying:
        elapsed = max(ctx.now_ns - record.started_ns, 0)
        expected = usual.get(record.action)
        late = expected is not None and elapsed > 2 * expected
        rows.append({"record": record, "elapsed": elapsed, "usual": expected, "late": late})
    killed = list(
        ctx.store.jobs(
            JobFilter(
                limit=100,
                status=frozenset({"killed"}),
                since_ns=ctx.window.since_ns,
                until_ns=ctx.window.until_ns,
            )
        )
    )
    everything = [*flying, *killed]
    return Page(
        "running.html",
        "Running and killed",
        {"running": rows, "killed": killed, "anything": bool(ctx.store.last()) or bool(flying)},
        {
            "running": [record.to_json() for record in flying],
            "killed": [record.to_json() for record in killed],
        },
        CSV_COLUMNS,
        [record.to_csv() for record in everything],
        nav="running",
    )


def suggestions(ctx: Context) -> list[dict[str, Any]]:
    """Return how the search `q` may go on: whole searches, each with what its end means."""
    text = ctx.get("q", 500)
    found = _LAST_TERM.search(text)
    assert found is not None
    head, minus, word = text[: found.start()], found[1], found[2]
    key, colon, begun = word.partition(":")
    if not colon:
        return [
            {"value": f"{head}{minus}{name}{'' if name.endswith('.') else ':'}", "about": about}
            for name, about in WORDS.items()
            if name.startswith(word.casefold())
        ][:MOST]
    values = list(STATUSES) if key == "status" else ctx.store.values(key)
    begun = begun.lstrip('"').casefold()
    matching = [value for value in values if begun in value.casefold()]
    matching.sort(key=lambda value: not value.casefold().startswith(begun))
    return [{"value": f"{head}{minus}{key}:{quoted(value)} ", "about": ""} for value in matching[:MOST]]


def quoted(value: str) -> str:
    """Return `value` so that the search language takes it as it is."""
    if re.fullmatch(r"[\w./-]+", value) and "*" not in value and "#" not in value:
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
