"""One rules file's tree made into settings and rules; every problem is noted, and a bad rule is left out by itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from autoinst.rules import check_ins, figures, keys
from autoinst.rules.exporters import read_exporters
from autoinst.rules.match import bad_pattern, handed, is_everything, split_path
from autoinst.rules.model import Rule
from autoinst.rules.problems import nearest, quote
from autoinst.rules.requires import parse as parse_requirement
from autoinst.rules.values import ValueReader

if TYPE_CHECKING:
    from autoinst.rules.document import Document, Node
    from autoinst.rules.keys import Key
    from autoinst.rules.model import Field

DEFAULT_NAMES = {keys.JOBS: "perform_job.python", keys.EVENTS: "call.python", keys.ENQUEUES: "enqueue.python"}
DEFAULT_NAMESPACE = "background_job"
TRACEPARENT = "traceparent"
MAX_NAME = 200
YES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class FileRules:
    """What one file says: its settings (only those it has), include patterns with their nodes, packs, and rules.

    `packs` is None where the file does not say; `nodes` are the rules' nodes, for `autoinst check`; `is_read` is false
    where the file as a whole is no rules file.
    """

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.ignore: tuple[str, ...] = ()
        self.includes: list[Node] = []
        self.packs: list[Node] | None = None
        self.rules: list[Rule] = []
        self.nodes: list[dict[str, Node]] = []
        self.check_ins: list[dict[str, Any]] = []
        self.is_read = False


class Parser:
    """Reads one document; `pack` is the pack's name, None for a file of the user's own."""

    def __init__(self, document: Document, pack: str | None = None) -> None:
        self.document = document
        self.report = document.report
        self.pack = pack
        self.file = os.path.basename(document.file)
        self.out = FileRules()
        self.values = ValueReader(document)

    def parse(self) -> FileRules:
        """Read the whole tree."""
        root = self.document.root
        if root is None or root.is_empty:
            self.out.is_read = not self.document.problems
            return self.out
        if root.kind != "map":
            self.report(root, f"a rules file is a mapping, not {root.describe()}", "it begins with 'version: 1'")
            return self.out
        entries = self.entries(root, keys.by_name(keys.TOP), "a rules file")
        if not self._version(root, entries.get("version")):
            return self.out
        self.out.is_read = True
        self._settings(entries)
        for section in keys.SECTIONS:
            for node in self.list_of(entries.get(section), f"'{section}'"):
                self._rule(section, node)
        return self.out

    # shapes

    def entries(self, node: Node, known: dict[str, Key], what: str) -> dict[str, Node]:
        """Return a mapping's values by key; unknown and duplicate keys are problems, and are left out."""
        found: dict[str, Node] = {}
        for key, value in node.entries:
            name = key.text
            if key.kind != "text":
                self.report(key, f"a key of {what} is a text, not {key.describe()}")
            elif name in found:
                self.report(
                    key,
                    f"duplicate key {quote(name)}",
                    f"first at line {found[name].line + 1}; YAML would keep the last",
                )
            elif name not in known:
                hint = nearest(name, known) or f"it may have {', '.join(known)}"
                self.report(key, f"unknown key {quote(name)} in {what}", hint)
                node.has_unknown = True
            elif self.pack is not None and what == "a rules file" and not known[name].in_packs:
                self.report(key, f"{quote(name)} may not be in a pack")
            else:
                found[name] = value
        return found

    def list_of(self, node: Node | None, what: str) -> list[Node]:
        """Return the items of a list; nothing at all is an empty one."""
        if node is None or node.is_empty:
            return []
        if node.kind != "list":
            hint = f"write [{node.text}]" if node.kind == "text" else "begin each one with '- '"
            self.report(node, f"{what} must be a list, not {node.describe()}", hint)
            return []
        return node.items

    def text(self, node: Node | None, what: str) -> str | None:
        """Return a text, None where it is left out or is none."""
        if node is None:
            return None
        if node.kind != "text" or node.is_empty:
            self.report(node, f"{what} must be a text, not {node.describe()}")
            return None
        if "${" in node.text:
            self.report(node, f"{what} is a text: it cannot have expressions")
            return None
        return node.text

    def texts(self, node: Node | None, what: str) -> tuple[str, ...]:
        """Return a list of texts, whatever YAML 1.1 would call them (`on`, `no`)."""
        found = (self.text(item, f"an item of {what}") for item in self.list_of(node, what))
        return tuple(text for text in found if text is not None)

    def path(self, node: Node | None, what: str) -> str | None:
        """Return a dotted path or pattern."""
        path = self.text(node, what)
        if node is None or path is None:
            return None
        wrong = bad_pattern(path)
        if wrong is not None:
            hint = f"did you mean '{path.replace('/', '.').removesuffix('.py')}'?" if "/" in path else None
            self.report(node, f"{what} {quote(path)} {wrong}", hint)
            return None
        return path

    def paths(self, node: Node | None, what: str) -> tuple[str, ...]:
        """Return a list of dotted paths or patterns."""
        found = (self.path(item, f"an item of {what}") for item in self.list_of(node, what))
        return tuple(path for path in found if path is not None)

    # settings

    def _version(self, root: Node, node: Node | None) -> bool:
        if node is None:
            if self.pack is None:
                self.report(root, "'version' is missing", "write 'version: 1' first")
            return True
        if node.kind != "text" or node.text != str(keys.VERSION):
            self.report(node, f"version {node.describe()} is not known: this autoinst reads version {keys.VERSION}")
            return False
        return True

    def _settings(self, entries: dict[str, Node]) -> None:
        settings = self.out.settings
        for name in ("service", "environment", "revision"):
            text = self.text(entries.get(name), f"'{name}'")
            if text is not None:
                settings[name] = text
        defaults = entries.get("defaults")
        if defaults is not None and defaults.kind != "map":
            self.report(defaults, f"'defaults' must be a mapping, not {defaults.describe()}")
        elif defaults is not None:
            found = self.entries(defaults, keys.by_name(keys.DEFAULTS), "'defaults'")
            namespace = self.text(found.get("namespace"), "'namespace'")
            if namespace is not None:
                settings["namespace"] = namespace
            settings["redact"] = self.texts(found.get("redact"), "'redact'")
            settings["env"] = self.texts(found.get("env"), "'env'")
            settings["keep"] = self._keep(found.get("keep"))
            for name in ("carry", "redact_messages"):
                if name in found:
                    settings[name] = self.yes(found[name], f"'{name}'")
        retention = self._figures(entries.get("retention"), "'retention'", keys.RETENTION)
        if retention:
            settings["retention"] = retention
        exporters = read_exporters(self, entries.get("exporters"))
        if exporters:
            settings["exporters"] = exporters
        self.out.ignore = self.paths(entries.get("ignore_exceptions"), "'ignore_exceptions'")
        self.out.includes = [
            node for node in self.list_of(entries.get("include"), "'include'") if self.text(node, "a file")
        ]
        packs = entries.get("packs")
        if packs is not None:
            self.out.packs = [node for node in self.list_of(packs, "'packs'") if self.text(node, "a pack")]

    def _figures(self, node: Node | None, what: str, table: tuple[Key, ...]) -> dict[str, Any]:
        """Return a mapping's figures (shares, ages, sizes) as numbers; those that are wrong are left out."""
        if node is None:
            return {}
        if node.kind != "map":
            self.report(node, f"{what} must be a mapping, not {node.describe()}")
            return {}
        known = keys.by_name(table)
        found: dict[str, Any] = {}
        for name, value in self.entries(node, known, what).items():
            text = self.text(value, f"'{name}'")
            if text is None:
                continue
            try:
                found[name] = figures.READ[known[name].shape](text)
            except ValueError as error:
                self.report(value, f"'{name}' {error}, not {value.describe()}")
        return found

    def _keep(self, node: Node | None) -> figures.Keep | None:
        """Return what is kept, None where it is not said."""
        before = len(self.document.problems)
        found = self._figures(node, "'keep'", keys.KEEP)
        if node is None or len(self.document.problems) > before:
            return None
        if "ok" not in found and "ignored" not in found:
            self.report(node, "'keep' needs the share of jobs to keep", "write {ok: 1/20}")
        return found.get("ok", 1.0), found.get("ignored", 1.0), found.get("slower_than")

    # rules

    def _rule(self, section: str, node: Node) -> None:
        if node.kind != "map":
            self.report(node, f"a rule of '{section}' must be a mapping, not {node.describe()}")
            return
        before = len(self.document.problems)
        check_ins_before = len(self.out.check_ins)
        entries = self.entries(node, keys.rule_keys(section), f"a rule of '{section}'")
        rule = self._read(section, node, entries)
        if len(self.document.problems) == before:
            self.out.rules.append(rule)
            self.out.nodes.append(entries)
        else:
            del self.out.check_ins[check_ins_before:]

    def _read(self, section: str, node: Node, entries: dict[str, Node]) -> Rule:
        unsafe = self.yes(entries.get("unsafe"), "'unsafe'")
        fields = self.values.fields(self, section, node, entries, unsafe)
        self._check_in(entries, fields, node)
        targets = self._targets(node, entries)
        if keys.WRAPS in fields:
            targets = (*targets, *handed_over(targets, fields[keys.WRAPS]))
        return Rule(
            index=len(self.out.rules),
            kind=keys.KINDS[section],
            where=f"{self.file}:{node.line + 1}",
            pack=self.pack,
            targets=targets,
            exclude=tuple(path.replace(":", ".") for path in self.paths(entries.get("exclude"), "'exclude'")),
            subclass_of=_dotted(self.path(entries.get("subclass_of"), "'subclass_of'")),
            decorated_by=_dotted(self.path(entries.get("decorated_by"), "'decorated_by'")),
            requires=self._requires(entries.get("requires")),
            name=self._name(section, entries.get("name")),
            namespace=self.text(entries.get("namespace"), "'namespace'") or "",
            nested=self.choice(
                entries.get("nested"), "'nested'", keys.NESTED if section == keys.JOBS else keys.NESTED_EVENTS
            ),
            unsafe=unsafe,
            fields={key: field.to_data() for key, field in fields.items()},
            ignore=self.paths(entries.get("ignore_exceptions"), "'ignore_exceptions'"),
            keep=self._keep(entries.get("keep")),
            carry=self._carry(entries.get("carry")),
        )

    def _check_in(self, entries: dict[str, Node], fields: dict[str, Field], node: Node) -> None:
        found = check_ins.read_check_in(self, entries.get("check_in"))
        if found is None:
            return
        if "keep" in entries:
            self.report(entries["keep"], "of a rule with 'check_in' all jobs are kept", "leave out 'keep'")
        key, field = check_ins.field(found)
        fields[key] = field
        self.out.check_ins.append(found | {"where": f"{self.file}:{node.line + 1}"})

    def _carry(self, node: Node | None) -> tuple[str | None, str, str | None, str] | None:
        """Return how a trace is handed on, None where it is not; `values` has read the values in it."""
        if node is None or node.kind != "map":
            return None
        found = {key.text: value for key, value in node.entries}
        texts = {name: self.text(found.get(name), f"'{name}'") for name in ("key", "name", "stamp")}
        form = self.choice(found.get("form"), "'form'", keys.FORMS)
        return texts["key"], texts["name"] or TRACEPARENT, texts["stamp"], form

    def yes(self, node: Node | None, what: str) -> bool:
        """Return a truth value, False where it is left out or is none."""
        if node is None:
            return False
        found = YES.get(node.text.lower()) if node.kind == "text" else None
        if found is None:
            self.report(node, f"{what} must be true or false, not {node.describe()}")
        return bool(found)

    def choice(self, node: Node | None, what: str, choices: tuple[str, ...]) -> str:
        """Return one of `choices`, the first where it is left out."""
        if node is None:
            return choices[0]
        if node.kind != "text" or node.text not in choices:
            hint = nearest(node.text, choices) or f"it may be {', '.join(choices)}"
            self.report(node, f"{what} cannot be {node.describe()}", hint)
        return node.text

    def _name(self, section: str, node: Node | None) -> str:
        default = DEFAULT_NAMES.get(section, "")
        name = self.text(node, "'name'")
        if node is None or name is None:
            return default
        if len(name) > MAX_NAME or not name.isprintable() or any(letter.isspace() for letter in name):
            self.report(node, f"a name is at most {MAX_NAME} characters without blanks, such as '{default}'")
        if section == keys.JOBS and not (name == "perform_job" or name.startswith("perform_job.")):
            self.report(
                node, f"a job's name starts with 'perform_job', {quote(name)} does not", f"write perform_job.{name}"
            )
        return name

    def _requires(self, node: Node | None) -> dict[str, str]:
        if node is None:
            return {}
        if node.kind != "map":
            self.report(node, f"'requires' must be a mapping, not {node.describe()}", "write {rq: '>=1.16'}")
            return {}
        found: dict[str, str] = {}
        for key, value in node.entries:
            text = self.text(value, f"the version of {quote(key.text)}")
            if key.kind != "text" or text is None:
                continue
            if key.text in found:
                self.report(key, f"duplicate key {quote(key.text)}")
            try:
                parse_requirement(text)
            except ValueError as error:
                self.report(value, str(error), "compare with >=, <=, ==, !=, ~=, > or <, separated by commas")
            found[key.text] = text
        return found

    def _targets(self, node: Node, entries: dict[str, Node]) -> tuple[tuple[str, str, bool], ...]:
        forms = [name for name in ("class", "function", "module") if name in entries]
        narrowed = "subclass_of" in entries or "decorated_by" in entries
        if len(forms) > 1:
            self.report(entries[forms[1]], f"a rule has '{forms[0]}' or '{forms[1]}', not both", "write two rules")
            return ()
        form = forms[0] if forms else ("subclass_of" if "subclass_of" in entries else "")
        if not form:
            if not node.has_unknown:
                hint = "give it 'class' and 'methods', 'function', or 'module'"
                self.report(node, "the rule does not say what it means", hint)
            return ()
        path = self.path(entries[form], f"'{form}'")
        names = self._names(node, entries, form, narrowed)
        if path is None or names is None:
            return ()
        if is_everything(path) and all(is_everything(name) for name in names) and not narrowed:
            self.report(
                entries[form], "the rule would match every function of everything", "name a module, class or function"
            )
            return ()
        if form == "module" and "subclass_of" not in entries:
            return tuple((path, name, False) for name in names)
        if form != "module" and ":" not in path and "." not in path and not is_everything(path):
            self.report(
                entries[form], f"{quote(path)} has no module", f"write its module before it: some.module.{path}"
            )
        if form in ("module", "subclass_of"):
            # Wherever a subclass may be defined: the probe asks at each call whether `self` is one.
            return tuple((path if form == "module" else "**", f"**.{name}", False) for name in names)
        if form == "function":
            return split_path(path)
        return tuple(target for name in names for target in split_path(f"{path}.{name}", 2))

    def _names(self, node: Node, entries: dict[str, Node], form: str, narrowed: bool) -> list[str] | None:
        """Return the patterns of function names that go with the rule's `form`, None where they are wrong."""
        key = {"class": "methods", "subclass_of": "methods", "module": "functions", "function": ""}[form]
        if form == "module" and "methods" in entries and "subclass_of" in entries:
            key = "methods"
        for other in ("methods", "functions"):
            if other in entries and other != key:
                owner = "'class' or 'subclass_of'" if other == "methods" else "'module'"
                self.report(entries[other], f"'{other}' goes with {owner}, not with '{form}'")
                return None
        if not key:
            return []
        if key not in entries:
            if form == "module" and narrowed:
                return ["**"]
            if not node.has_unknown:
                self.report(entries[form], f"'{form}' needs '{key}'", f"write {key}: [name, ...]")
            return None
        given = entries[key]
        found = self.paths(given, f"'{key}'")
        if not found:
            if given.kind == "list" and not given.items:
                self.report(given, f"'{key}' is empty")
            return None
        for item, name in zip(given.items, found, strict=False):
            if ":" in name:
                self.report(item, f"{quote(name)} is not the name of a function")
        return list(found)


def handed_over(targets: tuple[tuple[str, str, bool], ...], field: Field) -> list[tuple[str, str, bool]]:
    """Return the targets by which a rule means what functions hand over to those of `targets`, or these return."""
    return [(module, handed(qualname, field), exact) for module, qualname, exact in targets]


def _dotted(path: str | None) -> str | None:
    return None if path is None else path.replace(":", ".")
