"""Writes the tables of docs/libraries.md from the rows that the job libraries' tests declare, and their locks.

`python scripts/libraries_table.py` writes it, `--check` only tells (exit status 1) whether it is out of date.
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from autoinst.rules.load import load_files  # noqa: E402 - found by the line above
from tests.test_clock_skew import NEWEST as SKEWED  # noqa: E402
from tests.test_oldest import CASES  # noqa: E402
from tests.test_oldest import ENVIRONMENT as OLDEST  # noqa: E402
from tests.tested import COLUMNS, KINDS  # noqa: E402

if TYPE_CHECKING:
    from tests.tested import Library

PAGE = ROOT / "docs" / "libraries.md"
BEGIN = "<!-- made by scripts/libraries_table.py: do not edit below -->"
DECLARED = re.compile(r"^LIBRAR(Y = Library|IES = )\(", re.MULTILINE)
END = "<!-- end of what is made -->"


def libraries() -> list[Library]:
    """Return the rows that test modules declare as LIBRARY, or several as LIBRARIES, by name."""
    found: list[Library] = []
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        if DECLARED.search(path.read_text(encoding="utf-8")):
            names = vars(importlib.import_module(f"tests.{path.stem}"))
            found += names["LIBRARIES"] if "LIBRARIES" in names else [names["LIBRARY"]]
    return sorted(found, key=lambda library: library.name.lower())


def tested(library: Library) -> str:
    """Return the versions in the locks that the tests run, an oldest one first if there is a test of it."""
    if not library.distribution:
        return library.tested
    oldest = library.oldest or (OLDEST if library.pack in CASES else "")
    return ", ".join(version(library, environment) for environment in (oldest, library.environment) if environment)


def version(library: Library, environment: str) -> str:
    """Return the version in the lock of `environment`; raises LookupError where it is not there."""
    name = "test.txt" if environment == "test" else f"libraries/{environment}.txt"
    lock = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    pins = re.findall(rf"^{re.escape(library.distribution)}(?:\[[^\]]*\])?==([^\s;]+)", lock, re.MULTILINE)
    if not pins:
        raise LookupError(f"{library.distribution} is not in requirements/{name}")
    return str(pins[-1])  # of several, the one for the newest Python


def requires(library: Library) -> str:
    """Return the versions the pack is for."""
    if not library.pack:
        return library.versions
    rules = load_files([], library.pack)[0].rules
    found = {specifier for rule in rules for specifier in rule.requires.values()}
    return " or ".join(sorted(found)) or "any"


def anchor(heading: str) -> str:
    """Return the name that a heading has in a link."""
    return re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")


def marks(library: Library) -> list[str]:
    """Return for each of KINDS whether a test runs such a job, or the library has no such thing."""
    ran = library.kinds() | ({"clock skew"} if library.pack in SKEWED else set())
    return ["✓" if kind in ran else "none" if kind in library.lacks else "-" for kind in KINDS]


def rows(heads: tuple[str, ...], cells: list[list[str]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    line, *others = [f"| {' | '.join(row)} |" for row in (heads, *cells)]
    return [line, "|" + "---|" * len(heads), *others]


def table() -> str:
    """Return what stands between BEGIN and END: a table of fields, one of jobs, and notes."""
    fields, jobs, notes = [], [], []
    for library in libraries():
        have = library.columns()
        pack = f"`{library.pack}`" if library.pack else f"[rule below](#{anchor(library.rule)})"
        versions = f"`{requires(library)}`" if library.pack else requires(library)
        recorded = ["✓" if column in have else "-" for column in COLUMNS]
        fields.append([library.name, pack, versions, tested(library), *recorded])
        jobs.append([library.name, *marks(library)])
        notes.append(f"- **{library.name}** runs in the tests with {library.runs}." + f" {library.missing}".rstrip())
    first = rows(("Library", "Pack", "For versions", "Tested", *COLUMNS), fields)
    second = rows(("Jobs that the tests run", *KINDS), jobs)
    return "\n".join([*first, "", *second, "", *notes])


def main(argv: list[str]) -> int:
    """Write the page, or tell that it is out of date."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    wanted = f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}"
    if wanted == text:
        return 0
    print(PAGE.relative_to(ROOT))
    if "--check" in argv:
        return 1
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
