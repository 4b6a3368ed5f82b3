"""Each exporter's feeds with records they have something to send of, and what of that arrived at a hostile receiver."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from autoinst.export.settings import choose
from autoinst.record import ExceptionInfo
from autoinst.store.sqlite import Store
from tests.exported import job
from tests.receivers import decode

if TYPE_CHECKING:
    from pathlib import Path

    from autoinst.export.feed import Feed
    from autoinst.record import Record
    from tests.hostile import Receiver

FEEDS = ("otlp/traces", "appsignal/traces", "appsignal/check_ins", "webhook")
METRICS = ("otlp/metrics", "appsignal/metrics")  # what they send has numbers of jobs rather than jobs
RULES: dict[str, Any] = {
    "type": "cron",
    "schedule": None,
    "timezone": "UTC",
    "every": None,
    "grace": 60.0,
    "where": "x",
}


def variables(url: str, **more: str) -> dict[str, str]:
    """Return the variables by which all exporters send to `url`."""
    return {
        "AUTOINST_EXPORTERS": "otlp,appsignal,webhook",
        "OTEL_EXPORTER_OTLP_ENDPOINT": url,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json",
        "OTEL_METRIC_EXPORT_INTERVAL": "100",
        "APPSIGNAL_PUSH_API_KEY": "00-key",
        "APPSIGNAL_COLLECTOR_ENDPOINT": f"{url}/appsignal",
        "APPSIGNAL_LOGGING_ENDPOINT": url,
        "APPSIGNAL_PUSH_API_ENDPOINT": url,
        "AUTOINST_WEBHOOK_URL": f"{url}/hook",
        "NO_PROXY": "*",
        **more,
    }


def feed_of(name: str, url: str, home: Path, **told: Any) -> Feed:
    """Return a feed that sends to `url`, set as `told` of the rules file says."""
    exporter = name.partition("/")[0]
    settings = {"exporters": {exporter: told}, "check_ins": {"nightly": RULES}}
    chosen = choose(variables(url, AUTOINST_EXPORTERS=exporter), settings, str(home))
    assert chosen.problems == []
    [found] = [feed for feed in chosen.feeds if feed.name == name]
    for other in chosen.feeds:
        if other is not found:
            other.close()
    return found


def failing(number: int) -> Record:
    """Return a job with a check-in that failed with an error of its own."""
    error = ExceptionInfo(f"shop.Error{number:06d}", "no")
    return job(number, "error", exception=error, tags={"check_in.cron": "nightly"})


def begin(path: str, feed: Feed) -> None:
    """Have a webhook know the store before there is anything in it."""
    with Store(path) as store:
        feed.look(store, answering=False)


def arrived(receiver: Receiver, name: str, records: list[Record]) -> list[str]:
    """Return the ids of `records` that arrived by a feed, each as often as it did; the same token counts once."""
    with receiver._lock:
        bodies = list(receiver.bodies.items())
    if name == "otlp/traces":
        return receiver.jobs
    if name == "appsignal/traces":
        found = [body for key, body in bodies if key.startswith("/appsignal/v1/traces")]
        return [r.id for body in found for r in records if isinstance(body, bytes) and bytes.fromhex(r.id[16:]) in body]
    if name == "webhook":
        told = [body for key, body in bodies if key.startswith("/hook") and isinstance(body, dict)]
        return [notice["job"] for body in told for notice in body["notices"]]
    # Check-ins have no token: the digest with the kind is what the receiver tells them by.
    lines = [body for key, body in bodies if key.startswith("/check_ins/json")]
    events = [json.loads(line) for body in lines for line in _lines(body)]
    return sorted({event["digest"] for event in events if event["kind"] == "start"})


def _lines(body: Any) -> list[str]:
    return [json.dumps(body)] if isinstance(body, dict) else body.decode().splitlines()


def check_all_arrived(receiver: Receiver, name: str, records: list[Record]) -> None:
    """Assert that each of `records` arrived by a feed, once; the same token counts once."""
    if name in METRICS:
        assert counted(receiver, name) == len(records)
    else:
        assert sorted(arrived(receiver, name, records)) == sorted(record.id for record in records)


def counted(receiver: Receiver, name: str) -> int:
    """Return how many jobs the metrics that arrived count."""
    path = "/appsignal/v1/metrics" if name.startswith("appsignal") else "/v1/metrics"
    with receiver._lock:
        bodies = [body for key, body in receiver.bodies.items() if key.startswith(path)]
    raw = [body for body in bodies if isinstance(body, bytes)]
    told = [*(body for body in bodies if isinstance(body, dict)), *(decode("metrics", *raw) if raw else ())]
    metrics = [m for body in told for of in body["resourceMetrics"] for s in of["scopeMetrics"] for m in s["metrics"]]
    if name.startswith("appsignal"):
        return sum(int(point["count"]) for metric in metrics for point in metric["histogram"]["dataPoints"])
    sums = [metric["sum"] for metric in metrics if metric["name"] == "autoinst.jobs"]
    return sum(int(point["asInt"]) for each in sums for point in each["dataPoints"])
