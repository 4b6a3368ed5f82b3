"""Finds out what people should hear of: looks at each job once, at check-ins again and again, and writes notices.

Its cursor, what it knows and the notices are stored in one transaction: nothing is found twice, whoever is killed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from autoinst.record import rfc3339
from autoinst.rules.keys import NOTICES
from autoinst.store import check_ins

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from autoinst.record import Record
    from autoinst.store.feeds import Feed
    from autoinst.store.notices import Trouble
    from autoinst.store.sqlite import Store

CURSOR = "webhook.watch"  # the row of the store's feeds in which its cursor is
KINDS = NEW_ERROR, REOPENED_ERROR, KILLED_JOB, MISSED_CHECK_IN, SLOW_QUEUE = NOTICES
REPEAT_SECONDS = 3600.0
LOOK = 2_000  # jobs with something amiss in one transaction
CHECK_SECONDS = 5.0  # between two looks at check-ins
MAX_MESSAGE = 1_000  # characters of an exception's message
NS = 10**9


class Watch:
    """Watches one store; used by one thread."""

    def __init__(
        self,
        kinds: Collection[str],
        rules: Mapping[str, Mapping[str, Any]],
        *,
        queue_ns: int | None = None,
        repeat_seconds: float = REPEAT_SECONDS,
    ) -> None:
        """Tell of `kinds`, of the check-ins of `rules`, of jobs that waited longer than `queue_ns`.

        What is of the same kind and subject is told again only after `repeat_seconds`.
        """
        self._kinds = frozenset(kinds)
        self._rules = rules if MISSED_CHECK_IN in self._kinds else {}
        self._queue_ns = queue_ns if SLOW_QUEUE in self._kinds else None
        self._repeat_ns = int(repeat_seconds * NS)
        self._check_at = 0.0

    def look(self, store: Store, running: Iterable[Record] = ()) -> None:
        """Write notices of what is new in `store`; raises StoreError."""
        row = store.feed(CURSOR)
        if row is None:
            with store.transaction():
                store.begin_notices()
                row = store.add_feed(CURSOR, store.last())
        while row.n < store.last():
            with store.transaction():
                self._jobs(store, row)
        if self._rules and time.monotonic() >= self._check_at:
            self._check_at = time.monotonic() + CHECK_SECONDS
            with store.transaction():
                self._check_ins(store, running)
                store.forget_notices()

    def _jobs(self, store: Store, row: Feed) -> None:
        upto = store.last()
        found = store.troubles(row.n, upto, self._queue_ns, LOOK)
        for trouble in found:
            self._job(store, trouble)
        store.move_feed(row, found[-1].n if len(found) == LOOK else upto)

    def _job(self, store: Store, trouble: Trouble) -> None:
        now = time.time_ns()
        if trouble.is_killed:
            self._tell(store, KILLED_JOB, trouble.action or "", now, trouble)
        elif trouble.fingerprint is not None:
            self._error(store, trouble, now)
        if self._queue_ns is not None and (trouble.queue_ns or 0) > self._queue_ns:
            more = {"threshold": self._queue_ns / 1e6}
            self._tell(store, SLOW_QUEUE, trouble.queue or trouble.action or "", now, trouble, more)

    def _error(self, store: Store, trouble: Trouble, now: int) -> None:
        assert trouble.fingerprint is not None
        if trouble.state == "ignored":
            return
        known = store.told_of(trouble.fingerprint)
        more: dict[str, Any] = {"fingerprint": trouble.fingerprint.hex()}
        if not known:
            kind = NEW_ERROR
        elif trouble.state == "resolved" and max(known.values()) < (trouble.changed_ns or 0) < trouble.started_ns:
            kind, more["because"] = REOPENED_ERROR, "resolved"
        elif trouble.revision and trouble.revision not in known:
            kind, more["because"] = REOPENED_ERROR, "deploy"
        else:
            return
        store.mark_told(trouble.fingerprint, trouble.revision, trouble.started_ns)
        if kind in self._kinds:
            store.add_notice(kind, trouble.fingerprint.hex(), now, job_data(store.job(trouble.id)) | more)

    def _tell(
        self,
        store: Store,
        kind: str,
        subject: str,
        now: int,
        trouble: Trouble,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        if kind not in self._kinds:
            return
        before = store.latest_notice(kind, subject)
        # However the clock was set: a time that is far ahead is no reason to be silent until then.
        if before is None or abs(now - before.at_ns) >= self._repeat_ns:
            store.add_notice(kind, subject, now, job_data(store.job(trouble.id)) | dict(more or {}))

    def _check_ins(self, store: Store, running: Iterable[Record]) -> None:
        now = time.time_ns()
        store.expect_check_ins(self._rules)
        for each in check_ins.standing(self._rules, store.check_ins(), running, now):
            if each.state != "missed":
                continue
            due = rfc3339(each.due_ns)
            before = store.latest_notice(MISSED_CHECK_IN, each.identifier)
            if before is None or (before.data["due_at"] != due and abs(now - before.at_ns) >= self._repeat_ns):
                began = each.seen.started_ns if each.seen is not None else None
                data = {"due_at": due, "started_at": rfc3339(began), "schedule": each.schedule}
                store.add_notice(MISSED_CHECK_IN, each.identifier, now, data)


def job_data(record: Record | None) -> dict[str, Any]:
    """Return what a notice tells of a job; nothing of its arguments."""
    if record is None:  # it has been removed, or has ended otherwise
        return {}
    data = {
        "job": record.id,
        "action": record.action,
        "queue": record.queue,
        "queue_time": record.queue_time_ms,
        "started_at": rfc3339(record.started_ns),
        "attempts": record.attempts,
        "service": record.service,
        "environment": record.environment,
        "revision": record.revision,
        "host": record.host,
    }
    if record.status == "killed":
        data["killed"] = record.problem()
    if record.exception is not None:
        data["exception"] = record.exception.class_name
        data["message"] = record.exception.message[:MAX_MESSAGE]
    return {name: value for name, value in data.items() if value is not None}
