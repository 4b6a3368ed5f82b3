"""The command line's commands, their options and their help."""

from __future__ import annotations

import argparse
from typing import Any

from autoinst import __version__
from autoinst.store.failures import STATES
from autoinst.store.figures import SORTS

COMMANDS = (
    *("run", "jobs", "tail", "show", "actions", "errors", "check", "explain", "doctor", "agent", "ui", "export"),
    *("init", "demo", "completion", "path"),
)
MAX_DIGITS = 18  # of a number that SQLite can hold
STATUSES = ("ok", "error", "ignored", "killed", "running")

MAIN_EPILOG = """\
examples:
  autoinst init                             write a first rules file for the program here
  autoinst run worker.py --queue mail       run a program under autoinst; `autoinst run --help` says more
  autoinst jobs --status error,killed       what went wrong
  autoinst show 3fe02125cc1a                one job, by the ID in that table
  autoinst check rules.yaml                 is the rules file right?

environment:
  AUTOINST_HOME         where records are kept (default: the XDG state directory's autoinst folder)
  AUTOINST_RULES        rules files and folders, separated as PATH is (default: autoinst.yaml in the working directory)
  AUTOINST_PACKS        built-in rule packs: default, none, rq, -rq, ...
  AUTOINST_GROUP        group that may read them: the home is then 2750, its files 0640 (default: nobody else may)
  AUTOINST_EXPORTERS    where the agent sends jobs: otlp (default: those of the rules file)
  AUTOINST_STORE        ClickHouse past one machine: clickhouse://user:password@host:8123/database
  AUTOINST_AGENT=off    `run` starts no agent; `jobs` and the like read what workers recorded by themselves
  AUTOINST_ENABLED=0    `run` and the sitecustomize install nothing
  NO_COLOR              no colour on a terminal either

exit status: 0 ok, 1 problems, 2 usage; `run`: the program's own"""

JOBS_EPILOG = """\
examples:
  autoinst jobs --limit 20
  autoinst jobs --status error,killed --since 2h
  autoinst jobs --action 'billing.jobs.*' --queue mail
  autoinst jobs --json --limit 0 | jq .duration

ID is a short form of a job's id, which `autoinst show` takes; --json has all of it."""

TAIL_EPILOG = """\
examples:
  autoinst tail
  autoinst tail --status error,killed --action 'billing.*'
  autoinst tail --json --limit 0 | jq .action      only what ends from now on"""

ACTIONS_EPILOG = """\
examples:
  autoinst actions
  autoinst actions --since 1h --sort p95
  autoinst actions --json | jq 'select(.errors > 0)'"""

ERRORS_EPILOG = """\
examples:
  autoinst errors
  autoinst errors 3fe0 --resolve
  autoinst errors --state all --json"""

COMPLETION_EPILOG = """\
examples:
  autoinst completion bash > ~/.local/share/bash-completion/completions/autoinst
  autoinst completion zsh > ~/.zfunc/_autoinst      with fpath+=~/.zfunc before compinit
  autoinst completion fish > ~/.config/fish/completions/autoinst.fish"""

SHOW_EPILOG = """\
examples:
  autoinst show 3fe02125cc1a
  autoinst show 3fe02125cc1a --full
  autoinst show 3fe02125cc1a --json | jq .exception"""

INIT_EPILOG = """\
examples:
  autoinst init
  autoinst init services/billing -o -

Nothing of the program is imported. Likely jobs become rules, doubtful ones comments."""

CHECK_EPILOG = """\
examples:
  autoinst check rules.yaml
  autoinst check rules.d/ --json

exit status: 0 nothing wrong, 1 problems, 2 usage"""

EXPLAIN_EPILOG = """\
examples:
  autoinst explain shop.jobs:Mailer.perform
  autoinst explain shop.jobs                  every function of the module that a rule acts on
  autoinst explain worker.py:main --rules rules.yaml
  autoinst explain rq.job:Job.perform --json

exit status: 0 a rule acts on each, 1 not so, 2 usage"""

DOCTOR_EPILOG = """\
examples:
  autoinst doctor
  AUTOINST_RULES=rules.yaml autoinst doctor --json

exit status: 0 all well, 1 something needs attention"""

AGENT_EPILOG = """\
examples:
  autoinst agent                  as a daemon, unless one runs; it ends when nothing is left to do
  autoinst agent --foreground     under systemd or in a container: until SIGTERM
  autoinst agent --once           store all there is, and end

environment:
  AUTOINST_AGENT_IDLE   seconds without a worker after which the daemon ends (default 60)
  AUTOINST_AGENT=off    `autoinst run` starts none

There is one agent a home; a second says who leads. docs/operations.md has a systemd unit and a sidecar."""

EXPORT_EPILOG = """\
examples:
  autoinst export > jobs.jsonl
  autoinst export --format csv --since 7d --status error > errors.csv

JSON Lines have all that `autoinst jobs --json` has; CSV leaves out events and backtraces."""

UI_EPILOG = """\
examples:
  autoinst ui --open
  autoinst ui --port 0
  autoinst ui --read-from /backup/autoinst/store.sqlite3
  AUTOINST_UI_TOKEN=... autoinst ui --host 0.0.0.0

Only this machine is served unless there is a token. Keys: / searches, j and k choose a row, ? shows all.
It needs what `pip install 'autoinst[ui]'` installs. docs/web.md says more."""

DEMO_EPILOG = """\
examples:
  autoinst demo
  AUTOINST_HOME=/tmp/demo autoinst demo"""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="autoinst",
        description="See every background job of a Python program without changing a line of it.",
        epilog=MAIN_EPILOG,
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
    add_demo(commands)
    add_completion(commands)
    add(commands, "path", "print the folder to put on PYTHONPATH instead of using `run`", PATH_EPILOG)
    return parser


def subcommands(parser: argparse.ArgumentParser) -> dict[str, tuple[str, argparse.ArgumentParser]]:
    """Return help text and parser of each command of `make_parser`, by its name."""
    # argparse tells its actions in no other way
    (found,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))  # noqa: SLF001
    helps = {action.dest: action.help or "" for action in found._choices_actions}  # noqa: SLF001
    return {name: (helps[name], sub) for name, sub in found.choices.items()}


PATH_EPILOG = """\
example:
  PYTHONPATH=$(autoinst path) python worker.py"""


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
    parser = add(commands, "jobs", "list the recorded jobs, newest first [env: AUTOINST_HOME]", JOBS_EPILOG)
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
    parser = add(commands, "tail", "print jobs as they end, until Ctrl-C [env: AUTOINST_HOME]", TAIL_EPILOG)
    add_json(parser, "one JSON object a line")
    add_filters(parser, 10, "for none")
    parser.add_argument("--no-follow", action="store_true", help="only the last ones that ended")


def add_actions(commands: Any) -> None:
    """Add `actions`."""
    parser = add(
        commands, "actions", "list totals by action: jobs, failures, times [env: AUTOINST_HOME]", ACTIONS_EPILOG
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
        commands, "errors", "list errors by fingerprint, or show or settle one [env: AUTOINST_HOME]", ERRORS_EPILOG
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
    parser = add(commands, "completion", "print what completes commands and options in a shell", COMPLETION_EPILOG)
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def add_show(commands: Any) -> None:
    """Add `show`."""
    parser = add(
        commands, "show", "show one job: its events on a time line, its backtrace [env: AUTOINST_HOME]", SHOW_EPILOG
    )
    parser.add_argument("id", metavar="ID", help="its ID in `autoinst jobs`, its whole id or the library's own job id")
    parser.add_argument("--full", action="store_true", help="also the frames of libraries, and long values whole")
    add_json(parser, "the job as a JSON object")


def add_init(commands: Any) -> None:
    """Add `init`."""
    parser = add(commands, "init", "write a first rules file from what a program's text shows", INIT_EPILOG)
    parser.add_argument("folder", nargs="?", default=".", metavar="DIR", help="the program's folder (default: here)")
    parser.add_argument("-o", "--output", metavar="FILE", help="default autoinst.yaml in DIR; - for standard output")
    parser.add_argument("--force", action="store_true", help="also if there is such a file")
    add_json(parser, "what was found as a JSON object")


def add_check(commands: Any) -> None:
    """Add `check`."""
    parser = add(commands, "check", "check rules files and say all that is wrong, with its place", CHECK_EPILOG)
    parser.add_argument("files", nargs="+", metavar="FILE", help="rules file, or a folder of them")
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
        EXPLAIN_EPILOG,
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
        DOCTOR_EPILOG,
    )
    add_json(parser, "one JSON object")


def add_agent(commands: Any) -> None:
    """Add `agent`."""
    parser = add(
        commands,
        "agent",
        "move what workers record into the store as they record it [env: AUTOINST_HOME]",
        AGENT_EPILOG,
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--once", action="store_true", help="drain all there is and end")
    how.add_argument("--foreground", action="store_true", help="stay in this process and log to standard error")


def add_ui(commands: Any) -> None:
    """Add `ui`."""
    parser = add(commands, "ui", "show it all on a web page of this machine [env: AUTOINST_HOME]", UI_EPILOG)
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
    parser = add(commands, "export", "write the recorded jobs to standard output [env: AUTOINST_HOME]", EXPORT_EPILOG)
    parser.add_argument("--format", choices=("jsonl", "csv"), default="jsonl", help="JSON Lines (default) or CSV")
    add_filters(parser, 0)


def add_demo(commands: Any) -> None:
    """Add `demo`."""
    parser = add(
        commands, "demo", "run a small worker under autoinst and show its jobs [env: AUTOINST_HOME]", DEMO_EPILOG
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
