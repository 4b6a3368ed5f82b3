"""Reads rules files, what they include and the packs, into one RuleSet: what happens when the cache has no answer."""

from __future__ import annotations

import glob
import hashlib
import os
import stat
from typing import TYPE_CHECKING, Any

from autoinst.config import signature
from autoinst.rules import check_ins
from autoinst.rules import packs as pack_files
from autoinst.rules.document import Document
from autoinst.rules.figures import in_force
from autoinst.rules.model import RuleSet
from autoinst.rules.parse import DEFAULT_NAMESPACE, Parser
from autoinst.rules.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from autoinst.rules.document import Node
    from autoinst.rules.model import Rule
    from autoinst.rules.parse import FileRules

MAX_SIZE = 4 << 20
MAX_FILES = 1_000
SUFFIXES = (".yaml", ".yml")
TEXTS = ("service", "environment", "revision", "namespace")
FIRST_WINS = (
    *TEXTS,
    "keep",
    "retention",
    "carry",
    "redact_messages",
    "exporters",
)  # of several files, the one that is read first; an included one fills in


class Loader:
    """Reads files one after the other; `read_files` are the documents, `touched` every path the outcome depends on.

    `unread` maps each path of which nothing could be read to what is wrong with it.
    """

    def __init__(self) -> None:
        self.touched: dict[str, Any] = {}
        self.problems: list[Problem] = []
        self.unread: dict[str, str] = {}
        self.read_files: list[tuple[Document, FileRules]] = []
        self._seen: set[str] = set()

    def touch(self, path: str) -> None:
        """Note what `path` is like before it is read."""
        if path not in self.touched:
            self.touched[path] = signature(path)

    def read(self, path: str, pack: str | None = None) -> None:
        """Read a file with what it includes, or the YAML files of a folder; what cannot be read is a problem."""
        self.touch(path)
        try:
            found = os.stat(path)
            if stat.S_ISDIR(found.st_mode):
                names = sorted(name for name in os.listdir(path) if name.endswith(SUFFIXES))
            elif not stat.S_ISREG(found.st_mode):
                self.problem(path, "not a file")
                return
            elif found.st_size > MAX_SIZE:
                self.problem(path, f"larger than {MAX_SIZE >> 20} MB")
                return
            else:
                self._file(path, pack)
                return
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            self.problem(path, "no such file" if isinstance(error, FileNotFoundError) else f"{reason}")
            return
        for name in names:
            self.read(os.path.join(path, name), pack)

    def problem(self, file: str, message: str, hint: str | None = None) -> None:
        """Note a problem of a whole file."""
        self.problems.append(Problem(file, 0, 0, message, hint))
        self.unread[file] = self.problems[-1].one_line

    def _file(self, path: str, pack: str | None) -> None:
        real = os.path.realpath(path)
        if real in self._seen:
            return
        self._seen.add(real)
        if len(self._seen) > MAX_FILES:
            self.problem(path, f"more than {MAX_FILES} rules files")
            return
        with open(path, "rb") as file:
            data = file.read(MAX_SIZE + 1)
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start)
            column = error.start - data.rfind(b"\n", 0, error.start)
            source = data.splitlines()[line].decode("utf-8", "replace")
            self.problems.append(Problem(path, line + 1, column, "not UTF-8", "save the file as UTF-8", source))
            self.unread[path] = self.problems[-1].one_line
            return
        document = Document(path, text)
        found = Parser(document, pack).parse()
        self.read_files.append((document, found))
        if not found.is_read:
            self.unread[path] = document.problems[0].one_line
        for node in found.includes:
            self._include(document, node)
        self.problems.extend(document.problems)

    def _include(self, document: Document, node: Node) -> None:
        folder = os.path.dirname(document.file)
        pattern = os.path.join(folder, node.text)
        if glob.has_magic(node.text):
            names = sorted(glob.glob(os.path.join(glob.escape(folder), node.text)))
            # a file that appears later changes its folder
            for name in (os.path.dirname(pattern), *map(os.path.dirname, names)):
                if not glob.has_magic(name):
                    self.touch(name)
        else:
            names = [pattern]
            if not os.path.exists(pattern):
                self.touch(pattern)
                document.report(node, "no such file")
                self.unread[pattern] = document.problems[-1].one_line
                return
        for name in names:
            self.read(name)


def load_files(paths: Iterable[str], packs: str | None = None) -> tuple[RuleSet, Loader]:
    """Read the user's rules files and folders `paths`, and the packs that they or `packs` (AUTOINST_PACKS) turn on.

    Never raises for what is in the files: `Loader.problems` has it all, and the rules are those that are right.
    """
    loader = Loader()
    for path in paths:
        loader.read(path)
    own = len(loader.read_files)
    watched, unread = list(loader.touched.items()), dict(loader.unread)
    for name, file in _packs(loader, packs).items():
        loader.read(file, name)
    rules = _assemble(loader, own)
    rules.watched, rules.unread = watched, unread
    return rules, loader


def _packs(loader: Loader, packs: str | None) -> dict[str, str]:
    folder = pack_files.builtin_folder()
    loader.touch(folder)
    builtin = pack_files.builtin_packs(folder)
    if packs is not None and packs.strip():
        chosen, wrong = pack_files.choose(pack_files.words(packs), builtin)
        for _, message, hint in wrong:
            loader.problem("AUTOINST_PACKS", message, hint)
        return chosen
    for document, found in loader.read_files:
        if found.packs is not None:
            chosen, wrong = pack_files.choose([node.text for node in found.packs], builtin)
            for index, message, hint in wrong:
                document.report(found.packs[index], message, hint)
                loader.problems.append(document.problems[-1])
            return chosen
    return pack_files.choose(None, builtin)[0]


def _assemble(loader: Loader, own: int) -> RuleSet:
    settings: dict[str, Any] = dict.fromkeys(FIRST_WINS)
    lists: dict[str, list[str]] = {"redact": [], "env": [], "ignore": []}
    for _, found in loader.read_files[:own]:
        for name in FIRST_WINS:
            settings[name] = found.settings.get(name) if settings[name] is None else settings[name]
        lists["redact"] += found.settings.get("redact", ())
        lists["env"] += found.settings.get("env", ())
        lists["ignore"] += found.ignore
    settings.update({name: tuple(dict.fromkeys(items)) for name, items in lists.items()})
    settings["check_ins"] = {item["identifier"]: item for _, found in loader.read_files for item in found.check_ins}
    settings["packs"] = tuple(dict.fromkeys(rule.pack for rule in _rules(loader.read_files) if rule.pack is not None))
    rules: list[Rule] = []
    for _, found in loader.read_files:
        for rule in found.rules:
            rule.index = len(rules)
            ignore = (*rule.ignore, *(found.ignore if rule.pack else ()), *settings["ignore"])
            rule.ignore = tuple(dict.fromkeys(ignore)) if rule.kind == "job" else ()
            of_file = found.settings.get("namespace") or settings["namespace"]
            rule.namespace = rule.namespace or of_file or DEFAULT_NAMESPACE
            if rule.kind == "job":
                shares = rule.keep or found.settings.get("keep") or settings["keep"]
                rule.keep = None if check_ins.is_told(rule) else in_force(shares)
            rules.append(rule)
    content = repr((sorted(settings.items()), [rule.to_data() for rule in rules]))
    digest = hashlib.sha256(content.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()[:16]
    return RuleSet.build(digest, settings, [problem.one_line for problem in loader.problems], rules)


def _rules(files: Sequence[tuple[Document, FileRules]]) -> list[Rule]:
    return [rule for _, found in files for rule in found.rules]
