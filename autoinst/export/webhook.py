"""Posts notices to an address, as plain JSON or as Slack takes messages, signed where there is a secret.

The signature is the HMAC with SHA-256 of `timestamp.body` in hexadecimal digits (RFC 2104), as Slack and Stripe sign:
the receiver compares it, and refuses a timestamp that is too old.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from autoinst.config import SPOOL_NAME
from autoinst.export.answers import Answer, accepted, judge
from autoinst.export.check_ins import running
from autoinst.export.feed import Feed
from autoinst.export.otlp import TOKEN_HEADER
from autoinst.export.source import NOTICES
from autoinst.export.watch import KILLED_JOB, MISSED_CHECK_IN, NEW_ERROR, REOPENED_ERROR, SLOW_QUEUE
from autoinst.record import rfc3339
from autoinst.wording import duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autoinst.export.endpoint import Endpoint
    from autoinst.export.watch import Watch
    from autoinst.store.feeds import Batch
    from autoinst.store.notices import Notice
    from autoinst.store.sqlite import Store

VERSION = 1
FORMATS = ("json", "slack")
BATCH = 200
INTERVAL = 60.0  # seconds between two posts
MAX_LINES = 20  # of a message for Slack; its blocks take 3,000 characters, and nobody reads more
MAX_LINE = 140
TIMESTAMP_HEADER, SIGNATURE_HEADER = "X-Autoinst-Timestamp", "X-Autoinst-Signature"


class Webhook(Feed):
    """The notices, each told once."""

    name, batch, source, strict = "webhook", BATCH, NOTICES, True

    def __init__(
        self,
        endpoint: Endpoint,
        watch: Watch,
        home: str,
        *,
        form: str = FORMATS[0],
        secret: str | None = None,
        page: str | None = None,
        interval: float = INTERVAL,
    ) -> None:
        parts = urlsplit(endpoint.url)
        self.place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/..."  # what follows is often a secret
        self.gather = interval
        self._endpoint = endpoint
        self._hidden = endpoint.url[endpoint.url.index(parts.netloc) + len(parts.netloc) :]
        self._watch = watch
        self._spool = os.path.join(home, SPOOL_NAME)
        self._form = form
        self._secret = secret
        self._page = page

    def look(self, store: Store, *, answering: bool) -> None:  # noqa: ARG002 - it finds out whoever answers
        """Find out what there is to tell."""
        self._watch.look(store, running(self._spool))

    def send(self, records: Sequence[Notice], batch: Batch) -> Answer:
        """Post the notices of a batch in one message."""
        told = [self._told(notice) for notice in records]
        body = slack(told) if self._form == "slack" else {"version": VERSION, "notices": told}
        return self._post(body, batch.token)

    def test(self) -> Answer:
        """Post a message that says it is a test."""
        text = "autoinst doctor: a test, nothing is wrong"
        body = {"text": text} if self._form == "slack" else {"version": VERSION, "notices": [], "test": text}
        return self._post(body, os.urandom(16).hex())

    def _post(self, body: dict[str, Any], token: str) -> Answer:
        data = json.dumps(body).encode()
        headers = {TOKEN_HEADER: token}
        if self._secret is not None:
            at = str(int(time.time()))
            headers |= {TIMESTAMP_HEADER: at, SIGNATURE_HEADER: signature(self._secret, at, data)}
        response, size = self._endpoint.post(data, "application/json", headers)
        if isinstance(response, Answer):
            return response
        answer = accepted(response, size) or judge(response)
        hidden = self._hidden if len(self._hidden) > 1 else None
        return answer._replace(text=answer.text.replace(hidden, "/...")) if hidden else answer

    def _told(self, notice: Notice) -> dict[str, Any]:
        told = {
            "kind": notice.kind,
            "subject": notice.subject,
            "at": rfc3339(notice.at_ns),
            "text": text_of(notice),
            **notice.data,
        }
        if self._page and notice.data.get("job"):
            told["url"] = f"{self._page}/jobs/{notice.data['job']}"
        return told

    def close(self) -> None:
        """Close connections."""
        self._endpoint.close()


def signature(secret: str, at: str, body: bytes) -> str:
    """Return the signature of a body posted at `at` (seconds since the epoch, as text)."""
    return "v1=" + hmac.new(secret.encode(), at.encode() + b"." + body, hashlib.sha256).hexdigest()


def text_of(notice: Notice) -> str:
    """Return a notice in words, on one line."""
    data = notice.data
    action = data.get("action") or "a job"
    error = data.get("exception", "an exception")
    if data.get("message"):
        error += f": {data['message']}"
    revision = f" in revision {data['revision']}" if data.get("revision") else ""
    texts = {
        NEW_ERROR: f"New error in {action}: {error}",
        REOPENED_ERROR: (
            f"Error is back{revision} in {action}: {error}"
            if data.get("because") == "resolved"
            else f"Error goes on{revision} in {action}: {error}"
        ),
        KILLED_JOB: f"Killed: {action}: {data.get('killed', 'its process died')}",
        MISSED_CHECK_IN: f"Missed: check-in {notice.subject} was due at {data.get('due_at')}"
        + (f", it began last at {data['started_at']}" if data.get("started_at") else ", it has never run"),
        SLOW_QUEUE: f"Slow: {action} waited {duration(data.get('queue_time'))} in queue {notice.subject}"
        f" (more than {duration(data.get('threshold'))})",
    }
    return " ".join(texts.get(notice.kind, notice.kind).split())


def slack(told: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a message for Slack's incoming webhooks, and for what takes the same."""
    lines = []
    for each in told[:MAX_LINES]:
        text = each["text"] if len(each["text"]) <= MAX_LINE else each["text"][: MAX_LINE - 3] + "..."
        line = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")  # Slack's three
        lines.append(f"• {line}" + (f" (<{each['url']}|job>)" if "url" in each else ""))
    if len(told) > MAX_LINES:
        lines.append(f"and {len(told) - MAX_LINES} more")
    title = f"autoinst: {len(told)} thing{'s' if len(told) > 1 else ''} to see to"
    text = "\n".join(lines)
    return {
        "text": f"{title}\n{text}",
        "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": f"*{title}*\n{text}"[:3000]}}],
    }
