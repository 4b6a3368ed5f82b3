"""Rules as a test gives them: a file or folder, the text of one, or the mapping that it would be."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from autoinst.errors import RulesError
from autoinst.rules.load import load_files

if TYPE_CHECKING:
    from collections.abc import Mapping

    from autoinst.rules.model import RuleSet

    Rules = str | os.PathLike[str] | Mapping[str, Any]

FILE = "rules.yaml"


def as_file(rules: Rules, folder: str) -> str:
    """Return the path of `rules`, written into `folder` unless they are a file or a folder already."""
    if isinstance(rules, os.PathLike) or (isinstance(rules, str) and "\n" not in rules and ":" not in rules):
        return os.path.abspath(os.fspath(rules))
    if isinstance(rules, str):
        text = rules
    else:
        import yaml

        text = yaml.safe_dump(dict(rules), sort_keys=False)
    path = os.path.join(folder, FILE)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def load(rules: Rules, folder: str, packs: str | None) -> RuleSet:
    """Read `rules`, and the packs that they or `packs` turn on; raises RulesError with all that is wrong in them.

    No job is left out, whatever `keep` says: a test counts on each.
    """
    found, loader = load_files([as_file(rules, folder)], packs)
    if loader.problems:
        raise RulesError("\n".join(problem.render() for problem in loader.problems))
    for rule in found.rules:
        rule.keep = None
    return found
