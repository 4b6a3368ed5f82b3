"""`autoinst completion`: what bash, zsh and fish need to complete commands and options, made from the parser."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from autoinst.cli.options import make_parser, subcommands
from autoinst.cli.output import Output
from autoinst.cli.run import PATHS, VARIABLES

if TYPE_CHECKING:
    import argparse

FILES = ("FILE", "PATH", "DIR")  # metavars whose values are files
RUN = "run"


@dataclass(frozen=True)
class Option:
    """An option, or what stands without one (`names` empty): its values are `choices`, or `files`."""

    names: tuple[str, ...]
    help: str
    choices: tuple[str, ...] = ()
    files: bool = False
    takes: bool = True


@dataclass(frozen=True)
class Command:
    """A subcommand."""

    name: str
    help: str
    options: tuple[Option, ...]

    @property
    def names(self) -> list[str]:
        """All names of its options."""
        return [name for option in self.options for name in option.names]


# `run` has a parser of its own, which all of its own options set a variable of.
RUN_OPTIONS = tuple(Option((name,), f"sets {variable}", files=name in PATHS) for name, variable in VARIABLES.items())


def run(options: argparse.Namespace) -> int:
    """Print the script for `options.shell`; returns 0."""
    text = {"bash": bash, "zsh": zsh, "fish": fish}[options.shell](commands(make_parser()))
    for line in text.splitlines():
        Output().line(line)
    return 0


def commands(parser: argparse.ArgumentParser) -> list[Command]:
    """Return the subcommands of `parser` in its order."""
    found = [Command(name, _plain(text), tuple(_options(sub))) for name, (text, sub) in subcommands(parser).items()]
    return [replace(command, options=RUN_OPTIONS) if command.name == RUN else command for command in found]


def _options(parser: argparse.ArgumentParser) -> list[Option]:
    return [
        Option(
            tuple(action.option_strings),
            _plain((action.help or "") % {"default": action.default}),
            tuple(map(str, action.choices or ())),
            action.metavar in FILES,
            action.nargs != 0,
        )
        for action in parser._actions  # noqa: SLF001 - argparse tells its actions in no other way
    ]


def _plain(text: str) -> str:
    """Return a help text without what a shell would take for its own."""
    return "".join(letter for letter in text.partition(" [env")[0] if letter not in "'\"[]:`$\\")


def bash(found: list[Command]) -> str:
    """Return the script for bash."""
    cases = "\n".join(_bash_case(command) for command in found)
    return f"""\
# autoinst for bash: source it, or put it into bash_completion's folder.
_autoinst() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" words=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{" ".join(command.name for command in found)} --help --version" -- "$word"))
        return
    fi
    case "${{COMP_WORDS[1]}}" in
{cases}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    [ -n "$COMPREPLY" ] || COMPREPLY=($(compgen -f -- "$word"))
    [ "${{COMP_WORDS[1]}}" != run ] || COMPREPLY+=($(compgen -c -- "$word"))
}}
complete -o filenames -F _autoinst autoinst
"""


def _bash_case(command: Command) -> str:
    lines = [f"    {command.name})"]
    chosen = [option for option in command.options if option.names and option.choices]
    if chosen:
        lines.append('        case "$before" in')
    for option in chosen:
        reply = f'COMPREPLY=($(compgen -W "{" ".join(option.choices)}" -- "$word"))'
        lines.append(f"            {'|'.join(option.names)}) {reply}; return ;;")
    if chosen:
        lines.append("        esac")
    places = [word for option in command.options if not option.names for word in option.choices]
    return "\n".join([*lines, f'        words="{" ".join([*command.names, *places])}" ;;'])


def zsh(found: list[Command]) -> str:
    """Return the script for zsh."""
    names = "\n".join(f"        '{command.name}:{command.help}'" for command in found)
    cases = []
    for command in found:
        arguments = []
        for option in command.options:
            value = f"({' '.join(option.choices)})" if option.choices else "_files" if option.files else " "
            if not option.names:
                arguments.append(f"'*:{option.help}:{value}'")
            more = f":value:{value}" if option.takes else ""
            arguments += [f"'{name}[{option.help}]{more}'" for name in option.names]
        if command.name == RUN:
            arguments.append("'*:target:_files'")
        cases.append(f"        {command.name}) _arguments {' '.join(arguments)} ;;")
    return f"""\
#compdef autoinst
_autoinst() {{
    local -a commands=(
{names}
    )
    if (( CURRENT == 2 )); then
        _describe command commands
        return
    fi
    local command=$words[2]
    shift words
    (( CURRENT-- ))
    case $command in
{chr(10).join(cases)}
    esac
}}
compdef _autoinst autoinst
"""


def fish(found: list[Command]) -> str:
    """Return the script for fish."""
    lines = ["# autoinst for fish"]
    lines += [
        f"complete -c autoinst -n __fish_use_subcommand -f -a {command.name} -d '{command.help}'" for command in found
    ]
    for command in found:
        inside = f"complete -c autoinst -n '__fish_seen_subcommand_from {command.name}'"
        for option in command.options:
            if not option.names:
                if option.choices:
                    lines.append(f"{inside} -f -a '{' '.join(option.choices)}'")
                continue
            names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
            value = f" -x -a '{' '.join(option.choices)}'" if option.choices else " -r" if option.takes else ""
            lines.append(f"{inside} {names}{value} -d '{option.help}'")
    return "\n".join(lines) + "\n"
