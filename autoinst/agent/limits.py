"""How much the store keeps, as the environment and the rules file say it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from autoinst.config import parse_size
from autoinst.store.retention import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping


def limits(environ: Mapping[str, str], settings: Mapping[str, Any]) -> tuple[Limits, list[str]]:
    """Return what is kept, and what is wrong with the variables for it; 0 is no limit.

    AUTOINST_RETENTION_DAYS and AUTOINST_STORE_MAX go before `retention` in `settings`, those of the rules file. What
    cannot be read counts as not given.
    """
    told = settings.get("retention") or {}
    problems = []
    days: float | None = told.get("age", Limits.days)
    max_bytes: int | None = told.get("size", Limits.max_bytes)
    text = environ.get("AUTOINST_RETENTION_DAYS")
    if text:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if math.isfinite(number) and number >= 0:
            days = number
        else:
            problems.append(f"AUTOINST_RETENTION_DAYS: {text!r} is no number of days and not used")
    text = environ.get("AUTOINST_STORE_MAX")
    if text:
        size = parse_size(text)
        if size is not None:
            max_bytes = size
        else:
            problems.append(f"AUTOINST_STORE_MAX: {text!r} is no size such as 500M or 2G and not used")
    found = Limits(days or None, max_bytes or None, told.get("rollups") or None, told.get("samples", Limits.samples))
    return found, problems
