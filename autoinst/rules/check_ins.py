"""The part `check_in:` of a job's rule: what is to be told that the job ran, and when it should have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autoinst.rules import figures, keys
from autoinst.rules.model import Field
from autoinst.rules.problems import quote

if TYPE_CHECKING:
    from autoinst.rules.document import Node
    from autoinst.rules.model import Rule
    from autoinst.rules.parse import Parser

GRACE_SECONDS = 300.0
UTC = "UTC"
MAX_IDENTIFIER = 200
TAG = "check_in."  # and the type: a tag of each record, whose value is the identifier


def read_check_in(parser: Parser, node: Node | None) -> dict[str, Any] | None:
    """Return what a rule says of its check-in, None where it says nothing or something wrong.

    Keys are those of keys.CHECK_IN: `every` and `grace` in seconds, `schedule` None where none is told.
    """
    if node is None:
        return None
    before = len(parser.document.problems)
    entries = {"identifier": node}
    if node.kind == "map":
        entries = parser.entries(node, keys.by_name(keys.CHECK_IN), "'check_in'")
    elif node.kind == "list":
        parser.report(node, f"'check_in' must be a text or a mapping, not {node.describe()}", "write check_in: nightly")
        return None
    identifier = parser.text(entries.get("identifier"), "'identifier'")
    if "identifier" not in entries and not node.has_unknown:
        parser.report(node, "'check_in' needs 'identifier'", "write {identifier: nightly}")
    if identifier is not None and (len(identifier) > MAX_IDENTIFIER or not identifier.isprintable()):
        parser.report(entries["identifier"], f"an identifier is at most {MAX_IDENTIFIER} characters")
    if "schedule" in entries and "every" in entries:
        parser.report(entries["every"], "a check-in has 'schedule' or 'every', not both")
    if "timezone" in entries and "schedule" not in entries:
        parser.report(entries["timezone"], "'timezone' goes with 'schedule'")
    found = {
        "identifier": identifier,
        "type": parser.choice(entries.get("type"), "'type'", keys.CHECK_IN_TYPES),
        "schedule": parser.text(entries.get("schedule"), "'schedule'"),
        "timezone": parser.text(entries.get("timezone"), "'timezone'") or UTC,
        "every": _span(parser, entries.get("every"), "'every'"),
        "grace": _span(parser, entries.get("grace"), "'grace'") or GRACE_SECONDS,
    }
    if len(parser.document.problems) == before:
        _schedule(parser, entries, found)
    return found if len(parser.document.problems) == before else None


def field(check_in: dict[str, Any]) -> tuple[str, Field]:
    """Return key and value of the tag by which the job's record tells its check-in."""
    return f"tags.{TAG}{check_in['type']}", Field(None, check_in["identifier"], ())


def is_told(rule: Rule) -> bool:
    """Return whether a rule has a check-in, for which no job may be left out."""
    return any(key.startswith(f"tags.{TAG}") for key in rule.fields)


def _schedule(parser: Parser, entries: dict[str, Node], found: dict[str, Any]) -> None:
    if found["schedule"] is None:
        return
    from autoinst.rules.crontab import Crontab

    for name, text, zone in (("schedule", found["schedule"], UTC), ("timezone", "@daily", found["timezone"])):
        try:
            Crontab(text, zone)
        except ValueError as error:
            parser.report(entries[name], f"'{name}' {quote(entries[name].text)}: {error}")


def _span(parser: Parser, node: Node | None, what: str) -> float | None:
    text = parser.text(node, what)
    if node is None or text is None:
        return None
    try:
        return figures.span(text)
    except ValueError as error:
        parser.report(node, f"{what} {error}, not {node.describe()}")
        return None
