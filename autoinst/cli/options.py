"""The command line's commands, their options and their help."""

from __future__ import annotations

import argparse
from typing import Any

from autoinst import __version__
from autoinst.cli import epilogs
from autoinst.store.failures import STATES
from autoinst.store.figures import SORTS

COMMANDS = (
    *("run", "jobs", "tail", "show", "actions", "errors", "check", "explain", "doctor", "agent", "ui", "export"),
    *("import", "init", "demo", "completion", "path"),
)
MAX_DIGITS = 18  # of a number that SQLite can hold
STATUSES = ("ok", "error", "ignored", "killed", "running")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="autoinst",
        description="See every background job of a Python program without changing a line of it.",
        epilog=epilogs.MAIN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"autoinst {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    # `run` is dispatched before this parser exists; here it only shows up in the help.
    commands.add_parser("run", help="run a program under autoinst", add_help=False)
    add_jobs(commands)
    add_tail(commands)
    add_show(commands)
    add_actions(commands)
    add_errors(commands)
    add_init(commands)
    add_check(commands)
    add_explain(commands)
    add_doctor(commands)
    add_agent(commands)
    add_ui(commands)
    add_export(commands)
    add_import(commands)
    add_demo(commands)
    add_completion(commands)
    add(commands, "path", "print the folder to put on PYTHONPATH instead of using `run`", epilogs.PATH)
    return parser


def subcommands(parser: argparse.ArgumentParser) -> dict[str, tuple[str, argparse.ArgumentParser]]:
    """Return help text and parser of each command of `make_parser`, by its name."""
    # argparse tells its actions in no other way
    (found,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))  # noqa: SLF001
    helps = {action.dest: action.help or "" for action in found._choices_actions}  # noqa: SLF001
    return {name: (helps[name], sub) for name, sub in found.choices.items()}


def add(commands: Any, name: str, help_text: str, epilog: str) -> argparse.ArgumentParser:
    """Add a subcommand and return its parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help_text,
        description=help_text[0].upper() + help_text[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def add_json(parser: argparse.ArgumentParser, what: str) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help=f"print {what}")


def add_jobs(commands: Any) -> None:
    """Add `jobs`."""
    parser = add(commands, "jobs", "list the recorded jobs, newest first [env: AUTOINST_HOME]", epilogs.JOBS)
    add_json(parser, "one JSON object a line")
    add_filters(parser, 50)


def add_filters(parser: argparse.ArgumentParser, limit: int, zero: str = "for all") -> None:
    """Add what chooses jobs; `limit` of them unless asked otherwise, `zero` is what 0 means."""
    parser.add_argument(
        "--limit", type=count, default=limit, metavar="N", help=f"at most N jobs, 0 {zero} (default %(default)s)"
    )
    parser.add_argument("--status", type=statuses, metavar="S", help=f"only these: {', '.join(STATUSES)}; a,b for two")
    parser.add_argument("--since", metavar="TIME", help="started since: 15m, 2h, 3d, or an ISO date or time")
    parser.add_argument("--action", metavar="NAME", help="only Class#method; * stands for any text")
    parser.add_argument("--queue", metavar="NAME", help="only this queue")
    parser.add_argument(
        "--search", metavar="TEXT", help="as on the web page: 'duration>1s tag.customer:acme \"no items\"'"
    )


def add_tail(commands: Any) -> None:
    """Add `tail`."""
    parser = add(commands, "tail", "print jobs as they end, until Ctrl-C [env: AUTOINST_HOME]", epilogs.TAIL)
    add_json(parser, "one JSON object a line")
    add_filters(parser, 10, "for none")
    parser.add_argument("--no-follow", action="store_true", help="only the last ones that ended")


def add_actions(commands: Any) -> None:
    """Add `actions`."""
    parser = add(
        commands, "actions", "list totals by action: jobs, failures, times [env: AUTOINST_HOME]", epilogs.ACTIONS
    )
    add_json(parser, "one JSON object an action, times in ms")
    parser.add_argument(
        "--since", metavar="TIME", default="24h", help="jobs started since: 15m, 2h, 3d, a date (default %(default)s)"
    )
    parser.add_argument("--action", metavar="NAME", help="only Class#method; * stands for any text")
    parser.add_argument(
        "--sort", choices=SORTS, default="impact", help="what comes first (default %(default)s: total time)"
    )
    parser.add_argument(
        "--limit", type=count, default=50, metavar="N", help="at most N, 0 for all (default %(default)s)"
    )


def add_errors(commands: Any) -> None:
    """Add `errors`."""
    parser = add(
        commands, "errors", "list errors by fingerprint, or show or settle one [env: AUTOINST_HOME]", epilogs.ERRORS
    )
    parser.add_argument("fingerprint", nargs="?", metavar="FINGERPRINT", help="one error, by its first digits or all")
    add_json(parser, "one JSON object an error")
    parser.add_argument("--state", choices=(*STATES, "all"), default="open", help="only these (default %(default)s)")
    parser.add_argument("--since", metavar="TIME", help="seen since: 15m, 2h, 3d, or an ISO date or time")
    parser.add_argument(
        "--limit", type=count, default=50, metavar="N", help="at most N, 0 for all (default %(default)s)"
    )
    settle = parser.add_mutually_exclusive_group()
    for option, state, text in (
        ("--resolve", "resolved", "it is mended: it opens again when it comes again"),
        ("--ignore", "ignored", "it may come as often as it likes"),
        ("--reopen", "open", "take that back"),
    ):
        settle.add_argument(option, dest="state_to_set", action="store_const", const=state, help=text)


def add_completion(commands: Any) -> None:
    """Add `completion`."""
    parser = add(commands, "completion", "print what completes commands and options in a shell", epilogs.COMPLETION)
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def add_show(commands: Any) -> None:
    """Add `show`."""
    parser = add(
        commands, "show", "show one job: its events on a time line, its backtrace [env: AUTOINST_HOME]", epilogs.SHOW
    )
    parser.add_argument("id", metavar="ID", help="its ID in `autoinst jobs`, its whole id or the library's own job id")
    parser.add_argument("--full", action="store_true", help="also the frames of libraries, and long values whole")
    add_json(parser, "the job as a JSON object")


def add_init(commands: Any) -> None:
    """Add `init`."""
    parser = add(commands, "init", "write a first rules file from what a program's text shows", epilogs.INIT)
    parser.add_argument("folder", nargs="?", default=".", metavar="DIR", help="the program's folder (default: here)")
    parser.add_argument("-o", "--output", metavar="FILE", help="default autoinst.yaml in DIR; - for standard output")
    parser.add_argument("--force", action="store_true", help="also if there is such a file")
    add_json(parser, "what was found as a JSON object")


def add_check(commands: Any) -> None:
    """Add `check`."""
    parser = add(commands, "check", "check rules files and say all that is wrong, with its place", epilogs.CHECK)
    where = "rules file, or a folder of them (default: autoinst.yaml here) [env: AUTOINST_RULES]"
    parser.add_argument("files", nargs="*", metavar="FILE", help=where)
    parser.add_argument(
        "--path", action="append", metavar="DIR", help="where the program's modules are (default: here, and with FILE)"
    )
    add_json(parser, "the problems, one JSON object a line")


def add_explain(commands: Any) -> None:
    """Add `explain`."""
    parser = add(
        commands,
        "explain",
        "say what each rule decides on a function, and why [env: AUTOINST_RULES, AUTOINST_PACKS]",
        epilogs.EXPLAIN,
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="module:Class.method, a module, or worker.py:function")
    parser.add_argument("--rules", action="append", metavar="FILE", help="rules file or folder; may be given again")
    parser.add_argument(
        "--path", action="append", metavar="DIR", help="where the program's modules are (default: here)"
    )
    add_json(parser, "one JSON object a function")


def add_doctor(commands: Any) -> None:
    """Add `doctor`."""
    parser = add(
        commands,
        "doctor",
        "say where things are, which rules are in force and what they matched [env: AUTOINST_*]",
        epilogs.DOCTOR,
    )
    add_json(parser, "one JSON object")


def add_agent(commands: Any) -> None:
    """Add `agent`."""
    parser = add(
        commands,
        "agent",
        "move what workers record into the store as they record it [env: AUTOINST_HOME]",
        epilogs.AGENT,
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--once", action="store_true", help="drain all there is and end")
    how.add_argument("--foreground", action="store_true", help="stay in this process and log to standard error")


def add_ui(commands: Any) -> None:
    """Add `ui`."""
    parser = add(commands, "ui", "show it all on a web page of this machine [env: AUTOINST_HOME]", epilogs.UI)
    parser.add_argument("--port", type=port, default=7700, metavar="N", help="default %(default)s; 0: any free one")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default %(default)s)")
    parser.add_argument("--open", action="store_true", help="open it in a browser")
    parser.add_argument("--token", help="what a browser has to know first [env: AUTOINST_UI_TOKEN]")
    parser.add_argument("--read-from", metavar="PATH", help="show this home or store file as it is, changing nothing")
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a further name it is called by"
    )


def port(text: str) -> int:
    """Return a port's number, for argparse."""
    if not text.isascii() or not text.isdigit() or len(text) > len("65535") or int(text) > 65535:  # noqa: PLR2004
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 0 to 65535")
    return int(text)


def add_export(commands: Any) -> None:
    """Add `export`."""
    parser = add(commands, "export", "write the recorded jobs to standard output [env: AUTOINST_HOME]", epilogs.EXPORT)
    parser.add_argument("--format", choices=("jsonl", "csv"), default="jsonl", help="JSON Lines (default) or CSV")
    add_filters(parser, 0)


def add_import(commands: Any) -> None:
    """Add `import`."""
    parser = add(commands, "import", "put jobs that `export` wrote into the store [env: AUTOINST_HOME]", epilogs.IMPORT)
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="JSON Lines, compressed by gzip or not; - for standard input"
    )
    parser.add_argument("--strict", action="store_true", help="stop at the first line that is wrong")
    add_json(parser, "what was done as a JSON object")


def add_demo(commands: Any) -> None:
    """Add `demo`."""
    parser = add(
        commands, "demo", "run a small worker under autoinst and show its jobs [env: AUTOINST_HOME]", epilogs.DEMO
    )
    add_json(parser, "the recorded jobs, one JSON object a line")


def count(text: str) -> int:
    """Return a number of jobs, for argparse."""
    if not text.isascii() or not text.isdigit() or len(text) > MAX_DIGITS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on")
    return int(text)


def statuses(text: str) -> frozenset[str]:
    """Return the statuses named in `text`, for argparse."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in STATUSES:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(STATUSES)}")
    return frozenset(names)
