"""The Prometheus exporter's settings."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from autoinst.export.endpoint import ExporterError
from autoinst.export.prometheus import Prometheus
from autoinst.export.scraping import Scraped, Textfile
from autoinst.rules import figures

if TYPE_CHECKING:
    from autoinst.export.feed import Service
    from autoinst.export.variables import Asked

INTERVAL = 15.0  # seconds between two writings of the file
VARIABLE = "AUTOINST_PROMETHEUS_LISTEN"


def make(asked: Asked) -> list[Service]:
    """Return what serves or writes the metrics; raises ExporterError."""
    told, given = asked.told, (asked.environ.get(VARIABLE) or "").strip()
    try:
        listen = figures.listen(given) if given else told.get("listen")
    except ValueError as error:
        raise ExporterError(f"{VARIABLE}: {error}, not {given!r}") from None
    path = told.get("textfile")
    if not listen and not path:
        raise ExporterError("neither 'listen' (or AUTOINST_PROMETHEUS_LISTEN) nor 'textfile' is set")
    if path and not os.path.isabs(path):
        raise ExporterError(f"'textfile' must be an absolute path, not {path!r}")
    maker = Prometheus(asked.settings.get("check_ins") or {})
    found: list[Service] = [Scraped(maker, listen)] if listen else []
    return [*found, Textfile(maker, path, told.get("interval", INTERVAL))] if path else found
