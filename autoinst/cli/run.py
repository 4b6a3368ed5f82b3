"""`autoinst run`: resolve the target as a shell and Python would, then exec it with the boot folder on PYTHONPATH.

Nothing runs between the caller and the program afterwards, so its pid, signals, exit status, tracebacks, `sys.argv`
and `__main__` are plain Python's. This file is all that `autoinst run` imports: it starts within milliseconds.
"""

from __future__ import annotations

import os
import sys

from autoinst.config import OFF_WORDS, boot_folder

USAGE = "usage: autoinst run [options] TARGET [arguments]"
HELP = f"""{USAGE}

Run a Python program under autoinst. The program itself is not changed: it keeps its pid, output, exit status,
signals and tracebacks, and every job that a rule names is recorded.

targets:
  worker.py, DIRECTORY, app.pyz  what `python` would run by its path
  -m MODULE, -c CODE, -          a module, code, standard input
  COMMAND                        a console script such as rq, celery or gunicorn, found on PATH
Python's own options may stand before the target, for instance -u, -O, -W error, -X dev.

options:
  --rules FILE         rules file or folder, may be repeated [env: AUTOINST_RULES]
  --packs NAMES        built-in rule packs, such as `rq`, `-rq` or `none` [env: AUTOINST_PACKS]
  --service NAME       name of the program in the records [env: AUTOINST_SERVICE]
  --environment NAME   for instance production [env: AUTOINST_ENVIRONMENT]
  --revision TEXT      version of the program [env: AUTOINST_REVISION]
  --home DIRECTORY     where records are kept [env: AUTOINST_HOME]
  -h, --help           show this help
Without --rules the file autoinst.yaml in the working directory is used where there is one.

examples:
  autoinst run worker.py --queue mail
  autoinst run --rules rules.yaml -m billing.worker
  autoinst run rq worker mail
  AUTOINST_ENABLED=0 autoinst run worker.py      (run it without autoinst)

exit status: the program's own; 2 usage, 126 cannot be executed, 127 not found
"""

# Options of `run` that set a variable; the paths among them are made absolute, since children may change directory.
VARIABLES = {
    "--rules": "AUTOINST_RULES",
    "--packs": "AUTOINST_PACKS",
    "--service": "AUTOINST_SERVICE",
    "--environment": "AUTOINST_ENVIRONMENT",
    "--revision": "AUTOINST_REVISION",
    "--home": "AUTOINST_HOME",
}
PATHS = ("--rules", "--home")

# Python's command line (Python/getopt.c): options with an argument, those that end it with a target, and those with
# which it reads no sitecustomize.
TAKE_ARGUMENT = "cmWX"
ARE_TARGETS = "cm"
SKIP_BOOT = {
    "I": "-I (isolated mode) ignores PYTHONPATH",
    "E": "-E ignores PYTHONPATH",
    "S": "-S reads no sitecustomize",
}
RUN_BY_PYTHON = (".py", ".pyw", ".pyc", ".pyz", ".zip")

USAGE_ERROR, CANNOT_EXECUTE, NOT_FOUND = 2, 126, 127


class RunError(Exception):
    """The target cannot be run; `status` is the exit status a shell would give."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def main(arguments: list[str]) -> int:
    """Replace this process by the target; return an exit status only where that fails, or after --help."""
    try:
        variables, rest = own_options(arguments)
        if rest is None:
            sys.stdout.write(HELP)
            return 0
        program, argv, skipped = resolve(rest)
        environment = program_environment(variables)
        if skipped and "PYTHONPATH" in environment:
            sys.stderr.write(f"autoinst run: nothing will be recorded: {skipped}\n")
        else:
            start_agent(environment)
        return replace_process(program, argv, environment)
    except RunError as error:
        sys.stderr.write(f"autoinst run: {error}\n")
        if error.status == USAGE_ERROR:
            sys.stderr.write(f"{USAGE}\nTry `autoinst run --help`.\n")
        return error.status


def own_options(arguments: list[str]) -> tuple[dict[str, str], list[str] | None]:
    """Split off the options of `run` itself.

    Returns the variables they set and what is left (None: help was asked for). Raises RunError on an unknown option.
    """
    variables: dict[str, str] = {}
    position = 0
    while position < len(arguments):
        option, equals, value = arguments[position].partition("=")
        if option in ("-h", "--help"):
            return variables, None
        if option == "--":
            position += 1
            break
        if option not in VARIABLES:
            if option.startswith("--") and option != "--check-hash-based-pycs":
                raise RunError(USAGE_ERROR, f"unknown option {option}{did_you_mean(option, list(VARIABLES))}")
            break
        if not equals:
            position += 1
            if position == len(arguments):
                raise RunError(USAGE_ERROR, f"{option} needs a value")
            value = arguments[position]
        if option in PATHS:
            value = os.path.abspath(value)
        name = VARIABLES[option]
        variables[name] = variables[name] + os.pathsep + value if option == "--rules" and name in variables else value
        position += 1
    return variables, arguments[position:]


def resolve(arguments: list[str]) -> tuple[str, list[str], str | None]:
    """Find what to execute for `arguments` (Python's options, a target and its arguments).

    Returns the program's path, its argv, and why it would not read the boot folder (None: it will).
    Raises RunError where there is no target or it cannot be found.
    """
    if not sys.executable:
        raise RunError(NOT_FOUND, "Python does not know where its own program is")
    count, complete, skipped = python_options(arguments)
    if complete:
        return sys.executable, [sys.executable, *arguments], skipped
    if count == len(arguments):
        raise RunError(USAGE_ERROR, "no target" + (f" after {arguments[-1]}" if arguments else ""))
    options, target = arguments[:count], arguments[count]
    found = find_command(target)
    if found is None:
        return sys.executable, [sys.executable, *arguments], skipped
    if not options:
        return found, arguments, shebang_problem(found)
    interpreter = shebang(found).split(" ")[0]
    if "python" not in os.path.basename(interpreter):
        raise RunError(USAGE_ERROR, f"{options[0]} is an option of Python, and {found} is not run by Python directly")
    return interpreter, [interpreter, *options, found, *arguments[count + 1 :]], skipped or shebang_problem(found)


def python_options(arguments: list[str]) -> tuple[int, bool, str | None]:
    """Read Python's own options.

    Returns how many arguments they take, whether they already say what to run (-m, -c, -V), and why Python would skip
    the boot folder. Raises RunError where an option lacks its argument.
    """
    skipped = None
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        if argument == "-" or not argument.startswith("-"):
            break
        position += 1
        if argument == "--":
            break
        value_follows = argument == "--check-hash-based-pycs"
        letters = "" if value_follows else argument[1:]
        for index, letter in enumerate(letters, 1):
            if letter == "V":
                return position, True, None
            skipped = skipped or SKIP_BOOT.get(letter)
            if letter in TAKE_ARGUMENT:
                value_follows = index == len(letters)
                if letter in ARE_TARGETS and not (value_follows and position == len(arguments)):
                    return position, True, skipped
                break
        if value_follows and position == len(arguments):
            raise RunError(USAGE_ERROR, f"{argument} needs a value")
        position += value_follows
    return position, False, skipped


def find_command(target: str) -> str | None:
    """Return the path of the program `target` names, or None where Python itself is to run it.

    Raises RunError with a shell's 126 or 127 where it can be neither.
    """
    if target == "-" or target.endswith(RUN_BY_PYTHON) or os.path.isfile(os.path.join(target, "__main__.py")):
        return None
    if os.path.dirname(target):
        if os.path.isdir(target):
            return None
        if os.access(target, os.X_OK):
            return target
    else:
        # Beside PATH: the scripts installed with this Python, whose virtual environment may not be active.
        folders = [*os.get_exec_path(), os.path.dirname(sys.executable or "")]
        for folder in folders:
            path = os.path.join(folder, target)
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return path
        if os.name == "nt":
            import shutil

            path_with_extension = shutil.which(target, path=os.pathsep.join(folders))
            if path_with_extension:
                return path_with_extension
    if os.path.isdir(target):
        return None
    if os.path.isfile(target):
        interpreter = shebang(target)
        if interpreter and "python" not in interpreter:
            raise RunError(CANNOT_EXECUTE, f"{target}: permission denied")
        return None
    raise RunError(NOT_FOUND, f"{target}: no such file or command{did_you_mean(target, known_targets())}")


def shebang(path: str) -> str:
    """Return the interpreter line of the script at `path` without its `#!`, or an empty text."""
    try:
        with open(path, "rb") as script:
            line = script.readline(1024)
    except OSError:
        return ""
    return os.fsdecode(line[2:]).strip() if line.startswith(b"#!") else ""


def shebang_problem(path: str) -> str | None:
    """Say why the script at `path` would not read the boot folder, or would find no autoinst there; None if it does."""
    interpreter, _, options = shebang(path).partition(" ")
    if "python" not in os.path.basename(interpreter):
        return None
    for letter, reason in SKIP_BOOT.items():
        if options.startswith("-") and letter in options.split(" ")[0]:
            return f"{path} starts Python with {reason}"
    folder = os.path.dirname(interpreter)
    if folder == os.path.dirname(sys.executable) or not os.path.exists(interpreter) or has_autoinst(folder):
        return None
    return f"{path} runs on {interpreter}, where autoinst is not installed"


def has_autoinst(bin_folder: str) -> bool:
    """Whether the interpreter in `bin_folder` finds some autoinst (as far as its folders tell)."""
    if os.path.isdir(os.path.join(os.path.dirname(boot_folder()), "yaml")):
        return True  # the single file: the package and all it needs lie beside the boot folder, for any Python
    library = os.path.join(os.path.dirname(bin_folder), "lib")
    try:
        pythons = [name for name in os.listdir(library) if name.startswith("python")]
        return any(
            entry.startswith("autoinst-")
            for name in pythons
            for packages in ("site-packages", "dist-packages")
            if os.path.isdir(os.path.join(library, name, packages))
            for entry in os.listdir(os.path.join(library, name, packages))
        )
    except OSError:
        return True  # cannot be told: say nothing


def start_agent(environment: dict[str, str]) -> None:
    """Start the agent beside the program, unless it is there, not wanted, or not possible."""
    if (environment.get("AUTOINST_AGENT") or "auto").strip().lower() not in OFF_WORDS:
        from autoinst.agent import launch

        launch.start_for_program(environment)


def program_environment(variables: dict[str, str]) -> dict[str, str]:
    """Return the program's environment: this one, `variables`, and the boot folder on PYTHONPATH."""
    environment = dict(os.environ)
    undo_locale_coercion(environment)
    environment.update(variables)
    if (environment.get("AUTOINST_ENABLED") or "1").strip().lower() not in OFF_WORDS:
        given = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = boot_folder() + (os.pathsep + given if given else "")
    return environment


def undo_locale_coercion(environment: dict[str, str]) -> None:
    """Take back the LC_CTYPE that Python sets for itself in the C locale (PEP 538): the program decides that again."""
    if not environment.get("LC_CTYPE", "").upper().endswith(("UTF-8", "UTF8")):
        return
    try:
        with open("/proc/self/environ", "rb") as file:
            original = file.read().split(b"\0")
    except OSError:
        return  # no procfs: the one variable stays
    given = [entry[len(b"LC_CTYPE=") :] for entry in original if entry.startswith(b"LC_CTYPE=")]
    if given:
        environment["LC_CTYPE"] = os.fsdecode(given[0])
    else:
        del environment["LC_CTYPE"]


def replace_process(program: str, argv: list[str], environment: dict[str, str]) -> int:
    """Exec `program`; on Windows, which has no exec, wait for it and return its status. Raises RunError."""
    if os.name == "nt":
        import subprocess

        return subprocess.call([program, *argv[1:]], env=environment)
    import _signal  # type: ignore[import-not-found]  # what the signal module wraps, without its enums

    # Python ignores these two in itself, and exec would hand that on (subprocess restores them likewise).
    for name in ("SIGPIPE", "SIGXFSZ"):
        if hasattr(_signal, name):
            _signal.signal(getattr(_signal, name), _signal.SIG_DFL)
    try:
        os.execve(program, argv, environment)
    except FileNotFoundError as error:
        interpreter = shebang(program)
        reason = f"bad interpreter {interpreter}" if interpreter else error.strerror
        raise RunError(CANNOT_EXECUTE if interpreter else NOT_FOUND, f"{program}: {reason}") from None
    except OSError as error:
        raise RunError(CANNOT_EXECUTE, f"{program}: {error.strerror}") from None


def did_you_mean(name: str, known: list[str], most: int = 3) -> str:
    """Return a hint that names the nearest of `known`, at most so many, or an empty text."""
    import difflib

    near = difflib.get_close_matches(name, known, most)
    return f" (did you mean {', '.join(near)}?)" if near else ""


def known_targets() -> list[str]:
    """Return names that could have been meant: Python files here, and the scripts of this Python."""
    names = []
    for folder, ending in ((".", ".py"), (os.path.dirname(sys.executable or ""), "")):
        try:
            names += [name for name in sorted(os.listdir(folder or ".")) if name.endswith(ending)]
        except OSError:
            continue  # only a hint
    return names
