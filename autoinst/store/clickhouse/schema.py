"""The tables on ClickHouse, and how an older database becomes a newer one.

Every table keeps the newest version of each key and nothing is ever added up by the server: whatever is sent again,
after a kill or by way of another replica, replaces itself. `home` is the local store a row comes from, a random number.
Totals are per home, exact and complete as of their `version`; whoever reads adds up the homes. Where a home has
forgotten a total by its own retention and a late job makes it anew, the new one has another `generation`.
`overall` has the same for all actions and queues together, so that a chart of many machines reads few rows. `arrival`
says, by the server's clock, which jobs came when: those of a home whose version ends in `n`, started in that time.
Texts that are unknown are empty; times are ns since the epoch, but `at`, the start of a span of totals, in s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autoinst.errors import StoreError
from autoinst.store.clickhouse.client import UNKNOWN_TABLE, ServerError, literal
from autoinst.store.reader import OutdatedStoreError

if TYPE_CHECKING:
    from autoinst.store.clickhouse.address import Address
    from autoinst.store.clickhouse.client import Client, Version

TABLES = (
    "job",
    "total",
    "release",
    "statement",
    "error",
    "error_hour",
    "incident",
    "process",
    "deploy",
    "home",
    "overall",
    "arrival",
    "schema_version",
)
CELL = """
  ok Int64, error Int64, ignored Int64, killed Int64, counted Int64, counted_errors Int64, total Int64, longest Int64,
  duration_keys Array(Int16), duration_counts Array(Int64), queue_total Int64, queue_keys Array(Int16),
  queue_counts Array(Int64), left_out Int64, version UInt64"""
DAY = "toDateTime(intDiv({column}, 1000000000), 'UTC')"
SPAN = "toDateTime(at, 'UTC')"

_VERSION_1 = (
    """CREATE TABLE IF NOT EXISTS job (
  start Int64 {delta}, id_high UInt64, id_low UInt64, version UInt64, gone UInt8, home UInt64, status {text},
  duration Nullable(Int64), queue_time Nullable(Int64), action {text}, class {text}, method {text}, namespace {text},
  name {text}, rule {text}, queue {text}, attempts Nullable(Int64), service {text}, environment {text}, revision {text},
  host {text}, pid Int64, thread {text}, clock_skew UInt8, truncated UInt8, error UInt64, error_class {text},
  job_id String, trace String, details String {heavy}{job_indexes}
) ENGINE = {engine}(version) PARTITION BY toYYYYMMDD({job_day})
ORDER BY (start, id_high, id_low){job_age}{job_settings}""",
    """CREATE TABLE IF NOT EXISTS total (
  home UInt64, generation Int64, minutes UInt8, at Int64, action {text}, queue {text},{cell}
) ENGINE = {engine}(version) PARTITION BY (minutes, toYYYYMM({span}))
ORDER BY (minutes, at, action, queue, home, generation){total_age}""",
    """CREATE TABLE IF NOT EXISTS release (
  home UInt64, generation Int64, at Int64, revision {text}, action {text},{cell}
) ENGINE = {engine}(version) PARTITION BY toYYYYMM({span})
ORDER BY (revision, at, action, home, generation){hour_age}""",
    """CREATE TABLE IF NOT EXISTS statement (
  home UInt64, generation Int64, at Int64, action {text}, name {text}, text String, jobs Int64, times Int64,
  total Int64, own Int64, longest Int64, repeats Int64, worst String, version UInt64
) ENGINE = {engine}(version) PARTITION BY toYYYYMM({span})
ORDER BY (at, action, name, text, home, generation){statement_age}""",
    """CREATE TABLE IF NOT EXISTS error (
  fingerprint UInt64, home UInt64, class String, message String, action {text}, frames String, count Int64, first Int64,
  last Int64, last_job String, version UInt64
) ENGINE = {engine}(version) ORDER BY (fingerprint, home)""",
    """CREATE TABLE IF NOT EXISTS error_hour (
  home UInt64, generation Int64, at Int64, fingerprint UInt64, count Int64, version UInt64
) ENGINE = {engine}(version) PARTITION BY toYYYYMM({span}) ORDER BY (fingerprint, at, home, generation){hour_age}""",
    """CREATE TABLE IF NOT EXISTS incident (
  fingerprint UInt64, state {text}, changed Int64, count Int64
) ENGINE = {engine}(changed) ORDER BY fingerprint""",
    """CREATE TABLE IF NOT EXISTS process (
  uid String, home UInt64, pid Int64, host {text}, service {text}, environment {text}, revision {text},
  description String, started Int64, first_seen Int64, last_seen Int64, ended Int64, how {text}, status String,
  version UInt64
) ENGINE = {engine}(version) ORDER BY (uid, home){process_age}""",
    """CREATE TABLE IF NOT EXISTS deploy (
  home UInt64, revision {text}, service {text}, first Int64, version UInt64
) ENGINE = {engine}(version) ORDER BY (revision, service, home)""",
    """CREATE TABLE IF NOT EXISTS home (
  home UInt64, host {text}, path String, autoinst {text}, at Int64, waiting Int64
) ENGINE = {engine}(at) ORDER BY home""",
)
_VERSION_2 = (
    """CREATE TABLE IF NOT EXISTS overall (
  home UInt64, generation Int64, minutes UInt8, at Int64,{cell}
) ENGINE = {engine}(version) PARTITION BY (minutes, toYYYYMM({span}))
ORDER BY (minutes, at, home, generation){total_age}""",
    """CREATE TABLE IF NOT EXISTS arrival (
  at DateTime DEFAULT now(), home UInt64, n UInt64, first Int64, last Int64
) ENGINE = {engine}(n) PARTITION BY toYYYYMMDD(at) ORDER BY (at, home, n){arrival_age}""",
)
# What is there already, for homes that have not sent theirs yet; a row of theirs replaces it.
_FILL = """INSERT INTO overall SELECT home, generation, minutes, at, {sums},
 durations.1 AS duration_keys, durations.2 AS duration_counts, queue_total, queues.1 AS queue_keys,
 queues.2 AS queue_counts, left_out, toUInt64(0) AS version
FROM (SELECT home, generation, minutes, at, {added}, sumMap(t.duration_keys, t.duration_counts) AS durations,
 sumMap(t.queue_keys, t.queue_counts) AS queues FROM total AS t FINAL WHERE t.at >= {first} AND t.at < {end}
 GROUP BY home, generation, minutes, at)"""
_SUMS = ("ok", "error", "ignored", "killed", "counted", "counted_errors", "total", "longest")
DAY_SECONDS = 86_400
FILL_SECONDS = 600.0  # for a day's; whoever gave up would have the server begin again with the first
# The statements at index i bring a database of version i to version i + 1. Each may be run again.
MIGRATIONS = (_VERSION_1, _VERSION_2)
VERSION = len(MIGRATIONS)
WITH_OVERALL = 2  # the first version with totals of all actions together
VERSIONS = "CREATE TABLE IF NOT EXISTS schema_version (version UInt32, at Int64) ENGINE = {engine}(at) ORDER BY version"


def version(client: Client) -> int:
    """Return the version of the database's tables, 0 where there are none; raises StoreError."""
    try:
        return int(client.one("SELECT max(version) AS version FROM schema_version") or 0)
    except ServerError as error:
        if error.code == UNKNOWN_TABLE:
            return 0
        raise


def check(client: Client) -> int:
    """Return the version of the database if it can be read; raises StoreError, OutdatedStoreError."""
    found = version(client)
    place = client.address.place
    if found > VERSION:
        raise StoreError(f"{place}: written by a newer autoinst (version {found}, this one knows {VERSION})")
    if found < VERSION:
        what = f"version {found}, to be brought to {VERSION}" if found else "it has no tables yet: they are made"
        raise OutdatedStoreError(f"{place}: {what} by the first agent of this version that writes to it")
    return found


def prepare(client: Client, now_ns: int) -> None:
    """Make what is missing, by version, or refuse a newer database; raises StoreError."""
    found = version(client)
    if found >= VERSION:
        check(client)
        return
    words = _words(client.version(), client.address)
    client.run(VERSIONS.format(**words))
    for number, statements in enumerate(MIGRATIONS[found:], found + 1):
        for statement in statements:
            client.run(statement.format(**words))
        if number == WITH_OVERALL and found:
            _fill(client)
        client.insert("schema_version", [{"version": number, "at": now_ns}])


def _fill(client: Client) -> None:
    """Make `overall` of `total`, a day at a time."""
    # Only those that have jobs: the clock of a machine that has just begun may have said 1970.
    days = client.rows(f"SELECT DISTINCT intDiv(at, {DAY_SECONDS}) AS day FROM total ORDER BY day")
    added = ", ".join(
        f"{'max(t.longest)' if name == 'longest' else f'sum(t.{name})'} AS {name}"
        for name in (*_SUMS, "queue_total", "left_out")
    )
    for row in days:
        first = row["day"] * DAY_SECONDS
        statement = _FILL.format(sums=", ".join(_SUMS), added=added, first=first, end=first + DAY_SECONDS)
        client.run(statement, FILL_SECONDS)


def _words(server: Version, address: Address) -> dict[str, Any]:
    able = server.has_ttl
    indexes = (
        ", INDEX by_id id_low TYPE bloom_filter GRANULARITY 4, INDEX by_job job_id TYPE bloom_filter GRANULARITY 4"
    )
    indexes += (
        ", INDEX by_trace trace TYPE bloom_filter GRANULARITY 4, INDEX by_error error TYPE set(100) GRANULARITY 4"
    )
    indexes += ", INDEX by_action action TYPE set(100) GRANULARITY 4"
    job_day = DAY.format(column="start")
    days, hours = address.days, address.rollup_days
    return {
        "engine": "ReplicatedReplacingMergeTree" if address.engine == "replicated" else "ReplacingMergeTree",
        "text": "LowCardinality(String)" if able else "String",
        "delta": "CODEC(Delta, ZSTD)" if able else "",
        "heavy": "CODEC(ZSTD(3))" if able else "",
        "cell": CELL,
        "span": SPAN,
        "job_day": job_day,
        "job_indexes": indexes if able else "",
        "job_age": _age(job_day, days) if able else "",
        "job_settings": "\nSETTINGS ttl_only_drop_parts = 1" if able else "",
        "total_age": _ages(days, hours) if able else "",
        "arrival_age": "\nTTL at + toIntervalDay(2)" if able else "",
        "hour_age": _age(SPAN, hours) if able else "",
        "statement_age": _age(SPAN, days) if able else "",
        "process_age": _age(DAY.format(column="last_seen"), days) if able else "",
    }


def _age(column: str, days: float | None, condition: str = "") -> str:
    return "" if days is None else f"\nTTL {column} + toIntervalSecond({max(round(days * 86400), 1)}){condition}"


def _ages(days: float | None, hours: float | None) -> str:
    parts = [_age(SPAN, days, " DELETE WHERE minutes < 60"), _age(SPAN, hours, " DELETE WHERE minutes = 60")]
    rules = [part.removeprefix("\nTTL ") for part in parts if part]
    return "\nTTL " + ", ".join(rules) if rules else ""


def facts(client: Client) -> dict[str, Any]:
    """Return rows and bytes of each table as the server has them, for `doctor` and sizing."""
    rows = client.rows(
        "SELECT table, sum(rows) AS rows, sum(bytes) AS bytes FROM system.parts"
        f" WHERE active AND database = {literal(client.address.database)} GROUP BY table ORDER BY table"
    )
    return {row["table"]: {"rows": row["rows"], "bytes": row["bytes"]} for row in rows if row["table"] in TABLES}


def heard_of(client: Client, home: int) -> int:
    """Return when a home was heard of last, by its own clock (ns since the epoch), 0 where it never was."""
    return int(client.one(f"SELECT max(at) AS at FROM home WHERE home = {home}") or 0)
