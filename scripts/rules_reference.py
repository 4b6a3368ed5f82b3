"""Writes what is made from the rules' table of keys: the tables in docs/rules.md and autoinst/rules/schema.json.

`python scripts/rules_reference.py` writes them, `--check` only tells (exit status 1) whether they are out of date.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from autoinst.rules.schema import reference, schema  # noqa: E402 - found by the line above

BEGIN = "<!-- made by scripts/rules_reference.py: do not edit below -->"
END = "<!-- end of what is made -->"


def wanted() -> dict[Path, str]:
    """Return the text each file should have."""
    docs = ROOT / "docs" / "rules.md"
    before, _, rest = docs.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return {
        docs: f"{before}{BEGIN}\n\n{reference()}\n{END}{after}",
        ROOT / "autoinst" / "rules" / "schema.json": json.dumps(schema(), indent=2) + "\n",
    }


def main(argv: list[str]) -> int:
    """Write the files, or tell which are out of date."""
    stale = [(path, text) for path, text in wanted().items() if not path.exists() or path.read_text("utf-8") != text]
    for path, text in stale:
        print(path.relative_to(ROOT))
        if "--check" not in argv:
            path.write_text(text, encoding="utf-8")
    return 1 if stale and "--check" in argv else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
