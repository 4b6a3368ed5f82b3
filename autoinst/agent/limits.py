"""How much the store keeps, as the environment says it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from autoinst.config import parse_size
from autoinst.store.retention import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping


def limits(environ: Mapping[str, str]) -> tuple[Limits, list[str]]:
    """Return AUTOINST_RETENTION_DAYS and AUTOINST_STORE_MAX (0: no limit), and what is wrong with them.

    What cannot be read counts as not given.
    """
    problems = []
    days, max_bytes = Limits.days, Limits.max_bytes
    text = environ.get("AUTOINST_RETENTION_DAYS")
    if text:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if math.isfinite(number) and number >= 0:
            days = number or None
        else:
            problems.append(f"AUTOINST_RETENTION_DAYS: {text!r} is no number of days; {days:g} is used")
    text = environ.get("AUTOINST_STORE_MAX")
    if text:
        size = parse_size(text)
        if size is not None:
            max_bytes = size or None
        else:
            problems.append(f"AUTOINST_STORE_MAX: {text!r} is no size such as 500M or 2G; 2G is used")
    return Limits(days, max_bytes), problems
