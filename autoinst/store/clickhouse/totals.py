"""Questions to ClickHouse's totals: the same answers as store/totals.py has, over all homes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autoinst.record import INT64_MAX
from autoinst.store.clickhouse.client import literal
from autoinst.store.events import Statement
from autoinst.store.rollups import LEVELS, MINUTE_NS, Cell
from autoinst.store.totals import FAILED, HOUR_NS, JOBS, Deploy, Step, level, spans

if TYPE_CHECKING:
    from autoinst.store.clickhouse.client import Client

NS = 10**9
HOUR_SECONDS = 3600
MINUTE = 60  # seconds
FULL = 9.2e18  # a sum beyond that is kept as the largest number, as the home's own store does


def bounded(column: str) -> str:
    """Return the sum of a column that does not wrap around."""
    return f"if(sum(toFloat64({column})) >= {FULL}, toInt64({INT64_MAX}), sum({column}))"


CELL = (
    "sum(t.ok) AS n_ok, sum(t.error) AS n_error, sum(t.ignored) AS n_ignored, sum(t.killed) AS n_killed,"
    " sum(t.counted) AS n_counted, sum(t.counted_errors) AS n_counted_errors, "
    f"{bounded('t.total')} AS n_total, max(t.longest) AS n_longest, {bounded('t.queue_total')} AS n_queue_total,"
    " sum(t.left_out) AS n_left_out, sumMap(t.duration_keys, t.duration_counts) AS n_durations,"
    " sumMap(t.queue_keys, t.queue_counts) AS n_queue_times"
)


def cell_of(row: dict[str, Any]) -> Cell:
    """Return the totals of a row that has CELL."""
    return Cell(
        row["n_ok"],
        row["n_error"],
        row["n_ignored"],
        max(row["n_killed"], 0),
        row["n_counted"],
        row["n_counted_errors"],
        row["n_total"],
        row["n_longest"],
        dict(zip(*row["n_durations"], strict=True)),
        row["n_queue_total"],
        dict(zip(*row["n_queue_times"], strict=True)),
        row["n_left_out"],
    )


def grouped(
    client: Client, since_ns: int, until_ns: int, key: str, action: str | None = None
) -> dict[str | None, Cell]:
    """Return totals by `key`, "action" or "queue", of the jobs (of an action) started in that time, to the minute."""
    parts = [
        f"(t.minutes = {LEVELS[table]} AND t.at >= {start * LEVELS[table] * MINUTE}"
        f" AND t.at < {end * LEVELS[table] * MINUTE})"
        for table, start, end in spans(since_ns, until_ns)
    ]
    if not parts:
        return {}
    rows = client.rows(
        f"SELECT t.{key} AS name, {CELL} FROM total AS t FINAL WHERE ({' OR '.join(parts)}){_of_action(action)}"
        " GROUP BY name"
    )
    return {row["name"] or None: cell_of(row) for row in rows}


def series(client: Client, since_ns: int, until_ns: int, step_ns: int, action: str | None) -> dict[int, Cell]:
    """Return totals per step of `step_ns` (a multiple of a minute), by start of the step."""
    minutes, where = _steps(since_ns, until_ns, step_ns)
    step = step_ns // NS
    table = "overall" if action is None else "total"
    rows = client.rows(
        f"SELECT intDiv(t.at, {step}) * {step} AS step, {CELL} FROM {table} AS t FINAL WHERE t.minutes = {minutes}"
        f" AND {where}{_of_action(action)} GROUP BY step ORDER BY step"
    )
    return {row["step"] * NS: cell_of(row) for row in rows}


def action_steps(client: Client, since_ns: int, until_ns: int, step_ns: int) -> dict[str | None, list[Step]]:
    """Return numbers of jobs per action and step; steps without jobs are left out."""
    minutes, where = _steps(since_ns, until_ns, step_ns)
    step = step_ns // NS
    rows = client.rows(
        f"SELECT t.action AS name, intDiv(t.at, {step}) AS step, sum({_columns(JOBS)}) AS jobs,"
        f" sum({_columns(FAILED)}) AS failed FROM total AS t FINAL WHERE t.minutes = {minutes} AND {where}"
        " GROUP BY name, step ORDER BY name, step"
    )
    out: dict[str | None, list[Step]] = {}
    for row in rows:
        out.setdefault(row["name"] or None, []).append(Step(row["step"] * step_ns, row["jobs"], row["failed"]))
    return out


def _steps(since_ns: int, until_ns: int, step_ns: int) -> tuple[int, str]:
    minutes = LEVELS[level(step_ns)]
    unit = minutes * MINUTE_NS
    first, end = since_ns // unit * minutes * MINUTE, -(-until_ns // unit) * minutes * MINUTE
    return minutes, f"t.at >= {first} AND t.at < {end}"


def _columns(text: str) -> str:
    return " + ".join(f"t.{name}" for name in text.split(" + "))


def deploys(client: Client, since_ns: int, limit: int) -> list[Deploy]:
    """Return the revisions first seen since then on any host, the newest first."""
    rows = client.rows(
        "SELECT revision, service, min(first) AS since FROM deploy FINAL GROUP BY revision, service"
        f" HAVING since >= {since_ns} ORDER BY since DESC LIMIT {limit}"
    )
    return [Deploy(row["revision"], row["service"] or None, row["since"]) for row in rows]


def release(client: Client, revision: str, since_ns: int, until_ns: int, action: str | None) -> dict[str | None, Cell]:
    """Return totals per action (or of one) of the jobs of a revision, to the hour."""
    rows = client.rows(
        f"SELECT t.action AS name, {CELL} FROM release AS t FINAL"
        f" WHERE {hours(since_ns, until_ns)} AND t.revision = {literal(revision)}{_of_action(action)} GROUP BY name"
    )
    return {row["name"] or None: cell_of(row) for row in rows}


def statements(client: Client, since_ns: int, until_ns: int, action: str | None, limit: int) -> list[Statement]:
    """Return what the events inside jobs cost, to the hour, the most time first."""
    rows = client.rows(
        "SELECT t.name AS event, t.text AS words, bitAnd(cityHash64(event, words), 9223372036854775807) AS id,"
        f" sum(t.jobs) AS n_jobs, sum(t.times) AS n_times, {bounded('t.total')} AS n_total,"
        f" {bounded('t.own')} AS n_own,"
        " max(t.longest) AS n_longest, sum(t.repeats) AS n_repeats, argMax(t.worst, t.longest) AS n_worst,"
        " uniqExact(t.action) AS actions FROM statement AS t FINAL"
        f" WHERE {hours(since_ns, until_ns)}{_of_action(action)}"
        f" GROUP BY event, words ORDER BY n_total DESC LIMIT {limit}"
    )
    return [
        Statement(
            row["id"],
            row["event"],
            row["words"],
            row["n_jobs"],
            row["n_times"],
            row["n_total"],
            row["n_own"],
            row["n_longest"],
            row["n_repeats"],
            row["n_worst"],
            row["actions"],
        )
        for row in rows
    ]


def hours(since_ns: int, until_ns: int) -> str:
    """Return the condition that a row's hour is in that time."""
    return f"t.at >= {since_ns // HOUR_NS * HOUR_SECONDS} AND t.at < {-(-until_ns // HOUR_NS) * HOUR_SECONDS}"


def _of_action(action: str | None) -> str:
    return "" if action is None else f" AND t.action = {literal(action)}"
