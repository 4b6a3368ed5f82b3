"""What `doctor` says of the packs: which are on, the library of each, its version, and whether the pack is for that."""

from __future__ import annotations

import importlib.util
import os
import platform
from typing import TYPE_CHECKING, Any

from autoinst.rules import packs as pack_files
from autoinst.rules.requires import PYTHON, allows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from autoinst.rules.model import Rule, RuleSet


def pack_facts(rules: RuleSet, attention: list[str]) -> list[dict[str, Any]]:
    """Return name, whether it is on, library, version and `unfit` of each pack, once for each of its libraries.

    `unfit` are the versions that the pack is for where the installed one is none of them, else None. One of several
    libraries without what the pack names in it is left out, as Django 5 has no tasks. Of a pack that is off no library
    is known.
    """
    on = rules.settings.get("packs", ())
    found: list[dict[str, Any]] = []
    for name in dict.fromkeys((*pack_files.builtin_packs(), *on)):
        mine = [rule for rule in rules.rules if rule.pack == name]
        for library in dict.fromkeys(key for rule in mine for key in rule.requires) or (None,):
            version = installed(library) if library else None
            fact = {"name": name, "on": name in on, "library": library, "version": version, "unfit": None}
            some = [rule for rule in mine if library in rule.requires]
            if library and version and not any(allows(rule.requires[library], version) for rule in some):
                concerned = [rule for rule in some if rule.kind in ("job", "event") and (some == mine or is_here(rule))]
                if not concerned:
                    continue
                fact["unfit"] = " or ".join(dict.fromkeys(rule.requires[library] for rule in concerned))
                if any(rule.kind == "job" for rule in concerned):
                    attention.append(
                        f"{library} {version} is installed, its pack is for {fact['unfit']}: no job of it is recorded"
                    )
            found.append(fact)
    return found


def installed(library: str) -> str | None:
    """Return the version of an installed library, or of `python`, None where it is not installed."""
    import importlib_metadata

    if library == PYTHON:
        return platform.python_version()

    try:
        return importlib_metadata.version(library)
    except importlib_metadata.PackageNotFoundError:
        return None


def is_here(rule: Rule) -> bool:
    """Tell whether the package that a rule names is installed, and what it names in there: Django 5 has no tasks.

    Nothing is imported for that.
    """
    top, _, rest = rule.targets[0][0].partition(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    if spec is None:
        return False
    folders: Iterable[str] = spec.submodule_search_locations or ()
    part = rest.partition(".")[0]
    return not part or any(
        name.partition(".")[0] == part for folder in folders if os.path.isdir(folder) for name in os.listdir(folder)
    )
