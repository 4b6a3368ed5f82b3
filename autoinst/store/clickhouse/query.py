"""Questions about jobs on ClickHouse: the same as store/query.py answers.

First the keys of the jobs that fit, from light columns and without merging; then their whole rows, by key, as they are
now: a version that fitted and has been replaced since is left out.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from autoinst.store.clickhouse import rows as jobrows
from autoinst.store.clickhouse.client import literal
from autoinst.store.clickhouse.conditions import HALF_BITS, of_filter, of_prefix, of_suffix
from autoinst.store.query import FIRST_WINDOW_NS, WINDOW_GROWTH, Page
from autoinst.store.reader import SlowStoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from autoinst.record import Record
    from autoinst.store.clickhouse.client import Client
    from autoinst.store.query import JobFilter

    Row = dict[str, Any]
    Place = tuple[int, int]  # start and id of the job that was looked at last

PIECE = 2_000  # jobs read at once where all are wanted
SPARE = 10  # keys read beyond those asked for, since some may be there in several versions
KEYS = "start, id_high, id_low, version"
ORDER = "ORDER BY start DESC, id_high DESC, id_low DESC"


def jobs(client: Client, wanted: JobFilter) -> Iterator[Record]:
    """Yield the jobs that `wanted` asks for, newest start first."""
    left = wanted.limit if wanted.limit > 0 else None
    for row, record in _matching(client, wanted, left):
        if left is not None and left <= 0:
            return
        if _fits(row, wanted):
            yield record
            left = None if left is None else left - 1


def page(client: Client, wanted: JobFilter, seconds: float) -> Page:
    """Return `wanted.limit` jobs, looking for no more than `seconds`: window after window back in time."""
    deadline = time.monotonic() + seconds
    found: list[Record] = []
    place = wanted.before
    try:
        with client.limited(seconds):
            for window in _windows(client, wanted):
                for row, record in _matching(client, window, wanted.limit + 1):
                    if _fits(row, wanted):
                        if len(found) == wanted.limit:
                            return Page(found, place, complete=True)
                        found.append(record)
                    place = place_of(row)
                    if time.monotonic() > deadline:
                        return Page(found, place, complete=False)
                if window.since_ns is not None:
                    place = (window.since_ns, 0)
    except SlowStoreError:
        return Page(found, place, complete=False)
    return Page(found, None, complete=True)


def _windows(client: Client, wanted: JobFilter) -> Iterator[JobFilter]:
    """Yield `wanted` for stretches of time that grow, so that it is known how far a long search has come."""
    search = wanted.search
    if search is None or not (search.terms or search.details):
        yield wanted
        return
    first, last = (client.one(f"SELECT start FROM job ORDER BY start{way} LIMIT 1") for way in ("", " DESC"))
    if first is None:
        return
    bounds = [wanted.until_ns, search.until_ns, last + 1, wanted.before[0] + 1 if wanted.before else None]
    until = min(bound for bound in bounds if bound is not None)
    since = max(first, wanted.since_ns or first, search.since_ns or first)
    size = FIRST_WINDOW_NS
    while until > since:
        start = max(since, until - size)
        yield replace(wanted, since_ns=start, until_ns=until)
        until, size = start, size * WINDOW_GROWTH


def _matching(client: Client, wanted: JobFilter, most: int | None) -> Iterator[tuple[Row, Record]]:
    """Yield rows that fit all but the terms on details, piece after piece; `most` is how many will be asked for."""
    piece = PIECE if most is None or (wanted.search and wanted.search.details) else min(most + SPARE, PIECE)
    while True:
        conditions = of_filter(wanted)
        if conditions is None:
            return
        where = " AND ".join(f"({condition})" for condition in conditions) or "1"
        # In the order of the table and nothing more, so that the server reads its end only.
        found = client.rows(f"SELECT {KEYS} FROM job WHERE {where} {ORDER} LIMIT {piece}")
        keys = newest(found)
        if len(found) == piece and len(keys) > 1:
            keys.pop()  # it may have more versions than have come
        for row in whole(client, keys):
            yield row, jobrows.to_record(row)
        if len(found) < piece:
            return
        wanted = replace(wanted, before=place_of(keys[-1]))


def newest(keys: list[Row]) -> list[Row]:
    """Return the last version of each key, in the same order."""
    out: list[Row] = []
    for key in keys:
        if out and place_of(out[-1]) == place_of(key):
            if key["version"] > out[-1]["version"]:
                out[-1] = key
        else:
            out.append(key)
    return out


def whole(client: Client, keys: list[Row]) -> list[Row]:
    """Return the rows with those keys as they are now, in the same order, without those replaced since."""
    if not keys:
        return []
    places = ", ".join(f"({key['start']}, {key['id_high']}, {key['id_low']})" for key in keys)
    starts = f"start BETWEEN {min(key['start'] for key in keys)} AND {max(key['start'] for key in keys)}"
    rows = client.rows(
        f"SELECT {jobrows.COLUMNS}, version, gone FROM job FINAL WHERE {starts}"
        f" AND (start, id_high, id_low) IN ({places})"
    )
    found = {(row["start"], row["id_high"], row["id_low"]): row for row in rows}
    out = []
    for key in keys:
        row = found.get((key["start"], key["id_high"], key["id_low"]))
        if row is not None and row["version"] == key["version"] and not row["gone"]:
            out.append(row)
    return out


def _fits(row: Row, wanted: JobFilter) -> bool:
    search = wanted.search
    if search is None or not search.details:
        return True
    data = json.loads(row["details"]) if row["details"] else {}
    return all(term.fits_details(data, row["job_id"] or None) for term in search.details)


def place_of(row: Row) -> Place:
    """Return what JobFilter takes as `before` to go on after a row."""
    return row["start"], row["id_high"] << HALF_BITS | row["id_low"]


def ids_like(client: Client, first: str, last: str, limit: int) -> list[str]:
    """Return up to `limit` ids that begin with the hexadecimal digits `first` and end with `last`, the newest first."""
    where = " AND ".join([f"({of_prefix(first)})" if first else "1", of_suffix(last) if last else "1"])
    keys = client.rows(f"SELECT {KEYS} FROM job WHERE {where} {ORDER} LIMIT 1 BY start, id_high, id_low LIMIT {limit}")
    return [jobrows.record_id(row) for row in keys]


def trace(client: Client, trace_id: str, limit: int) -> list[Record]:
    """Return the jobs of a trace, the first one first: its root and those that name it."""
    high, low = int(trace_id[:16], 16), int(trace_id[16:], 16)
    keys = client.rows(
        f"SELECT {KEYS} FROM job WHERE (id_high = {high} AND id_low = {low}) OR trace = {literal(trace_id)}"
        f" ORDER BY start, id_high, id_low, version DESC LIMIT 1 BY start, id_high, id_low LIMIT {limit}"
    )
    return [jobrows.to_record(row) for row in whole(client, keys)]


def values(client: Client, key: str, limit: int) -> list[str]:
    """Return the names in use for a key of the search language, none for one that has no list."""
    tables = {"action": "total", "queue": "total", "name": "job", "service": "process", "host": "process"}
    tables |= {"environment": "process", "revision": "deploy"}
    if key not in tables:
        return []
    more = " AND minutes = 60" if tables[key] == "total" else ""
    rows = client.rows(f"SELECT DISTINCT {key} AS name FROM {tables[key]} WHERE {key} != ''{more} LIMIT {limit}")
    return sorted(row["name"] for row in rows)
