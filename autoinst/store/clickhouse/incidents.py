"""Errors by fingerprint on ClickHouse, over all homes, and what people say of them; as store/incidents.py has it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from autoinst.record import INT64_MAX
from autoinst.store.failures import STATES, ErrorGroup
from autoinst.store.totals import HOUR_NS

if TYPE_CHECKING:
    from autoinst.store.clickhouse.client import Client

FINGERPRINT_DIGITS = 16
NS = 10**9
ALL = 2**31 - 1
_GROUPS = (
    "SELECT fingerprint, argMax(class, last) AS of_class, argMax(message, last) AS text, argMin(action, first) AS"
    " of_action, argMin(frames, first) AS places, sum(count) AS number, min(first) AS since, max(last) AS latest,"
    " argMax(last_job, last) AS job FROM error FINAL WHERE count > 0{more} GROUP BY fingerprint"
)
_STATE = "if(said = '' OR said = 'open' OR (said = 'resolved' AND latest > changed), 'open', said) AS state"
_SELECT = (
    f"SELECT fingerprint, of_class, text, of_action, places, number, since, latest, job, said, {_STATE}"
    " FROM ({groups}) AS found ANY LEFT JOIN (SELECT fingerprint, state AS said, changed FROM incident FINAL) AS told"
    " USING fingerprint"
)


def errors(client: Client, *, since_ns: int | None, limit: int, state: str | None) -> list[ErrorGroup]:
    """Return error groups (of one of STATES, or all), the latest first."""
    wanted = f" AND state = '{state}'" if state in STATES else "" if state is None else " AND 0"
    rows = client.rows(
        f"SELECT * FROM ({_select()}) WHERE latest >= {since_ns or 0}{wanted}"
        f" ORDER BY latest DESC LIMIT {limit if limit > 0 else ALL}"
    )
    return [_group(row) for row in rows]


def error(client: Client, fingerprint: str) -> ErrorGroup | None:
    """Return the group with a fingerprint of 16 hexadecimal digits, None where there is none."""
    digits = fingerprint.lower()
    if len(digits) != FINGERPRINT_DIGITS or digits.strip("0123456789abcdef"):
        return None
    rows = client.rows(_select(f" AND fingerprint = {int(digits, 16)}"))
    return _group(rows[0]) if rows else None


def states(client: Client, since_ns: int) -> dict[str, int]:
    """Return how many groups seen since then are in each of STATES."""
    rows = client.rows(f"SELECT state, count() AS number FROM ({_select()}) WHERE latest >= {since_ns} GROUP BY state")
    return dict.fromkeys(STATES, 0) | {row["state"]: row["number"] for row in rows}


def set_state(client: Client, group: ErrorGroup, state: str, now_ns: int) -> None:
    """Put a group into one of STATES; raises ValueError for another."""
    if state not in STATES:
        raise ValueError(f"{state!r} is none of {', '.join(STATES)}")
    # The latest word replaces the others, also where a clock was ahead when one of them was said.
    last = client.one(f"SELECT max(changed) AS last FROM incident WHERE fingerprint = {group.id}") or 0
    row = {"fingerprint": group.id, "state": state, "changed": max(now_ns, last + 1), "count": group.total}
    client.insert("incident", [row])


def error_hours(client: Client, since_ns: int, group: int | None = None) -> dict[int, dict[int, int]]:
    """Return by id of the group how often it occurred, by start of the hour; of one group or of all."""
    one = "" if group is None else f" AND fingerprint = {group}"
    rows = client.rows(
        "SELECT fingerprint, at, sum(count) AS number FROM error_hour FINAL"
        f" WHERE at >= {since_ns // HOUR_NS * HOUR_NS // NS} AND count > 0{one} GROUP BY fingerprint, at ORDER BY at"
    )
    out: dict[int, dict[int, int]] = {}
    for row in rows:
        out.setdefault(row["fingerprint"], {})[row["at"] * NS] = row["number"]
    return out


def _select(more: str = "") -> str:
    return _SELECT.format(groups=_GROUPS.format(more=more))


def _group(row: dict[str, Any]) -> ErrorGroup:
    return ErrorGroup(
        row["fingerprint"],
        f"{row['fingerprint']:0{FINGERPRINT_DIGITS}x}",
        row["of_class"],
        row["text"],
        row["of_action"] or None,
        json.loads(row["places"]),
        row["number"],
        row["since"],
        min(row["latest"], INT64_MAX),
        row["job"],
        row["state"],
        row["state"] == "open" and row["said"] == "resolved",
    )
