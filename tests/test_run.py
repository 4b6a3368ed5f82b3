"""`autoinst run`: what it runs is what plain Python makes of it."""

from __future__ import annotations

import os
import signal
import stat
import sys
from typing import TYPE_CHECKING

import pytest

from autoinst.cli import run
from autoinst.config import boot_folder
from tests.launching import AUTOINST, ENDS, FORMS, PROBE, arguments, environment, launch

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("form", FORMS)
def test_equals_plain_python(form: str, end: str, folder: Path, tmp_path: Path) -> None:
    env = environment(tmp_path / "home")
    target = [*arguments(form, folder), end, "second argument"]
    stdin = PROBE if form == "standard input" else "piped\n"
    plain = launch([sys.executable, *target], folder, env, stdin)
    ours = launch([AUTOINST, "run", *target], folder, env, stdin)
    assert ours.seen() == plain.seen()
    assert ours.messages() == plain.messages()
    assert ours.status == plain.status


def test_the_modes_of_ending_are_real(folder: Path, tmp_path: Path) -> None:
    env = environment(tmp_path / "home")
    ends = {end: launch([AUTOINST, "run", "probe.py", end], folder, env) for end in ENDS}
    assert {end: outcome.status for end, outcome in ends.items()} == {
        "normal": 0,
        "exit": 3,
        "exit-text": 1,
        "raise": 1,
        "_exit": 5,
        "interrupt": -signal.SIGINT,
        "abort": -signal.SIGABRT,
        "SIGTERM": -signal.SIGTERM,
        "SIGKILL": -signal.SIGKILL,
        "SIGINT": -signal.SIGINT,
        "SIGPIPE": 0,
    }
    assert ends["raise"].stderr.endswith("ValueError: the job failed\n")


def test_equals_plain_python_in_the_c_locale(folder: Path, tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "AUTOINST_HOME": str(tmp_path / "home")}
    plain = launch([sys.executable, "probe.py", "normal"], folder, env)
    ours = launch([AUTOINST, "run", "probe.py", "normal"], folder, env)
    assert ours.seen() == plain.seen()
    given = launch([AUTOINST, "run", "probe.py", "normal"], folder, env | {"LC_CTYPE": "C.UTF-8"})
    assert "'LC_CTYPE': 'C.UTF-8'" in given.seen()["environ"]


def make_command(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize("end", ENDS)
def test_console_script_equals_itself(end: str, folder: Path, tmp_path: Path) -> None:
    make_command(folder / "worker", f"#!{sys.executable}\n{PROBE}")
    env = environment(tmp_path / "home", PATH=f"{folder}:{os.environ['PATH']}")
    plain = launch([str(folder / "worker"), end], folder, env)
    ours = launch([AUTOINST, "run", "worker", end], folder, env)
    assert ours.seen() == plain.seen()
    assert (ours.stderr, ours.status) == (plain.stderr, plain.status)


def test_python_options_before_a_console_script(folder: Path, tmp_path: Path) -> None:
    make_command(folder / "worker", f"#!{sys.executable}\nimport sys; print(sys.flags.optimize, sys.argv)")
    env = environment(tmp_path / "home", PATH=f"{folder}:{os.environ['PATH']}")
    outcome = launch([AUTOINST, "run", "-OO", "worker", "-O", "x"], folder, env)
    assert outcome.stdout == f"2 ['{folder}/worker', '-O', 'x']\n"
    make_command(folder / "shell", "#!/bin/sh\n")
    outcome = launch([AUTOINST, "run", "-O", "shell"], folder, env)
    assert outcome.status == 2
    assert "-O is an option of Python" in outcome.stderr


def test_scripts_of_an_inactive_virtual_environment_are_found(folder: Path, tmp_path: Path) -> None:
    env = environment(tmp_path / "home", PATH="/usr/bin:/bin")
    outcome = launch([AUTOINST, "run", "pytest", "--version"], folder, env)
    assert outcome.stdout.startswith("pytest ")
    assert outcome.status == 0


def test_a_command_that_is_not_python_keeps_default_signals(folder: Path, tmp_path: Path) -> None:
    outcome = launch([AUTOINST, "run", "sh", "-c", "kill -PIPE $$"], folder, environment(tmp_path / "home"))
    assert outcome.status == -signal.SIGPIPE


def test_two_dashes_end_the_options(folder: Path, tmp_path: Path) -> None:
    env = environment(tmp_path / "home")
    for target in (["--", "probe.py"], ["-u", "--", "probe.py"], ["--", "-u", "probe.py"]):
        outcome = launch([AUTOINST, "run", *target, "normal", "--rules", "x"], folder, env)
        assert outcome.seen()["argv"] == "['probe.py', 'normal', '--rules', 'x']"
        assert outcome.stderr == ""


def test_only_the_boot_folder_is_put_on_pythonpath(folder: Path, tmp_path: Path) -> None:
    env = environment(tmp_path / "home")
    show = "import os, sys; print(os.environ.get('PYTHONPATH')); print(sys.path)"
    boot = boot_folder()
    assert sorted(name for name in os.listdir(boot) if name != "__pycache__") == ["sitecustomize.py"]
    for given, expected in ((None, boot), ("", boot), ("a:/b::", f"{boot}:a:/b::")):
        with_path = env if given is None else env | {"PYTHONPATH": given}
        plain = launch([sys.executable, "-c", show], folder, with_path).stdout.splitlines()
        ours = launch([AUTOINST, "run", "-c", show], folder, with_path).stdout.splitlines()
        assert ours[0] == expected
        assert ours[1:] == plain[1:]
    off = launch([AUTOINST, "run", "-c", show], folder, env | {"AUTOINST_ENABLED": "0"})
    assert off.stdout.startswith("None\n")


def test_options_set_the_variables(folder: Path, tmp_path: Path) -> None:
    show = "import os; print([os.environ.get('AUTOINST_' + n) for n in ('RULES', 'PACKS', 'SERVICE', 'HOME')])"
    command = [AUTOINST, "run", "--rules", "a.yaml", "--rules=/b", "--packs", "none", "--service=mail", "--home", "h"]
    (folder / "a.yaml").write_text("version: 1\n")
    outcome = launch([*command, "-c", show], folder, environment(tmp_path / "home"))
    assert outcome.stdout == f"{[f'{folder}/a.yaml:/b', 'none', 'mail', f'{folder}/h']}\n"


@pytest.mark.parametrize("option", ["-I", "-E", "-S", "-uE", "-sI"])
def test_one_line_says_that_nothing_will_be_recorded(option: str, folder: Path, tmp_path: Path) -> None:
    env = environment(tmp_path / "home")
    outcome = launch([AUTOINST, "run", option, "-c", "print('ran')"], folder, env)
    assert outcome.stdout == "ran\n"
    assert outcome.stderr.startswith("autoinst run: nothing will be recorded: -")
    assert outcome.stderr.count("\n") == 1
    quiet = launch([AUTOINST, "run", option, "-c", "print('ran')"], folder, env | {"AUTOINST_ENABLED": "0"})
    assert quiet.stderr == ""


def test_one_line_for_a_script_of_an_isolated_or_foreign_python(folder: Path, tmp_path: Path) -> None:
    env = environment(tmp_path / "home", PATH=f"{folder}:{os.environ['PATH']}")
    make_command(folder / "isolated", f"#!{sys.executable} -sE\nprint('ran')\n")
    outcome = launch([AUTOINST, "run", "isolated"], folder, env)
    assert outcome.stdout == "ran\n"
    assert outcome.stderr.splitlines() == [
        f"autoinst run: nothing will be recorded: {folder}/isolated starts Python with -E ignores PYTHONPATH"
    ]
    foreign = folder / "foreign-venv" / "bin"
    foreign.mkdir(parents=True)
    (folder / "foreign-venv" / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    (foreign / "python").symlink_to(sys.executable)
    make_command(folder / "foreign", f"#!{foreign}/python\nprint('ran')\n")
    outcome = launch([AUTOINST, "run", "foreign"], folder, env)
    assert outcome.stdout == "ran\n"
    assert "where autoinst is not installed" in outcome.stderr


def test_the_single_file_brings_all_that_a_foreign_python_needs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = folder / "foreign-venv" / "bin"
    foreign.mkdir(parents=True)
    (folder / "foreign-venv" / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    (foreign / "python").symlink_to(sys.executable)
    make_command(folder / "foreign", f"#!{foreign}/python\nprint('ran')\n")
    monkeypatch.setattr(run, "boot_folder", lambda: str(folder / "unpacked" / "sitecustomize_example"))
    problem = run.shebang_problem(str(folder / "foreign"))
    assert problem == f"{folder}/foreign runs on {foreign}/python, where autoinst is not installed"
    (folder / "unpacked" / "yaml").mkdir(parents=True)
    assert run.shebang_problem(str(folder / "foreign")) is None


@pytest.mark.parametrize(
    ("given", "status", "message"),
    [
        ([], 2, "no target"),
        (["--"], 2, "no target"),
        (["-u"], 2, "no target after -u"),
        (["-m"], 2, "-m needs a value"),
        (["-W"], 2, "-W needs a value"),
        (["--rules"], 2, "--rules needs a value"),
        (["--rulez", "x"], 2, "unknown option --rulez (did you mean --rules?)"),
        (["no-such-command"], 127, "no-such-command: no such file or command"),
        (["./no-such-command"], 127, "./no-such-command: no such file or command"),
        (["prob"], 127, "did you mean probe.py"),
        (["pytst"], 127, "did you mean pytest"),
        (["./plain.sh"], 126, "./plain.sh: permission denied"),
        (["./binary"], 126, "./binary: Exec format error"),
        (["./lost"], 126, "./lost: bad interpreter /nowhere/python"),
    ],
)
def test_usage_and_what_cannot_run(given: list[str], status: int, message: str, folder: Path, tmp_path: Path) -> None:
    (folder / "plain.sh").write_text("#!/bin/sh\n")
    make_command(folder / "binary", "\0\1\2")
    make_command(folder / "lost", "#!/nowhere/python\n")
    (folder / "probe").unlink()
    outcome = launch([AUTOINST, "run", *given], folder, environment(tmp_path / "home"))
    assert outcome.status == status
    assert message in outcome.stderr.splitlines()[0]
    assert outcome.stdout == ""
    assert ("usage: autoinst run" in outcome.stderr) == (status == 2)


def test_help(folder: Path, tmp_path: Path) -> None:
    outcome = launch([AUTOINST, "run", "--help"], folder, environment(tmp_path / "home"))
    assert outcome.status == 0
    assert "[env: AUTOINST_RULES]" in outcome.stdout
    assert outcome.stderr == ""


def test_a_missing_script_is_python_s_own_message(folder: Path, tmp_path: Path) -> None:
    env = environment(tmp_path / "home")
    plain = launch([sys.executable, "missing.py"], folder, env)
    ours = launch([AUTOINST, "run", "missing.py"], folder, env)
    assert (ours.status, ours.stderr) == (plain.status, plain.stderr)


def test_starts_without_argparse_and_its_like(folder: Path, tmp_path: Path) -> None:
    env = environment(tmp_path / "home")
    command = [sys.executable, "-X", "importtime", AUTOINST, "run", "--help"]
    names = [line.rpartition("|")[2].strip() for line in launch(command, folder, env).stderr.splitlines()]
    imported = set(names[names.index("site") :])  # what this environment's .pth files import is not ours
    assert "autoinst.cli.run" in imported
    assert imported.isdisjoint({"argparse", "re", "json", "typing", "enum", "subprocess", "shutil", "signal", "yaml"})
