"""Jobs in the order in which they come to a ClickHouse database from all machines, for whoever follows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autoinst.store.clickhouse import rows as jobrows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autoinst.record import Record
    from autoinst.store.clickhouse.client import Client

OVERLAP_SECONDS = 30  # what came that long ago is looked at again: it may be seen later than it was dated
AT_ONCE = 200  # arrivals whose jobs are asked for in one question
TABLE = "arrival (home, n, first, last)"  # the server says when
Arrival = tuple[int, int]  # home, and what its versions end in


def note(client: Client, home: int, n: int, records: Sequence[Record]) -> None:
    """Tell that these jobs of a home have come, under version `n`; raises StoreError."""
    starts = [record.started_ns for record in records]
    client.insert(TABLE, [{"home": home, "n": n, "first": min(starts), "last": max(starts)}])


class Arrivals:
    """What has come since `begin`; all methods raise StoreError."""

    def __init__(self) -> None:
        """Begin nowhere yet."""
        self._since = 0  # s since the epoch, by the server's clock
        self._seen: dict[Arrival, int] = {}

    def begin(self, client: Client) -> None:
        """Take all that has come for known."""
        for found in self._look(client):
            self._seen[found["home"], found["n"]] = found["at"]

    def new(self, client: Client) -> list[Record]:
        """Return the jobs that came since the last time, those that ended first at the front."""
        found = [row for row in self._look(client) if (row["home"], row["n"]) not in self._seen]
        out: list[Record] = []
        for first in range(0, len(found), AT_ONCE):
            some = found[first : first + AT_ONCE]
            out += _jobs(client, some)
            self._seen |= {(row["home"], row["n"]): row["at"] for row in some}
        self._seen = {key: at for key, at in self._seen.items() if at >= self._since - 2 * OVERLAP_SECONDS}
        return out

    def _look(self, client: Client) -> list[dict[str, Any]]:
        now = int(client.one("SELECT toUnixTimestamp(now()) AS now"))
        since = min(self._since or now, now) - OVERLAP_SECONDS
        rows = client.rows(
            "SELECT toUnixTimestamp(at) AS at, home, n, first, last FROM arrival"
            f" WHERE at >= toDateTime({since}) ORDER BY at, home, n"
        )
        self._since = now
        return rows


def _jobs(client: Client, arrivals: Sequence[dict[str, Any]]) -> list[Record]:
    n = f"bitAnd(version, {2**jobrows.RANK_BITS - 1})"
    keys = ", ".join(f"({row['home']}, {row['n']})" for row in arrivals)
    first, last = min(row["first"] for row in arrivals), max(row["last"] for row in arrivals)
    rows = client.rows(
        f"SELECT {jobrows.COLUMNS} FROM job WHERE start BETWEEN {first} AND {last} AND gone = 0"
        f" AND (home, {n}) IN ({keys}) ORDER BY start + ifNull(duration, 0), id_high, id_low"
        " LIMIT 1 BY start, id_high, id_low"
    )
    return [jobrows.to_record(row) for row in rows]
