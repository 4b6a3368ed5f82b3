"""Check-ins as AppSignal takes them: a line of JSON for each start and each end of a job whose rule has one.

An end tells both, so that nothing is lost where the start could not be told. A start is told by itself while the job
runs; the digest, which is the job's, lets the receiver see that it is the same one. A job that fails, or is killed,
has a start only, as with AppSignal's own integrations.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from autoinst.errors import SpoolError
from autoinst.export.answers import Answer, Verdict, accepted, judge
from autoinst.export.feed import Feed
from autoinst.rules.check_ins import TAG
from autoinst.spool.owner import ARENA_NAME
from autoinst.spool.reader import Arena

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from autoinst.export.appsignal import App
    from autoinst.export.endpoint import Endpoint
    from autoinst.record import Record
    from autoinst.store.feeds import Batch
    from autoinst.store.sqlite import Store

NDJSON = "application/x-ndjson"
CRON, HEARTBEAT = f"{TAG}cron", f"{TAG}heartbeat"
ENDED_WELL = ("ok", "ignored")
MAX_STARTED = 10_000  # digests of starts that are remembered as told
Event = dict[str, Any]


class CheckIns(Feed):
    """The check-ins of jobs; posted to `endpoint`, whose address has the application in its query."""

    name, batch, gather = "appsignal/check_ins", 4096, 1.0

    def __init__(self, app: App, endpoint: Endpoint, key_check: Endpoint, spool: str, *, backlog: int) -> None:
        self.place, self.backlog = endpoint.url, backlog
        self._app = app
        self._endpoint = endpoint
        self._key_check = key_check
        self._spool = spool
        self._started: dict[str, None] = {}  # ids of the jobs whose starts are told, the oldest first

    def look(self, store: Store, *, answering: bool) -> None:  # noqa: ARG002 - it looks at what runs
        """Tell the starts of the jobs that run now; where that fails, their ends tell them."""
        if not answering:
            return
        new = [record for record in running(self._spool) if CRON in record.tags and record.id not in self._started]
        if new and self._post(new).verdict is Verdict.ACCEPTED:
            self._started |= dict.fromkeys(record.id for record in new)
            for old in list(self._started)[: max(len(self._started) - MAX_STARTED, 0)]:
                del self._started[old]

    def send(self, records: Sequence[Record], batch: Batch) -> Answer:  # noqa: ARG002 - the digests are the token
        """Send the check-ins that are among the jobs of a batch."""
        found = [record for record in records if CRON in record.tags or HEARTBEAT in record.tags]
        return self._post(found) if found else Answer(Verdict.ACCEPTED, "nothing to send", posts=0)

    def _post(self, records: Sequence[Record]) -> Answer:
        groups: dict[str, list[Event]] = {}
        for record in records:
            events = groups.setdefault(self._query(record), [])
            events += events_of(record, start=record.id not in self._started)
        posts = size = 0
        for query, events in groups.items():
            body = "".join(json.dumps(event) + "\n" for event in without_repeats(events))
            answer = self._ask(self._endpoint, body.encode(), query)
            if answer.verdict is not Verdict.ACCEPTED:
                return answer
            posts, size = posts + 1, size + answer.size
        return Answer(Verdict.ACCEPTED, "taken", posts=posts, size=size)

    def _query(self, record: Record) -> str:
        names = self._app.name_of(record), self._app.environment_of(record), self._app.host_of(record)
        return self._application(*names)

    def _application(self, name: str, environment: str, hostname: str) -> str:
        key = self._app.push_api_key
        return urlencode({"api_key": key, "name": name, "environment": environment, "hostname": hostname})

    def _ask(self, endpoint: Endpoint, body: bytes, query: str) -> Answer:
        response, size = endpoint.post(body, NDJSON, {}, query)
        if isinstance(response, Answer):
            return response
        answer = accepted(response, size) or judge(response)
        return answer._replace(text=answer.text.replace(self._app.push_api_key, "(the key)"))

    def test(self) -> Answer:
        """Ask AppSignal whether it knows the key, as its own integrations do: a check-in would begin a real one."""
        app = self._app
        names = app.name or "autoinst", app.environment or "development", app.hostname or "unknown"
        answer = self._ask(self._key_check, b"", self._application(*names))
        told = "the key is known" if answer.verdict is Verdict.ACCEPTED else answer.text
        return answer._replace(text=f"{told}, says {self._key_check.url}")

    def close(self) -> None:
        """Close connections."""
        self._endpoint.close()
        self._key_check.close()


def events_of(record: Record, *, start: bool) -> list[Event]:
    """Return the check-in events of a job, those of one that runs still, too."""
    found: list[Event] = []
    begun, ended = record.started_ns // 10**9, (record.started_ns + (record.duration_ns or 0)) // 10**9
    cron, heartbeat = record.tags.get(CRON), record.tags.get(HEARTBEAT)
    if cron is not None:
        event = {"identifier": str(cron), "digest": record.id, "check_in_type": "cron"}
        if start:
            found.append({**event, "kind": "start", "timestamp": begun})
        if record.status in ENDED_WELL:
            found.append({**event, "kind": "finish", "timestamp": ended})
    if heartbeat is not None and record.status in ENDED_WELL:
        found.append({"identifier": str(heartbeat), "timestamp": ended, "check_in_type": "heartbeat"})
    return found


def without_repeats(events: Sequence[Event]) -> list[Event]:
    """Return `events` by time, with only the last heartbeat of each identifier: the others say nothing more."""
    ordered = sorted(events, key=lambda event: event["timestamp"])  # a finish stays behind its start
    last = {event["identifier"]: event for event in ordered if event["check_in_type"] == "heartbeat"}
    return [event for event in ordered if event["check_in_type"] != "heartbeat" or last[event["identifier"]] is event]


def running(spool: str) -> Iterator[Record]:
    """Yield the jobs in flight of the arenas in folder `spool`, also of processes that died: they too have begun."""
    try:
        names, owner = sorted(os.listdir(spool)), os.stat(spool).st_uid
    except OSError:
        return
    for name in names:
        if not ARENA_NAME.fullmatch(name):
            continue
        try:
            arena = Arena.open(os.path.join(spool, name), owner=owner)
        except SpoolError:  # gone, or for the drain to tell of
            continue
        try:
            flights = arena.running()
        finally:
            arena.close()
        for flight in flights:
            if not flight.complete:
                flight.record.status = "running"
                yield flight.record
