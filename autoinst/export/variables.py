"""Variables of the environment as settings: what is wrong with one is told by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from autoinst.export.endpoint import ExporterError
from autoinst.rules import figures

if TYPE_CHECKING:
    from collections.abc import Mapping

YES = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


class Asked(NamedTuple):
    """What an exporter is made of: the environment, what the rules file says of it and of all else, and the home."""

    environ: Mapping[str, str]
    told: Mapping[str, Any]
    settings: Mapping[str, Any]
    home: str


def url(name: str, text: str) -> str:
    """Return the address that variable `name` tells; raises ExporterError."""
    try:
        return figures.url(text.strip())
    except ValueError as error:
        raise ExporterError(f"{name}: {text!r} {error}") from None


def headers(name: str, text: str) -> dict[str, str]:
    """Return headers as W3C baggage has them: `key=value,key=value`, percent-encoded. Raises ExporterError."""
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise ExporterError(f"{name}: {key[:20]!r}... is no key=value")
        found[unquote(key.strip())] = unquote(value.strip())
    return found


def milliseconds(environ: Mapping[str, str], name: str) -> float | None:
    """Return milliseconds as seconds, None where none are told; raises ExporterError."""
    text = environ.get(name)
    if not text:
        return None
    try:
        return figures.milliseconds(text.strip()) / 1e9 or None
    except ValueError as error:
        raise ExporterError(f"{name}: {error}, not {text!r}") from None


def yes(environ: Mapping[str, str], name: str) -> bool | None:
    """Return a truth value, None where none is told; raises ExporterError."""
    text = (environ.get(name) or "").strip()
    if not text:
        return None
    if text.lower() not in YES:
        raise ExporterError(f"{name}: must be true or false, not {text!r}")
    return YES[text.lower()]
