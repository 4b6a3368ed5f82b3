"""The webhook's settings: AUTOINST_WEBHOOK_* variables go before the rules file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoinst.export.endpoint import SECONDS, Endpoint, ExporterError, Reaching
from autoinst.export.watch import KINDS, REPEAT_SECONDS, Watch
from autoinst.export.webhook import FORMATS, INTERVAL, Webhook
from autoinst.rules import figures

if TYPE_CHECKING:
    from autoinst.export.variables import Asked

URL, SECRET = "AUTOINST_WEBHOOK_URL", "AUTOINST_WEBHOOK_SECRET"
REACHING = ("certificate", "client_certificate", "client_key", "proxy")


def make(asked: Asked) -> list[Webhook]:
    """Return the feed of the webhook; raises ExporterError."""
    told, given = asked.told, (asked.environ.get(URL) or "").strip()
    try:
        url = figures.webhook(given) if given else told.get("url")
    except ValueError as error:
        raise ExporterError(f"{URL}: {error}") from None  # the address itself may be a secret
    if not url:
        raise ExporterError(f"{URL} is not set, nor url of the rules file")
    watch = Watch(
        told.get("on") or KINDS,
        asked.settings.get("check_ins") or {},
        queue_ns=told.get("queue_time"),
        repeat_seconds=told.get("repeat", REPEAT_SECONDS),
    )
    reaching = Reaching(
        dict(told.get("headers", {})), told.get("timeout", SECONDS), **{name: told.get(name) for name in REACHING}
    )
    return [
        Webhook(
            Endpoint(url, reaching, compress=False),
            watch,
            asked.home,
            form=told.get("format", FORMATS[0]),
            secret=asked.environ.get(SECRET) or told.get("secret"),
            page=told.get("page"),
            interval=told.get("interval", INTERVAL),
        )
    ]
