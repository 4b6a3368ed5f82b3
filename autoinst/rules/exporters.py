"""The part `exporters:` of a rules file: where the agent sends jobs, and how it reaches that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autoinst.rules import figures, keys

if TYPE_CHECKING:
    from autoinst.rules.document import Node
    from autoinst.rules.keys import Key
    from autoinst.rules.parse import Parser


def read_exporters(parser: Parser, node: Node | None) -> dict[str, dict[str, Any]]:
    """Return by exporter what is said of it; a value that is wrong is a problem, and is left out."""
    if node is None or node.is_empty:
        return {}
    if node.kind != "map":
        parser.report(node, f"'exporters' must be a mapping, not {node.describe()}", "write exporters: {otlp: {}}")
        return {}
    known = {name: keys.Key(name, "mapping", "") for name in keys.EXPORTERS}
    found: dict[str, dict[str, Any]] = {}
    for name, value in parser.entries(node, known, "'exporters'").items():
        if value.kind != "map" and not value.is_empty:
            parser.report(value, f"{name!r} must be a mapping, not {value.describe()}")
            continue
        found[name] = {}
        table = keys.by_name(keys.EXPORTERS[name])
        for key, item in parser.entries(value, table, f"'{name}'").items():
            before = len(parser.document.problems)
            read = _value(parser, table[key], item)
            if len(parser.document.problems) == before:
                found[name][key] = read
    return found


def _value(parser: Parser, key: Key, node: Node) -> Any:
    what = f"'{key.name}'"
    if key.shape == "yes":
        return parser.yes(node, what)
    if key.shape == "choice":
        return parser.choice(node, what, key.choices)
    if key.shape == "texts":
        return parser.texts(node, what)
    if key.shape == "words":
        return tuple(parser.choice(item, f"an item of {what}", key.choices) for item in parser.list_of(node, what))
    if key.shape == "headers":
        return _headers(parser, node)
    text = parser.text(node, what)
    if text is None or key.shape == "text":
        return text
    try:
        return figures.READ[key.shape](text)
    except ValueError as error:
        parser.report(node, f"{what} {error}, not {node.describe()}")
        return None


def _headers(parser: Parser, node: Node) -> dict[str, str]:
    if node.kind != "map":
        parser.report(node, f"'headers' must be a mapping, not {node.describe()}")
        return {}
    found: dict[str, str] = {}
    for key, value in node.entries:
        text = parser.text(value, f"header '{key.text}'")
        if text is not None:
            found[key.text] = text
    return found
