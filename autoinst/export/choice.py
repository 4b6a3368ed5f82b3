"""Which exporters are on; what the agent itself needs to know of them, so nothing of a network is loaded here."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from autoinst.rules import keys
from autoinst.store.clickhouse.address import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

OFF = frozenset({"", "none"})
LOCK_NAME = "export.lock"
GRACE_SECONDS = 5.0  # how long feeds go on when the agent has ended
BUSY_MARK, IDLE_MARK = "\x02", "\x03"  # what the exporters' process tells the agent: whether anything can be sent


def anything(environ: Mapping[str, str], settings: Mapping[str, Any]) -> str:
    """Return what names all that is sent anywhere and its settings, nothing where nothing is."""
    found, problems = chosen_names(environ, settings)
    store = (environ.get(VARIABLE) or "").strip()
    return repr((sorted(found.items()), problems, store)) if found or problems or store else ""


def chosen_names(
    environ: Mapping[str, str], settings: Mapping[str, Any]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return by name what is set of the exporters that are on, and what is wrong with AUTOINST_EXPORTERS."""
    told: dict[str, dict[str, Any]] = settings.get("exporters") or {}
    given = environ.get("AUTOINST_EXPORTERS")
    if given is None:
        return told, []
    found: dict[str, dict[str, Any]] = {}
    problems = []
    for word in (word.strip().lower() for word in given.split(",")):
        if word in keys.EXPORTERS:
            found[word] = told.get(word, {})
        elif word not in OFF:
            near = difflib.get_close_matches(word, keys.EXPORTERS, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(keys.EXPORTERS)}"
            problems.append(f"AUTOINST_EXPORTERS: there is no exporter {word!r}; {hint}")
    return found, problems
