"""The subcommands but `run`: which there is for a command line, and what its errors mean for the exit status."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

from autoinst.cli.options import COMMANDS, make_parser, subcommands
from autoinst.cli.output import message
from autoinst.cli.run import did_you_mean
from autoinst.errors import AutoinstError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

MODULES = {"import": "importing"}  # a module cannot be called as Python's own word


def main(arguments: list[str]) -> int:
    """Run a subcommand and return the exit status."""
    parser = make_parser()
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        hint = did_you_mean(arguments[0], list(COMMANDS), 1)
        message(f"there is no command {arguments[0]!r}{hint}; `autoinst --help` lists them")
        return 2
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        _, taker = subcommands(parser).get(arguments[0], ("", parser))
        taker.error(f"unrecognized arguments: {' '.join(unknown)}{_hint(unknown, taker)}")
    if options.command is None:
        parser.print_help()
        return 2
    command: Callable[[argparse.Namespace], int] = importlib.import_module(
        f"autoinst.cli.{MODULES.get(options.command, options.command)}"
    ).run
    try:
        status = command(options)
        sys.stdout.flush()
    except UsageError as error:
        message(str(error))
        return 2
    except AutoinstError as error:
        message(str(error))
        return 1
    except BrokenPipeError:
        # The reader, `head` say, has what it wanted. Nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    return status


def _hint(unknown: list[str], parser: argparse.ArgumentParser) -> str:
    """Return which option of `parser` was probably meant by the first of `unknown` that looks like one."""
    given = next((word.partition("=")[0] for word in unknown if word.startswith("-")), "")
    known = [word for action in parser._actions for word in action.option_strings]  # noqa: SLF001 - argparse tells in no other way
    return did_you_mean(given, known, 1)
