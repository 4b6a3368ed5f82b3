"""YAML text as a tree of nodes that know their place; nothing is made of a value but text, list and mapping.

Built from parse events, not by `yaml.compose`: libyaml's composer recurses in C and deep nesting kills the process.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from autoinst import beside
from autoinst.rules.problems import Problem, quote

MAX_DEPTH = 30
MAX_NODES = 200_000
UNQUOTED = re.compile(r"""\$\{|(?<=[\s\[,{:-])\*[\w*]*""")
QUOTED = re.compile(r""""(?:[^"\\]|\\.)*"|'(?:[^']|'')*'""")
KINDS = {"text": "text", "list": "a list", "map": "a mapping"}


@dataclass(eq=False)
class Node:
    """A value and its place: `line` and `column` count from 0; `plain` is text without quotes around it."""

    kind: str
    line: int
    column: int
    text: str = ""
    plain: bool = False
    tagged: bool = False
    end: tuple[int, int] = (0, 0)
    style: str = ""
    items: list[Node] = field(default_factory=list)
    entries: list[tuple[Node, Node]] = field(default_factory=list)
    has_unknown: bool = False  # a key nobody knows was told of: one that is missing then need not be

    @property
    def is_empty(self) -> bool:
        """Tell whether the value is left out, or `null` or `~`."""
        return self.kind == "text" and self.plain and self.text in ("", "~", "null", "Null", "NULL")

    def describe(self) -> str:
        """Return what the value is, for a message."""
        if self.kind != "text":
            return KINDS[self.kind]
        return "nothing" if self.is_empty else quote(self.text)


class Document:
    """The text of one file, its tree (`root`, None if there is none) and the problems met in it."""

    def __init__(self, file: str, text: str) -> None:
        """Parse `text`; a text that is no YAML gives one problem and no root."""
        self.file = file
        self.lines = text.split("\n")
        self.problems: list[Problem] = []
        self.root = self._parse(text)

    def report(self, place: Node | tuple[int, int], message: str, hint: str | None = None) -> None:
        """Note a problem at a node, or at a line and column counted from 0."""
        line, column = (place.line, place.column) if isinstance(place, Node) else place
        source = self.lines[line].rstrip("\r") if 0 <= line < len(self.lines) else ""
        self.problems.append(Problem(self.file, line + 1, column + 1, message, hint, source))

    def report_in(self, node: Node, offset: int, message: str, hint: str | None = None) -> None:
        """Note a problem `offset` characters into a node's text, where that is on the node's own line."""
        column = node.column + offset + (0 if node.plain else 1)
        if node.style in ("|", ">") or node.end[0] != node.line or column >= node.end[1]:
            column = node.column
        self.report((node.line, column), message, hint)

    def _parse(self, text: str) -> Node | None:
        yaml: Any = beside.load("yaml")

        try:
            return self._compose(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line, mark.column) if mark is not None else (0, 0)
            self._not_yaml(error.problem or str(error), error.context, line, column)
        except yaml.reader.ReaderError as error:
            before = text[: error.position] if isinstance(error.position, int) else ""
            line = before.count("\n")
            self.report((line, len(before) - before.rfind("\n") - 1), f"not YAML: {error.reason}")
        except (RecursionError, ValueError, OverflowError) as error:
            self.report((0, 0), f"not YAML: {type(error).__name__}")
        return None

    def _not_yaml(self, problem: str, context: str | None, line: int, column: int) -> None:
        line = min(line, len(self.lines) - 1)
        for number in (line, line - 1):
            found = self._trap(number) if number >= 0 else None
            if found is not None:
                at, word = found
                self.report((number, at), f"not YAML: {word} must be quoted here", f'quote it: "{word}"')
                return
        source = self.lines[line]
        hint = context
        if "\t" in source[: column + 1]:
            hint = "YAML forbids tabs for indentation: use spaces"
        elif source[column : column + 1] in ("@", "`", "%"):
            hint = "quote the value"
        self.report((line, column), f"not YAML: {problem}", hint)

    def _trap(self, number: int) -> tuple[int, str] | None:
        """Find an unquoted `${...}` or `*name` in a line: YAML takes the one for a mapping, the other for an alias."""
        source = QUOTED.sub(lambda found: "\0" * len(found[0]), self.lines[number])
        found = UNQUOTED.search(source)
        if found is None:
            return None
        word = found[0]
        if word == "${":
            end = source.find("}", found.start())
            word = self.lines[number][found.start() : end + 1] if end > 0 else "${...}"
        return found.start(), word.replace('"', "'")

    def _compose(self, events: Any) -> Node | None:
        yaml: Any = beside.load("yaml")

        builder = Builder()
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    line = event.start_mark.line if event.start_mark else 0
                    self.report((line, 0), "a second document begins: a rules file has one")
                    return None
            elif isinstance(event, yaml.CollectionEndEvent):
                builder.close()
            elif isinstance(event, yaml.NodeEvent):
                node = self._node(event)
                if node is None:
                    return None
                if not builder.add(node, isinstance(event, yaml.CollectionStartEvent)):
                    self.report(node, "the file is nested too deeply or too long")
                    return None
        return builder.root

    def _node(self, event: Any) -> Node | None:
        yaml: Any = beside.load("yaml")

        line, column = event.start_mark.line, event.start_mark.column
        if isinstance(event, yaml.AliasEvent):
            word = f"*{event.anchor}"
            hint = f'quote it if it is a pattern: "{word}"; anchors and aliases are not used in rules files'
            self.report((line, column), f"{word} is an alias to YAML", hint)
            return None
        end = (event.end_mark.line, event.end_mark.column)
        if isinstance(event, yaml.ScalarEvent):
            plain = not event.style and event.tag is None
            return Node("text", line, column, event.value, plain, event.tag is not None, end, event.style or "")
        kind = "map" if isinstance(event, yaml.MappingStartEvent) else "list"
        return Node(kind, line, column, end=end, tagged=event.tag is not None)


class Builder:
    """Puts nodes together as they come, in the order of the text."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self._open: list[Node] = []
        self._keys: list[Node | None] = []
        self._count = 0

    def add(self, node: Node, opens: bool) -> bool:
        """Put `node` into the collection in progress, False where there are too many; `opens`: it is one itself."""
        self._count += 1
        if self._count > MAX_NODES or len(self._open) > MAX_DEPTH:
            return False
        if not self._open:
            self.root = node
        elif self._open[-1].kind == "list":
            self._open[-1].items.append(node)
        else:
            key = self._keys[-1]
            if key is not None:
                self._open[-1].entries.append((key, node))
            self._keys[-1] = node if key is None else None
        if opens:
            self._open.append(node)
            self._keys.append(None)
        return True

    def close(self) -> None:
        """End the collection in progress."""
        self._open.pop()
        self._keys.pop()
