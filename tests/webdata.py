"""A day of a small shop's jobs in a store: for the tests of the web page, and to look at it."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

from autoinst.record import Event, ExceptionInfo, Frame, Killed, Record
from autoinst.spool.layout import record_id
from autoinst.store.processes import ProcessInfo

if TYPE_CHECKING:
    from autoinst.store.sqlite import Store

SECOND = 10**9
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
# Action -> queue, jobs an hour, median ms, how often it fails.
ACTIONS: dict[str, tuple[str | None, int, float, float]] = {
    "shop.mail.InvoiceMailer#perform": ("mail", 90, 42.0, 0.004),
    "shop.payments.PaymentCapture#perform": ("payments", 40, 310.0, 0.03),
    "shop.stock.StockReport#perform": ("reports", 6, 2600.0, 0.0),
    "shop.imports.PriceImport#perform": ("imports", 12, 900.0, 0.06),
    "shop.search.reindex_document": ("search", 130, 18.0, 0.001),
    "shop.media.VideoThumbnail#perform": ("media", 9, 4100.0, 0.01),
    "shop.crm.sync.PushContacts#perform": ("default", 30, 120.0, 0.01),
    "shop.cleanup.expire_sessions": (None, 4, 35.0, 0.0),
}
ERRORS: dict[str, list[tuple[str, str, str]]] = {
    "shop.mail.InvoiceMailer#perform": [("smtplib.SMTPServerDisconnected", "Connection unexpectedly closed", "send")],
    "shop.payments.PaymentCapture#perform": [
        ("shop.payments.GatewayTimeout", "order {n}: no answer within 30 s", "capture"),
        ("shop.payments.CardDeclined", "card of order {n} was declined: insufficient funds", "charge"),
    ],
    "shop.imports.PriceImport#perform": [("builtins.ValueError", "could not convert string to float: 'n/a'", "parse")],
    "shop.crm.sync.PushContacts#perform": [("requests.exceptions.HTTPError", "503 Server Error for url", "push")],
    "shop.search.reindex_document": [("builtins.KeyError", "'title'", "document")],
    "shop.media.VideoThumbnail#perform": [("builtins.MemoryError", "", "encode")],
}
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'>${7919*7907}{{7919*7907}}\u202e\x00\x1b[31m"
LONG = "Endless" * 1_500  # more than 10,000 characters without a place to break them
REVISIONS = (("4f2c1aa", 30), ("9b07e31", 7))  # and how many hours ago each started


def fill(store: Store, now: int, hours: int = 24, seed: int = 1) -> list[Record]:
    """Store the jobs of `hours` before `now` and return them, the oldest first: the same at every hour."""
    random_ = random.Random(seed)
    everything: list[Record] = []
    for number, (revision, ago) in enumerate(REVISIONS):
        end = now if number + 1 == len(REVISIONS) else now - REVISIONS[number + 1][1] * HOUR
        begin = max(now - ago * HOUR, now - hours * HOUR)
        uid = bytes([0x3F, 0xE0, 0x21, 0x25, 0xCC, 0x1A, seed % 256, number])
        said: dict[str, Any] = {
            "service": "shop-worker",
            "environment": "production",
            "revision": revision,
            "host": "worker-1",
        }
        said |= {"argv": ["python", "worker.py", "--queues", "all"], "python": "3.12.1"}
        info = ProcessInfo(uid, 4021 + number * 57, now - ago * HOUR, said)
        records = list(_jobs(random_, uid, now, begin - now, end - now, number))
        with store.transaction():
            process = store.enter_process(info)
            store.insert(records, process)
            store.process_seen(process, end)
            if end < now:
                store.process_ended(process, "gone")
            store.process_status(process, _status())
        everything += records
    return everything


def _jobs(random_: random.Random, uid: bytes, now: int, begin: int, end: int, faster: int) -> Any:
    moments = []  # from `now`, so that how busy the shop is does not depend on when the tests run
    for action, (_, rate, _, _) in ACTIONS.items():
        at = begin
        while True:
            swing = 1 + 0.55 * math.cos(at / (24 * HOUR) * 2 * math.pi) + 0.25 * math.sin(at / HOUR)
            at += int(random_.expovariate(rate * max(swing, 0.15)) * HOUR)
            if at >= end:
                break
            moments.append((at, action))
    moments.sort()
    for n, (at, action) in enumerate(moments):
        yield _job(random_, uid, n, now + at, action, faster)


def _job(random_: random.Random, uid: bytes, n: int, at: int, action: str, faster: int) -> Record:
    queue, _, median, failing = ACTIONS[action]
    if faster and "Payment" in action:
        median *= 0.6
    class_name, _, method = action.partition("#")
    record = Record(record_id(uid, n), "ok", at, action=action, class_name=class_name, method=method or None)
    record.name, record.queue = "perform_job.rq", queue
    took = random_.lognormvariate(math.log(median), 0.55)
    record.duration_ns = int(took * 1e6)
    record.queue_time_ms = random_.lognormvariate(math.log(140), 1.1)
    record.enqueued_ns = at - int(record.queue_time_ms * 1e6)
    record.attempts, record.job_id = 1, f"{action.partition('.')[2][:4]}-{n}"
    record.kwargs = {"order": 10_000 + n, "card": "[FILTERED]"} if "payment" in action else {"id": n}
    record.tags = {"tenant": random_.choice(["acme", "globex", "initech"])}
    record.rule, record.thread = "rules.yaml:7", "MainThread"
    _events(random_, record, took)
    if action in ERRORS and random_.random() < failing * 1.4:
        record.status = "error"
        name, message, function = random_.choice(ERRORS[action])
        path = f"/srv/shop/{class_name.replace('.', '/')}.py"
        frames = [
            Frame("/usr/lib/python3.12/site-packages/rq/job.py", 1352, "perform", in_app=False),
            Frame("/usr/lib/python3.12/site-packages/rq/job.py", 1389, "_execute", in_app=False),
            Frame(path, 21, "perform", in_app=True),
            Frame(path, 48, function, in_app=True),
            Frame("/usr/lib/python3.12/socket.py", 718, "readinto", in_app=False),
        ]
        cause = ExceptionInfo("builtins.TimeoutError", "timed out", frames[-1:])
        causes = [cause] if name.endswith("Timeout") else []
        record.exception = ExceptionInfo(name, message.format(n=10_000 + n), frames, causes)
    elif "Video" in action and random_.random() < 0.02:
        record.status, record.killed = "killed", Killed(4078, "SIGKILL", "encode.video")
    elif "mail" in action and random_.random() < 0.01:
        record.status = "ignored"
        record.exception = ExceptionInfo("shop.mail.Unsubscribed", "the customer wants no mail")
    return record


def _events(random_: random.Random, record: Record, took: float) -> None:
    action, at = record.action or "", 0.03 * took
    if "StockReport" in action:
        for item in range(random_.randint(18, 40)):
            length = took * 0.02
            body = f"SELECT price FROM item WHERE number = {item}"
            record.events.append(Event("query.sql", "SELECT", body, int(at * 1e6), int(length * 1e6), None))
            at += length * 1.1
    elif "Mailer" in action:
        body = "SELECT name, price FROM item WHERE number BETWEEN 17 AND 19"
        record.events.append(Event("query.sql", "SELECT", body, int(at * 1e6), int(took * 0.2e6), None))
        record.events.append(Event("render.template", "invoice.html", None, int(took * 0.3e6), int(took * 0.4e6), None))
        record.events.append(Event("query.sql", "SELECT", "SELECT * FROM shop", int(took * 0.35e6), int(took * 5e4), 1))
        record.events.append(
            Event("request.http", "POST mail.example", None, int(took * 0.72e6), int(took * 2e5), None)
        )
    elif "Payment" in action:
        record.events.append(Event("request.http", "POST gateway.example", None, int(at * 1e6), int(took * 9e5), None))


def _status() -> dict[str, Any]:
    return {
        "digest": "d1",
        "rules": [
            ["rules.yaml:7", "patched", "trampoline", 4122, "shop.mail.InvoiceMailer.perform and 5 more"],
            ["rules.yaml:15", "patched", "trampoline", 311, "shop.search.reindex_document"],
            ["rules.yaml:19", "not found", None, 0, "shop.stock has no StockReprot; did you mean StockReport?"],
        ],
        "unavailable": [["rules.yaml:7", "queue", "AttributeError: no attribute 'queue'", 12]],
        "notes": [],
    }


def retried(store: Store, now: int) -> list[str]:
    """Store three runs of one job, which fails twice, and what its last run enqueued; returns their ids."""
    uid = b"retried!"
    records = []
    for run in range(3):
        action = "shop.payments.PaymentCapture#perform"
        record = Record(record_id(uid, run), "ok", now - (10 - run) * MINUTE, action=action, queue="payments")
        record.duration_ns, record.attempts, record.job_id = 400_000_000, run + 1, "P-1"
        if run < 2:
            record.status = "error"
            frames = [Frame("/srv/shop/payments.py", 48, "capture", in_app=True)]
            record.exception = ExceptionInfo("shop.payments.GatewayTimeout", f"no answer, try {run + 1}", frames)
        records.append(record)
    root = records[-1]
    for n in range(3, 6):
        child = Record(record_id(uid, n), "ok", root.started_ns + n * SECOND, action="shop.mail.InvoiceMailer#perform")
        child.duration_ns, child.queue_time_ms, child.queue = 90_000_000, 900.0, "mail"
        child.trace_id, child.parent_span_id = root.id, root.id[16:]
        records.append(child)
    info = ProcessInfo(uid, 4100, now - HOUR, {"service": "shop-worker", "host": "worker-2"})
    with store.transaction():
        store.insert(records, store.enter_process(info))
    return [record.id for record in records]


def trouble(store: Store, now: int) -> list[str]:
    """Store a job whose card was declined, and one that was killed, whatever `fill` came by; returns their ids."""
    declined = Record(
        record_id(b"trouble!", 0), "error", now - 3 * MINUTE, action="shop.payments.PaymentCapture#perform"
    )
    declined.queue, declined.duration_ns, declined.attempts = "payments", 212_000_000, 1
    declined.queue_time_ms, declined.kwargs = 84.0, {"order": 31_337, "card": "[FILTERED]"}
    path = "/srv/shop/payments.py"
    frames = [Frame("/usr/lib/python3.12/site-packages/rq/job.py", 1352, "perform", in_app=False)]
    frames += [Frame(path, 21, "perform", in_app=True), Frame(path, 48, "charge", in_app=True)]
    declined.exception = ExceptionInfo("shop.payments.CardDeclined", "card of order 31337 was declined", frames)
    killed = Record(record_id(b"trouble!", 1), "killed", now - 2 * MINUTE, action="shop.media.VideoThumbnail#perform")
    killed.queue, killed.duration_ns, killed.killed = "media", 5 * SECOND, Killed(4078, "SIGKILL", "encode.video")
    with store.transaction():
        store.insert([declined, killed])
    return [declined.id, killed.id]


def hostile(store: Store, now: int) -> list[Record]:
    """Store jobs whose every text is markup, endless, or a formula; return them, the one that is markup first."""
    records = []
    for number, text in enumerate((EVIL, LONG)):
        record = Record(record_id(b"hostile!", number), "error", now, action=f"{text}.A#{text}", queue=text)
        record.job_id, record.duration_ns, record.args, record.kwargs = (
            text,
            5_000_000,
            [text, {text: text}],
            {text: text},
        )
        record.tags, record.params, record.env = {text: text}, {text: text}, {text: text}
        record.events = [Event("query." + text, text, text, 0, 2_000_000, None)] * 6
        frames = [Frame(text, 3, text, in_app=True), Frame(text, 3, text, in_app=False)]
        record.exception = ExceptionInfo(text, text, frames, [ExceptionInfo(text, text)])
        record.service = record.revision = record.host = record.thread = record.rule = text
        records.append(record)
    records.append(Record(record_id(b"hostile!", 2), "ok", now, action="=HYPERLINK(1)", queue="@x", job_id="+1"))
    with store.transaction():
        store.insert(records)
        store.note_problem(EVIL, LONG)
    return records
