"""When the jobs of check-ins ran last, and which of them were missed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from autoinst.record import rfc3339
from autoinst.rules.check_ins import TAG
from autoinst.rules.crontab import Crontab
from autoinst.store.records import STATUS_NUMBERS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping

    from autoinst.record import Record

NS = 10**9
EARLY_NS = 20 * NS  # a job may begin that much before it is due, by another clock
ENDED_WELL = ("ok", "ignored")
STATUS_NAMES = {number: name for name, number in STATUS_NUMBERS.items()}
TYPES = ("cron", "heartbeat")


class Seen(NamedTuple):
    """What is known of a check-in: when it was first expected or seen, began last, ended well last; ns since the epoch.

    `status` is how the job that began last ended, `job` its id; None where it never ran.
    """

    since_ns: int
    started_ns: int | None
    finished_ns: int | None
    status: str | None
    job: str | None


class CheckIn(NamedTuple):
    """A check-in of the rules and how it stands.

    `state` is ok, failed, missed, running, unseen (never ran, and was not due yet) or late (due, but in its grace);
    `due_ns` the time it was due last, ns since the epoch, None where no schedule is told; `rule` is the rule's place.
    """

    identifier: str
    type: str
    schedule: str | None
    state: str
    due_ns: int | None
    seen: Seen | None
    rule: str

    def to_json(self) -> dict[str, Any]:
        """Return it as `doctor --json` and the page have it."""
        seen = self.seen
        return {
            "identifier": self.identifier,
            "type": self.type,
            "schedule": self.schedule,
            "state": self.state,
            "due_at": rfc3339(self.due_ns),
            "started_at": rfc3339(seen.started_ns) if seen is not None else None,
            "finished_at": rfc3339(seen.finished_ns) if seen is not None else None,
            "job": seen.job if seen is not None else None,
            "rule": self.rule,
        }


def of_record(record: Record) -> str | None:
    """Return the check-in a job is of, None where it is of none."""
    for kind in TYPES:
        found = record.tags.get(f"{TAG}{kind}")
        if found is not None:
            return str(found)
    return None


def note(con: sqlite3.Connection, record: Record) -> None:
    """Keep that a check-in's job ended, within the transaction in progress; the one that began last counts."""
    identifier = of_record(record)
    if identifier is None or record.status == "running":
        return
    ended = record.started_ns + (record.duration_ns or 0)
    con.execute(
        "INSERT INTO check_in(identifier, since, started, finished, status, job) VALUES(?,?,?,?,?,?)"
        " ON CONFLICT(identifier) DO UPDATE SET finished = max(coalesce(excluded.finished, 0), coalesce(finished, 0)),"
        " status = CASE WHEN excluded.started >= coalesce(started, 0) THEN excluded.status ELSE status END,"
        " job = CASE WHEN excluded.started >= coalesce(started, 0) THEN excluded.job ELSE job END,"
        " started = max(excluded.started, coalesce(started, 0))",
        (
            *(identifier, record.started_ns, record.started_ns, ended if record.status in ENDED_WELL else None),
            *(STATUS_NUMBERS[record.status], bytes.fromhex(record.id)),
        ),
    )


def expect(con: sqlite3.Connection, identifiers: Iterable[str], now_ns: int) -> None:
    """Remember from when on check-ins are expected, those not known yet; within the transaction in progress."""
    con.executemany(
        "INSERT OR IGNORE INTO check_in(identifier, since) VALUES(?,?)", [(name, now_ns) for name in identifiers]
    )


def seen(con: sqlite3.Connection) -> dict[str, Seen]:
    """Return by identifier what is known of check-ins."""
    rows = con.execute("SELECT identifier, since, started, finished, status, job FROM check_in")
    return {
        identifier: Seen(
            since,
            started,
            finished or None,
            None if status is None else STATUS_NAMES[status],
            None if job is None else job.hex(),
        )
        for identifier, since, started, finished, status, job in rows
    }


def standing(
    rules: Mapping[str, Mapping[str, Any]], known: Mapping[str, Seen], running: Iterable[Record], now_ns: int
) -> list[CheckIn]:
    """Return how the check-ins of `rules` (settings' `check_ins`) stand; `running` are the jobs in flight."""
    begun: dict[str, int] = {}
    for record in running:
        identifier = of_record(record)
        if identifier is not None:
            begun[identifier] = max(record.started_ns, begun.get(identifier, 0))
    return [
        _standing(identifier, rule, known.get(identifier), begun.get(identifier), now_ns)
        for identifier, rule in sorted(rules.items())
    ]


def _standing(
    identifier: str, rule: Mapping[str, Any], known: Seen | None, begun_ns: int | None, now_ns: int
) -> CheckIn:
    since = known.since_ns if known is not None else now_ns
    started = max(filter(None, (known.started_ns if known is not None else None, begun_ns)), default=None)
    due, settled = (_due(rule, since, started, at) for at in (now_ns, now_ns - int(rule["grace"] * NS)))
    told = rule["schedule"] or (f"every {rule['every']:g} s" if rule["every"] else None)
    early = EARLY_NS if rule["schedule"] else 0
    if not _is_met(settled, since, started, early):
        state, due = "missed", settled
    elif not _is_met(due, since, started, early):
        state = "late"
    elif begun_ns is not None:
        state = "running"
    elif known is None or known.status is None:
        state = "unseen"
    else:
        state = "ok" if known.status in ENDED_WELL else "failed"
    return CheckIn(identifier, rule["type"], told, state, due, known, rule.get("where", ""))


def _is_met(due: int | None, since_ns: int, started_ns: int | None, early_ns: int) -> bool:
    return due is None or due < since_ns or (started_ns is not None and started_ns >= due - early_ns)


def _due(rule: Mapping[str, Any], since_ns: int, started_ns: int | None, now_ns: int) -> int | None:
    """Return when the job was due last up to `now_ns`, None where that is not told or has not been yet."""
    if rule["schedule"]:
        return Crontab(rule["schedule"], rule["timezone"]).last(now_ns)
    if not rule["every"]:
        return None
    first = max(since_ns, started_ns or 0) + int(rule["every"] * NS)
    return first if first <= now_ns else None
