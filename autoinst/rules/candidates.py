"""Which functions of a program look like background jobs, and which job libraries it uses, told by its text alone."""

from __future__ import annotations

import os
import pkgutil
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from autoinst.rules.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from autoinst.rules.sources import Module

# Entry points of a job by the libraries' own conventions (Resque, Sidekiq and Active Job: perform; Celery, Luigi: run).
SURE_METHODS = ("perform",)
METHODS = ("run", "handle", "execute", "process", "work", "consume", "call")
JOB_CLASS = re.compile(r"(?:Job|Task|Worker|Mailer|Handler|Processor|Consumer|Importer|Exporter)$")
JOB_FUNCTION = re.compile(
    r"^(?:(?:send|process|handle|import|export|sync|refresh|rebuild|clean_?up|deliver)_\w+|\w+_(?:job|task))$"
)
JOB_DECORATOR = re.compile(r"(?:^|\.)(?:\w*job|\w*task|actor|worker|cron|subscriber|consumer)$", re.IGNORECASE)
LEFT_OUT = re.compile(
    r"^(?:tests?|conftest|setup|noxfile|docs?|migrations|alembic|build|dist|venv|node_modules)$|^test_|_test$"
)
MAX_MODULES = 5_000
MAX_HOPS = 10
# Modules of libraries whose packs are called otherwise.
MODULES = {"django_q": "django-q2", "django_tasks_db": "django-tasks", "temporalio": "temporal"}
MIN_OVERRIDES = 2  # subclasses of one base from which on a rule for all of them is shorter

Target = tuple[tuple[str, "str | tuple[str, ...]"], ...]  # a rule's keys and values


@dataclass(frozen=True)
class Candidate:
    """A rule that may be wanted: `target` are its keys with their values, `line` of `file` says where it was seen.

    `likely` tells that it is rather a job than not; `why` is for a person.
    """

    target: Target
    file: str
    line: int
    why: str
    likely: bool
    parameters: tuple[str, ...] = ()


@dataclass
class Findings:
    """What a program shows: `libraries` are job libraries it imports, by the pack that records them."""

    candidates: list[Candidate] = field(default_factory=list)
    libraries: dict[str, list[str]] = field(default_factory=dict)
    modules: int = 0


def find(root: str, packs: Iterable[str]) -> Findings:
    """Look through the program in the folder `root`; `packs` are the names of the packs that there are.

    Nothing of it is imported. Folders of tests, virtual environments and the like are left out.
    """
    places = [folder for folder in (os.path.join(root, "src"), root) if os.path.isdir(folder)]
    sources = Sources(places)
    found = Findings()
    modules = list(_modules(sources, places))
    found.modules = len(modules)
    imported = {name for module in modules for name in _imports(module)}
    known = {pack.replace("-", "_"): pack for pack in packs}
    known |= {name: pack for name, pack in MODULES.items() if pack in known.values()}
    bases: dict[tuple[str, str, str], list[Candidate]] = {}
    for module in modules:
        for name in sorted({name.partition(".")[0] for name in _imports(module)}):
            if name in known and module.file:
                found.libraries.setdefault(known[name], []).append(module.file)
        script = _is_script(module) and not any(f"{name}.".startswith(f"{module.name}.") for name in imported)
        owner = "__main__" if script else module.name
        _functions(sources, module, owner, known, found.candidates)
        _classes(sources, module, owner, known, found.candidates, bases)
    _shorten(found.candidates, bases)
    found.candidates.sort(key=lambda candidate: (not candidate.likely, candidate.file, candidate.line))
    return found


def _modules(sources: Sources, places: list[str]) -> Iterator[Module]:
    count = 0
    for place in places:
        for top in pkgutil.iter_modules([place]):
            if LEFT_OUT.search(top.name) or (place != places[0] and top.name == "src"):
                continue
            for module in sources.below(top.name):
                if any(LEFT_OUT.search(part) for part in module.name.split(".")) or not module.is_source:
                    continue
                count += 1
                if count > MAX_MODULES:
                    return
                yield module


def _imports(module: Module) -> set[str]:
    return {*module.imported.values(), *module.stars}


def _is_script(module: Module) -> bool:
    """Tell whether a module is run as the main program, as far as its text shows."""
    if module.name.endswith("__main__"):
        return True
    try:
        with open(module.file or "", encoding="utf-8", errors="replace") as file:
            return re.search(r"^if __name__ == ['\"]__main__['\"]", file.read(), re.MULTILINE) is not None
    except OSError:
        return False


def _library_of(sources: Sources, module: Module, name: str, known: dict[str, str], hops: int = 0) -> str | None:
    """Return the pack of the library that a dotted name of `module` comes from, if there is one.

    So does what is made by a call of the library, as in `app = Celery()`, here or in another module of the program.
    """
    top, _, rest = name.partition(".")
    if hops > MAX_HOPS:
        return None
    if top in module.made:
        return _library_of(sources, module, module.made[top], known, hops + 1)
    origin = module.imported.get(top, "")
    found = known.get(origin.partition(".")[0])
    if found is not None or not origin:
        return found
    parts = [*origin.split("."), *filter(None, rest.split("."))]
    for cut in range(len(parts) - 1, 0, -1):
        other = sources.module(".".join(parts[:cut]))
        if other is not None:
            return _library_of(sources, other, ".".join(parts[cut:]), known, hops + 1)
    return None


def _functions(sources: Sources, module: Module, owner: str, known: dict[str, str], out: list[Candidate]) -> None:
    for name, function in module.functions.items():
        if "." in name or name.startswith("_"):
            continue
        if any(_library_of(sources, module, decorator, known) for decorator in function.decorators):
            continue  # its pack records it
        target = (("function", f"{owner}.{name}"),)
        marks = [decorator for decorator in function.decorators if JOB_DECORATOR.search(decorator)]
        if marks:
            out.append(_candidate(module, target, function.line, f"decorated by {marks[0]}", True, function.parameters))
        elif JOB_FUNCTION.search(name):
            out.append(_candidate(module, target, function.line, "by its name", False, function.parameters))


def _candidate(
    module: Module,
    target: Target,
    line: int,
    why: str,
    likely: bool,
    parameters: tuple[str, ...] = (),
) -> Candidate:
    return Candidate(target, module.file or module.name, line, why, likely, parameters)


def _classes(
    sources: Sources,
    module: Module,
    owner: str,
    known: dict[str, str],
    out: list[Candidate],
    bases: dict[tuple[str, str, str], list[Candidate]],
) -> None:
    for name in module.classes:
        if "<locals>" in name or _is_of_library(sources, module, name, known):
            continue
        methods = [method for method in (*SURE_METHODS, *METHODS) if _is_method(module, name, method)]
        if not methods:
            continue
        last = name.rpartition(".")[2]
        method = methods[0]
        base = _job_base(sources, module, name, method)
        if method not in SURE_METHODS and not JOB_CLASS.search(last) and base is None:
            continue
        function = module.functions[f"{name}.{method}"]
        target = (("class", f"{owner}.{name}"), ("methods", (method,)))
        why = f"a class with `{method}`" if base is None else f"a {base[1]} with `{method}`"
        candidate = _candidate(module, target, function.line, why, True, function.parameters[1:])
        out.append(candidate)
        if base is not None and owner != "__main__":
            bases.setdefault((*base, method), []).append(candidate)


def _is_method(module: Module, name: str, method: str) -> bool:
    function = module.functions.get(f"{name}.{method}")
    return function is not None and not function.is_property and "staticmethod" not in function.decorators


def _is_of_library(sources: Sources, module: Module, name: str, known: dict[str, str]) -> bool:
    """Tell whether a base class comes from a library that a pack records."""
    for owner, _, found in sources.bases(module, name):
        for base in () if found is None else found.bases:
            if base is not None and _library_of(sources, owner, base, known):
                return True
    return False


def _job_base(sources: Sources, module: Module, name: str, method: str) -> tuple[str, str] | None:
    """Return module and name of the farthest base of the program's own that has the method or a job's name."""
    found: tuple[str, str] | None = None
    for owner, qualname, text in sources.bases(module, name)[1:]:
        if text is not None and (f"{qualname}.{method}" in owner.functions or JOB_CLASS.search(qualname)):
            found = owner.name, qualname
    return found


def _shorten(out: list[Candidate], bases: dict[tuple[str, str, str], list[Candidate]]) -> None:
    """Put one rule for all subclasses in the place of several rules for each."""
    for (module, name, method), found in bases.items():
        if len(found) < MIN_OVERRIDES:
            continue
        for candidate in found:
            out.remove(candidate)
        dotted = f"{module}.{name}"
        out[:] = [other for other in out if dict(other.target).get("class") != dotted]
        names = ", ".join(str(dict(candidate.target)["class"]).rpartition(".")[2] for candidate in found)
        tops = {str(dict(candidate.target)["class"]).partition(".")[0] for candidate in found}
        # Without a module the rule would have every module that is imported looked through.
        target: Target = (("subclass_of", dotted), ("methods", (method,)))
        if len(tops) == 1:
            target = (target[0], ("module", f"{tops.pop()}.**"), target[1])
        out.append(
            Candidate(target, found[0].file, found[0].line, f"the subclasses {names}", True, found[0].parameters)
        )
