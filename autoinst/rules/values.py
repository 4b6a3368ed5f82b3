"""The values of a rule: texts with expressions, lists of alternatives and the long form, made into Fields."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from autoinst.rules import keys
from autoinst.rules.model import Field
from autoinst.rules.problems import quote
from autoinst.rules.translate import AT_EXIT, ExpressionError, choose, quoted, translate

if TYPE_CHECKING:
    from autoinst.rules.document import Document, Node
    from autoinst.rules.parse import Parser

INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
HANDED = re.compile(keys.HANDED)
FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)([eE][-+]?[0-9]{1,3})?")
MAX_ALTERNATIVES = 20
SINGLE = ("when", "title", "body", "exception")
EARLY = ("when", "title", "body")  # needed before the call
EXPRESSIONS = ("when", "exception", "into", "value", f"args.{keys.CALLABLE}")  # a literal would say nothing


class ValueReader:
    """Reads the values of one document's rules."""

    def __init__(self, document: Document) -> None:
        self.document = document

    def fields(
        self, parser: Parser, section: str, rule: Node, entries: dict[str, Node], unsafe: bool
    ) -> dict[str, Field]:
        """Return the fields of one rule by key, tags as `tags.<name>`, in the file's order."""
        found: dict[str, Field | None] = {}
        for name in SINGLE:
            if name in entries:
                found[name] = self.field(parser, name, entries[name], unsafe)
        if keys.WRAPS in entries:
            found[keys.WRAPS] = self._handed(parser, entries[keys.WRAPS])
        payload = entries.get("payload")
        if payload is not None and payload.kind != "map":
            parser.report(payload, f"'payload' must be a mapping, not {payload.describe()}")
        elif payload is not None:
            for name, node in parser.entries(payload, keys.by_name(keys.PAYLOAD), "'payload'").items():
                found[name] = self.field(parser, name, node, unsafe)
                if name == "args" and node.kind == "map":
                    self._callable(parser, node, unsafe, found)
        self._tags(parser, entries.get("tags"), unsafe, found)
        self._carry(parser, entries.get("carry"), unsafe, found)
        if section == keys.EXCEPTIONS and "exception" not in entries:
            parser.report(rule, "a rule of 'exceptions' needs 'exception'", 'write exception: "${...}"')
        if section == keys.ENRICH and not found:
            parser.report(rule, "a rule of 'enrich' needs 'payload' or 'tags'")
        if section == keys.CARRIES and "carry" not in entries:
            parser.report(rule, "a rule of 'carries' needs 'carry'", 'write carry: {into: "${...}"}')
        return {name: field for name, field in found.items() if field is not None}

    def _callable(self, parser: Parser, args: Node, unsafe: bool, found: dict[str, Field | None]) -> None:
        """Read what the arguments are given to; it is read when they are."""
        node = next((value for key, value in args.entries if key.text == keys.CALLABLE), None)
        if node is None:
            return
        name = f"args.{keys.CALLABLE}"
        found[name] = self._made(parser, name, node, node, {}, unsafe)
        both = [field for key in ("args", name) if (field := found[key]) is not None]
        if any(field.at == "exit" for field in both):
            for field in both:
                field.at = "exit"

    def _handed(self, parser: Parser, node: Node) -> Field | None:
        """Return what gives the callable that is handed over."""
        text = parser.text(node, f"'{keys.WRAPS}'")
        if text is None:
            return None
        if not HANDED.match(text):
            hint = "write 'wraps: argument NAME' or 'wraps: result'"
            parser.report(node, f"'{keys.WRAPS}' cannot be {node.describe()}", hint)
            return None
        name = text.split()[-1]
        return Field(f"${name}$", None, (name,), "exit" if text == "result" else "enter")

    def _tags(self, parser: Parser, tags: Node | None, unsafe: bool, found: dict[str, Field | None]) -> None:
        if tags is None:
            return
        if tags.kind != "map":
            parser.report(tags, f"'tags' must be a mapping, not {tags.describe()}")
            return
        for key, node in tags.entries:
            name = f"tags.{key.text}"
            if key.kind != "text" or not key.text:
                parser.report(key, f"a tag's name is a text, not {key.describe()}")
            elif name in found:
                parser.report(key, f"duplicate key {quote(key.text)}")
            else:
                found[name] = self.field(parser, name, node, unsafe)

    def _carry(self, parser: Parser, carry: Node | None, unsafe: bool, found: dict[str, Field | None]) -> None:
        if carry is None:
            return
        if carry.kind != "map":
            parser.report(carry, f"'carry' must be a mapping, not {carry.describe()}", 'write {into: "${...}"}')
            return
        entries = parser.entries(carry, keys.by_name(keys.CARRY), "'carry'")
        if "into" not in entries and not carry.has_unknown:
            parser.report(carry, "'carry' needs 'into'", 'write {into: "${...}"}')
        for name in ("into", "value"):
            if name in entries:
                found[name] = self.field(parser, name, entries[name], unsafe)
        both = [field for name in ("into", "value") if (field := found.get(name)) is not None]
        if any(field.at == "exit" for field in both):
            for field in both:
                field.at = "exit"

    def field(self, parser: Parser, name: str, node: Node, unsafe: bool) -> Field | None:
        """Return the value `node` as a field, None where it is wrong."""
        if node.kind != "map":
            return self._made(parser, name, node, node, {}, unsafe)
        entries = parser.entries(node, keys.by_name(keys.LONG_FORM), f"the long form of '{name}'")
        value = entries.get("value")
        if value is None:
            if not node.has_unknown:
                parser.report(node, f"the long form of '{name}' needs 'value'")
            return None
        given: dict[str, str] = {}
        for key in keys.LONG_FORM[1:]:
            choice = entries.get(key.name)
            if choice is None:
                continue
            if key.name == keys.CALLABLE:
                if name != "args":
                    parser.report(choice, f"'{key.name}' is for 'args', not for '{name}'")
                continue
            if choice.kind != "text" or choice.text not in key.choices:
                hint = f"it may be {', '.join(key.choices)}"
                parser.report(choice, f"'{key.name}' cannot be {choice.describe()}", hint)
            elif not self._applies(name, key.name):
                why = "is for times" if key.name != "at" else "is for values that may wait"
                parser.report(choice, f"'{key.name}' {why}, '{name}' is none")
            else:
                given[key.name] = choice.text
        return self._made(parser, name, node, value, given, unsafe)

    @staticmethod
    def _applies(name: str, option: str) -> bool:
        if option == "at":
            return name not in EARLY
        return name in keys.TIMES or (name == "queue_time" and option == "unit")

    def _made(
        self, parser: Parser, name: str, node: Node, value: Node, given: dict[str, str], unsafe: bool
    ) -> Field | None:
        found = self._source(parser, name, value, unsafe)
        if found is None:
            return None
        source, literal, names = found
        late = AT_EXIT.intersection(names)
        at = given.get("at") or ("exit" if late or (unsafe and source is not None) else "enter")
        if name in EARLY:
            at = "enter"
        if at == "enter" and late:
            hint = "leave out 'at: enter'" if "at" in given else None
            parser.report(node, f"'{name}' reads '{min(late)}', which is not there before the call", hint)
            return None
        if name in EXPRESSIONS and source is None:
            parser.report(value, f"'{name}' must be an expression, not {value.describe()}", 'write "${...}"')
            return None
        return Field(source, literal, names, at, given.get("unit"), given.get("naive"))

    def _source(
        self, parser: Parser, name: str, node: Node, unsafe: bool
    ) -> tuple[str | None, Any, tuple[str, ...]] | None:
        if node.kind == "text":
            return self._scalar(parser, node, unsafe)
        if node.kind == "map":
            parser.report(node, f"'{name}' must be a value, not a mapping")
            return None
        if not node.items or len(node.items) > MAX_ALTERNATIVES:
            parser.report(node, f"'{name}' needs 1 to {MAX_ALTERNATIVES} alternatives")
            return None
        sources: list[str] = []
        names: dict[str, None] = {}
        complete = True
        for item in node.items:
            if item.kind != "text":
                parser.report(item, f"an alternative of '{name}' must be a value, not {item.describe()}")
                complete = False
                continue
            found = self._scalar(parser, item, unsafe)
            if found is None:
                complete = False
                continue
            sources.append(quoted(found[1]) if found[0] is None else found[0])
            names.update(dict.fromkeys(found[2]))
        return (choose(sources), None, tuple(names)) if complete else None

    def _scalar(self, parser: Parser, node: Node, unsafe: bool) -> tuple[str | None, Any, tuple[str, ...]] | None:
        try:
            found = translate(node.text, unsafe)
        except ExpressionError as error:
            parser.document.report_in(node, error.offset, error.message, self._cut_hint(node) or error.hint)
            return None
        if found.source is None:
            return None, literal(node, found.literal or ""), ()
        return found

    def _cut_hint(self, node: Node) -> str | None:
        """Tell of ` #` where it may have cut off an expression: YAML takes it for a comment."""
        line, column = node.end
        rest = self.document.lines[line][column:] if node.plain and line < len(self.document.lines) else ""
        if rest.lstrip().startswith("#") and rest.startswith((" ", "\t")):
            return f"quote it, ' #' begins a comment: \"{node.text}{rest.rstrip()}\""
        return None


def literal(node: Node, text: str) -> Any:
    """Return what a value without expressions is: numbers, true, false and null if it is not quoted, else text."""
    if not node.plain:
        return text
    if node.is_empty:
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if INTEGER.fullmatch(text):
        return int(text)
    if FLOAT.fullmatch(text):
        return float(text)
    return text
