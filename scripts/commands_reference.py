"""Writes what is made from the command line's own help: docs/commands.md and the man page docs/autoinst.1.

`python scripts/commands_reference.py` writes them, `--check` only tells (exit status 1) whether they are out of date.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ["COLUMNS"] = "100"  # argparse wraps by it

from autoinst import __version__  # noqa: E402 - found by the line above
from autoinst.cli.options import make_parser, subcommands  # noqa: E402
from autoinst.cli.run import HELP  # noqa: E402

HEAD = """\
# Commands

What `autoinst COMMAND --help` says, made by scripts/commands_reference.py. `man autoinst` shows the same.
Data goes to standard output, messages to standard error; colour only to a terminal, and not where NO_COLOR is set.
"""


def helps() -> dict[str, str]:
    """Return the help of `autoinst` and of each command, by what is typed."""
    parser = make_parser()
    found = {"autoinst": parser.format_help(), "autoinst run": HELP}
    found.update(
        (f"autoinst {name}", sub.format_help()) for name, (_, sub) in subcommands(parser).items() if name != "run"
    )
    return {name: "\n".join(line.rstrip() for line in text.strip().splitlines()) for name, text in found.items()}


def markdown() -> str:
    """Return docs/commands.md."""
    return HEAD + "".join(f"\n## {name}\n\n```text\n{text}\n```\n" for name, text in helps().items())


def man() -> str:
    """Return the man page."""
    own, *rest = helps().items()
    parts = [
        f'.TH AUTOINST 1 "" "autoinst {__version__}" "User commands"',
        ".SH NAME",
        "autoinst \\- see every background job of a Python program without changing a line of it",
        ".SH DESCRIPTION",
        verbatim(own[1]),
        ".SH COMMANDS",
    ]
    for name, text in rest:
        parts += [f".SS {name}", verbatim(text)]
    return "\n".join(parts) + "\n"


def verbatim(text: str) -> str:
    """Return `text` as roff that is shown as it is."""
    lines = [line.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga") for line in text.splitlines()]
    return "\n".join([".nf", *(f"\\&{line}" if line[:1] in (".", "'") else line for line in lines), ".fi"])


def main(argv: list[str]) -> int:
    """Write the files, or tell which are out of date."""
    wanted = {ROOT / "docs" / "commands.md": markdown(), ROOT / "docs" / "autoinst.1": man()}
    stale = [(path, text) for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text]
    for path, text in stale:
        print(path.relative_to(ROOT))
        if "--check" not in argv:
            path.write_text(text, encoding="utf-8")
    return 1 if stale and "--check" in argv else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
