"""`autoinst check`: what is wrong in rules files and between them and the program, without importing the program.

What cannot be told from the program's text (made at run time, bytecode only, `__main__`) is not a problem.
"""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING

from autoinst.rules.keys import CALLABLE, CARRY, PAYLOAD, WRAPS
from autoinst.rules.load import load_files
from autoinst.rules.match import CALLS, matches, matches_qualname
from autoinst.rules.problems import CLOSE, nearest, quote
from autoinst.rules.requires import unmet
from autoinst.rules.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from autoinst.rules.document import Document, Node
    from autoinst.rules.model import Rule
    from autoinst.rules.problems import Problem
    from autoinst.rules.sources import Function, Module

ALWAYS = frozenset({"args", "kwargs", "result", "exception"})
UNKNOWN = frozenset({"__main__", "__mp_main__"})
MAX_SHOWN = 6


def check_files(paths: Iterable[str], search: Sequence[str], packs: str | None = None) -> list[Problem]:
    """Return every problem of the rules files `paths` and what they include, in the order of file and line.

    `search` is where the program's modules are looked for, like its sys.path; `packs` is AUTOINST_PACKS.
    """
    return check_with_notes(paths, search, packs)[0]


def check_with_notes(
    paths: Iterable[str], search: Sequence[str], packs: str | None = None
) -> tuple[list[Problem], list[str]]:
    """Return what `check_files` does, and one line for each callable of C code that a wrapper will watch."""
    _, loader = load_files(paths, packs)
    problems = list(loader.problems)
    checker = _Checker(Sources(search))
    for document, found in loader.read_files:
        before = len(document.problems)
        for rule, nodes in zip(found.rules, found.nodes, strict=True):
            if rule.pack is None and unmet(rule.requires) is None:
                checker.check(document, rule, nodes)
        problems += document.problems[before:]
    order = {document.file: at for at, (document, _) in enumerate(loader.read_files)}
    problems = sorted(dict.fromkeys(problems), key=lambda p: (order.get(p.file, -1), p.line, p.column))
    return problems, list(dict.fromkeys(checker.notes))


class _Checker:
    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.notes: list[str] = []

    def check(self, document: Document, rule: Rule, nodes: dict[str, Node]) -> None:
        """Note in `document` what is wrong between one rule and the program's text."""
        self.document = document
        if "subclass_of" in nodes:
            self._class(nodes["subclass_of"], nodes["subclass_of"].text)
        if "class" in nodes and "*" not in nodes["class"].text:
            self._methods(rule, nodes, nodes["class"])
        elif "function" in nodes and "*" not in nodes["function"].text:
            self._one_function(rule, nodes, nodes["function"])
        elif any(name in nodes for name in ("class", "function", "module")):
            self._patterns(rule, nodes)

    # exact paths

    def _module(self, node: Node, path: str) -> tuple[Module, str] | None:
        """Return the longest prefix of `path` that is a module and the rest; tells of a module that is not there."""
        module, colon, qualname = path.partition(":")
        parts = module.split(".") if colon else path.split(".")
        if parts[0] in UNKNOWN:
            return None
        for cut in range(len(parts), 0, -1):
            found = self.sources.module(".".join(parts[:cut]))
            if found is None:
                continue
            rest = parts[cut:]
            if colon and rest:
                break
            if rest and found.is_package and not self._has(found, rest[0]):
                break
            return found, qualname if colon else ".".join(rest)
        else:
            cut = 0
        parent = ".".join(parts[:cut]) or None
        missing = ".".join(parts[: cut + 1])
        known = self.sources.children(parent)
        if parent is not None and not colon:
            package = self.sources.module(parent)
            known = [*known, *(f"{parent}.{name}" for name in (package.names() if package else []))]
        what = (
            f"{quote(missing)} is neither a module nor defined in {quote(parent)}"
            if parent
            else f"no module {quote(missing)}"
        )
        self.document.report(node, what, nearest(missing, known, CLOSE))
        return None

    def _has(self, module: Module, name: str) -> bool:
        if module.is_open or name in module.names():
            return True
        for star in module.stars:
            other = self.sources.module(star)
            if other is None or self._has(other, name):
                return True
        return False

    def _class(self, node: Node, path: str) -> tuple[Module, str] | None:
        """Return where a class is defined; tells of one that is not there, None also where it cannot be told."""
        found = self._module(node, path)
        if found is None:
            return None
        module, name = found
        if not name:
            self.document.report(node, f"{quote(path)} is a module, not a class")
            return None
        place = self.sources.resolve(module, name)
        if place is not None and place[1] in place[0].classes:
            return place
        if place is not None:
            self.document.report(
                node, f"{quote(name)} of {quote(module.name)} is a function, not a class", "write 'function:'"
            )
        elif not self._may_have(module, name):
            known = [*module.classes, *module.imported]
            self.document.report(node, f"no class {quote(name)} in {quote(module.name)}", nearest(name, known))
        else:
            self._native(node, path, module, name)
        return None

    def _may_have(self, module: Module, name: str) -> bool:
        """Tell whether a module may define `name` in a way its text does not show."""
        top, _, rest = name.partition(".")
        if not self._has(module, top):
            return False
        if not rest:
            return True
        # a nested name is only told of where the function or class around it is plain to see
        around, _, last = name.rpartition(".")
        if around.removesuffix(".<locals>") in module.functions:
            return False
        owner = module.classes.get(around)
        return owner is None or bool(owner.bases) or last in owner.bound

    def _native(self, node: Node, path: str, module: Module, name: str) -> None:
        """Note that `name` of `module` is C code, if its text shows that it comes from an extension."""
        if module.name == "builtins":
            hint = "name the function of the program that uses it"
            self.document.report(node, f"{quote(path)} is built in, which cannot be watched", hint)
        elif self.sources.is_native(module, name.partition(".")[0]):
            place = f"{self.document.file}:{node.line + 1}:{node.column + 1}"
            self.notes.append(f"{place}: {quote(path)} is C code: it is watched by a wrapper")

    def _methods(self, rule: Rule, nodes: dict[str, Node], node: Node) -> None:
        place = self._class(node, node.text)
        if place is None or "methods" not in nodes:
            return
        module, name = place
        for item in nodes["methods"].items:
            if "*" not in item.text:
                self._method(rule, nodes, item, module, name)

    def _method(self, rule: Rule, nodes: dict[str, Node], node: Node, module: Module, name: str) -> None:
        known: set[str] = set()
        complete = True
        for owner, qualname, found in self.sources.bases(module, name):
            if found is None:
                complete = complete and not self._builtin(node, qualname)
                continue
            function = owner.functions.get(f"{qualname}.{node.text}")
            if function is not None:
                if function.is_property and rule.kind != "enrich":
                    self.document.report(node, f"{quote(node.text)} is a property of {quote(qualname)}, not a method")
                else:
                    self._parameters(rule, nodes, [function], f"{qualname}.{node.text}", True)
                return
            if node.text in found.bound:
                return
            prefix = f"{qualname}."
            known.update(
                f[len(prefix) :] for f in owner.functions if f.startswith(prefix) and "." not in f[len(prefix) :]
            )
        if complete:
            known -= {item.text for item in nodes["methods"].items}
            hint = nearest(node.text, known) or (f"it has {_some(known)}" if known else None)
            self.document.report(
                node, f"no method {quote(node.text)} in class {quote(name)} of {quote(module.name)}", hint
            )

    def _builtin(self, node: Node, base: str) -> bool:
        """Tell whether what `base` has is unknown; tells of a method that a built-in class has, which is C."""
        kind = getattr(builtins, base, None) if base else None
        if not isinstance(kind, type):
            return True
        if hasattr(kind, node.text):
            hint = f"override it in the class, and it is: def {node.text}(self, ...)"
            what = f"{quote(node.text)} is a method of the built-in type {quote(base)}, which cannot be watched"
            self.document.report(node, what, hint)
            return True
        return False

    def _one_function(self, rule: Rule, nodes: dict[str, Node], node: Node) -> None:
        found = self._module(node, node.text)
        if found is None:
            return
        module, (name, calls, _) = found[0], found[1].partition(CALLS)
        if not name:
            self.document.report(
                node, f"{quote(node.text)} is a module, not a function", "write 'module:' and 'functions:'"
            )
            return
        place = self.sources.resolve(module, name)
        if place is None:
            self._no_function(node, module, name)
        elif place[1] in place[0].classes:
            self.document.report(node, f"{quote(name)} is a class, not a function", "write 'class:' and 'methods:'")
        else:
            function = place[0].functions[place[1]]
            if function.is_property and rule.kind != "enrich":
                self.document.report(node, f"{quote(name)} is a property, not a function")
            elif not calls:  # its variables are not only its parameters
                in_class = place[1].rpartition(".")[0] in place[0].classes
                self._parameters(rule, nodes, [function], name, in_class)

    def _no_function(self, node: Node, module: Module, name: str) -> None:
        if self._may_have(module, name):
            self._native(node, node.text, module, name)
        else:
            known = [*module.functions, *module.imported]
            hint = nearest(name, known) or nearest(name, (other.rpartition(".")[2] for other in known))
            self.document.report(node, f"no function {quote(name)} in {quote(module.name)}", hint)

    # patterns

    def _patterns(self, rule: Rule, nodes: dict[str, Node]) -> None:
        node = next(nodes[name] for name in ("class", "function", "module") if name in nodes)
        fixed = node.text.replace(":", ".").split("*")[0].rpartition(".")[0] if "*" in node.text else node.text
        if fixed.partition(".")[0] in UNKNOWN or not fixed:
            return
        found = self._module(node, fixed)
        if found is None:
            return
        modules = list(self.sources.below(found[0].name))
        functions: list[Function] = []
        in_class = True
        for module in modules:
            for qualname, function in module.functions.items():
                if rule.matches(module.name, qualname) and not function.is_property:
                    functions.append(function)
                    in_class = in_class and qualname.rpartition(".")[0] in module.classes
        if functions:
            self._parameters(rule, nodes, functions, node.text, in_class)
        if not all(m.is_source for m in modules) or rule.subclass_of or rule.decorated_by:
            return
        self._unused(node, nodes, modules, bool(functions))

    def _unused(self, node: Node, nodes: dict[str, Node], modules: list[Module], some: bool) -> None:
        """Tell of functions that a `module` rule names and none of `modules` has, or of a pattern without a match."""
        if "functions" in nodes and "module" in nodes:
            have = [module for module in modules if matches(node.text, module.name)]
            names = {name for module in have for name in (*module.functions, *module.bound, *module.imported)}
            for item in nodes["functions"].items:
                if not any(matches_qualname(item.text, name) for name in names):
                    hint = nearest(item.text, names)
                    self.document.report(item, f"no function {quote(item.text)} in {quote(node.text)}", hint)
        elif not some:
            self.document.report(node, f"{quote(node.text)} matches nothing in {_some({m.name for m in modules})}")

    # expressions

    def _parameters(
        self, rule: Rule, nodes: dict[str, Node], functions: list[Function], what: str, in_class: bool
    ) -> None:
        """Tell of values that read a parameter none of `functions` has."""
        known = {name for function in functions for name in function.parameters}
        if in_class:
            known |= {"self", "cls"}
        for key, field in rule.fields.items():
            if rule.wraps is not None and key != WRAPS:
                continue  # the others read what is handed over, of which nothing is known here
            if field.source is None or field.source.startswith("_first("):
                continue
            for name in field.names:
                # Only the program can tell which variables of the functions around it a nested one has.
                if name not in known and name not in ALWAYS and "<locals>" not in what:
                    self._no_parameter(_node_of(nodes, key), name, what, known)

    def _no_parameter(self, node: Node, name: str, what: str, known: set[str]) -> None:
        offset = node.text.find(name)
        hint = nearest(name, known) or (f"it has {_some(known)}" if known else "it has none")
        message = f"{quote(what)} has no parameter {quote(name)}"
        self.document.report_in(node, max(offset, 0), message, hint)


def _node_of(nodes: dict[str, Node], key: str) -> Node:
    """Return the node of a field's value."""
    if key.startswith("tags."):
        node, name = nodes["tags"], key[len("tags.") :]
    elif key in {payload.name for payload in PAYLOAD}:
        node, name = nodes["payload"], key
    elif key == f"args.{CALLABLE}":
        args = next(value for entry, value in nodes["payload"].entries if entry.text == "args")
        return next(value for entry, value in args.entries if entry.text == CALLABLE)
    elif key in {part.name for part in CARRY}:
        node, name = nodes["carry"], key
    else:
        return _value_of(nodes[key])
    return _value_of(next(value for entry, value in node.entries if entry.text == name))


def _value_of(node: Node) -> Node:
    """Return the value itself where it is in the long form."""
    return next((value for entry, value in node.entries if entry.text == "value"), node)


def _some(names: set[str]) -> str:
    found = sorted(names)
    return ", ".join(found[:MAX_SHOWN]) + (", ..." if len(found) > MAX_SHOWN else "")
