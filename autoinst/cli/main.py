"""The `autoinst` command: finds the subcommand and keeps `autoinst run` from paying for the others."""

from __future__ import annotations

import sys


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's) and return the exit status: 0 ok, 1 problems, 2 usage."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == ["run"]:
        from autoinst.cli import run

        return run.main(arguments[1:])
    from autoinst.cli import commands

    return commands.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
