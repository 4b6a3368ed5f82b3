"""Programs in every form Python can run, every way they can end, and what each run looked like from outside."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

AUTOINST = str(Path(sys.executable).with_name("autoinst"))

# Prints what a program can see of how it was started, then ends as its first argument says.
PROBE = r"""
import os, sys

def look():
    main = sys.modules["__main__"]
    spec = main.__spec__
    status = open("/proc/self/status").read().splitlines()
    site = sys.modules.get("sitecustomize")
    return {
        "pid": os.getpid(),
        "argv": sys.argv,
        "orig_argv": sys.orig_argv,
        "path": sys.path,
        "flags": str(sys.flags),
        "warnings": sys.warnoptions,
        "xoptions": sys._xoptions,
        "main": sorted(vars(main)),
        "name": main.__name__,
        "file": getattr(main, "__file__", None),
        "cached": getattr(main, "__cached__", None),
        "package": main.__package__,
        "loader": type(main.__loader__).__name__ if not isinstance(main.__loader__, type) else main.__loader__.__name__,
        "spec": spec and (spec.name, spec.origin, spec.parent, type(spec.loader).__name__),
        "cwd": os.getcwd(),
        "ids": (os.getppid(), os.getpgrp(), os.getsid(0)),
        "stdin": sys.stdin.read(),
        "streams": [(s.encoding, s.errors, s.line_buffering) for s in (sys.stdin, sys.stdout, sys.stderr)],
        "signals": [line for line in status if line.startswith(("SigB", "SigI", "SigC"))],
        "threads": [line for line in status if line.startswith("Threads")],
        "descriptors": sorted(os.listdir("/proc/self/fd"))[:-1],
        "environ": {name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "sitecustomize": site and (site.__file__, site.__spec__.name),
        "depth": len([f for f in iterate(sys._getframe())]),
    }

def iterate(frame):
    while frame is not None:
        yield frame
        frame = frame.f_back

def fail():
    try:
        {}["key"]
    except KeyError as error:
        raise ValueError("the job failed") from error

def end(how):
    import signal
    if how == "exit":
        sys.exit(3)
    if how == "exit-text":
        sys.exit("a message")
    if how == "raise":
        fail()
    if how == "_exit":
        os._exit(5)
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "abort":
        os.abort()
    if how.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, how))

for name, value in sorted(look().items()):
    print(name, repr(value), flush=True)
end(sys.argv[1])
"""

ENDS = (
    "normal",
    "exit",
    "exit-text",
    "raise",
    "_exit",
    "interrupt",
    "abort",
    "SIGTERM",
    "SIGKILL",
    "SIGINT",
    "SIGPIPE",
)
FORMS = (
    "script",
    "absolute script",
    "symbolic link",
    "no extension",
    "module",
    "package",
    "code",
    "standard input",
    "directory",
    "zip",
    "pyz",
    "options",
)


@dataclass
class Outcome:
    """What one run left: exit status (negative: signal), pid, and both streams."""

    status: int
    pid: int
    stdout: str
    stderr: str

    def seen(self) -> dict[str, str]:
        """Return what the probe printed, by name, without what differs between any two runs."""
        found = dict(line.split(" ", 1) for line in self.stdout.splitlines())
        assert found.pop("pid") == str(self.pid)
        return found

    def messages(self) -> str:
        """Return what it said on stderr, without the thread ids and the list of modules a crashed Python dumps."""
        return re.sub("0x[0-9a-f]{8,}|\n*Extension modules: .*", "", self.stderr).rstrip("\n")


def make_programs(folder: Path) -> None:
    """Write the probe in every form into `folder`."""
    (folder / "probe.py").write_text(PROBE)
    (folder / "link.py").symlink_to("probe.py")
    (folder / "probe").write_text(PROBE)
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").write_text("")
    (folder / "package" / "__main__.py").write_text(PROBE)
    (folder / "directory").mkdir()
    (folder / "directory" / "__main__.py").write_text(PROBE)
    for name in ("probe.zip", "probe.pyz"):
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("__main__.py", PROBE)


def arguments(form: str, folder: Path) -> list[str]:
    """Return what stands after `python` or `autoinst run` to run the probe in that form."""
    return {
        "script": ["probe.py"],
        "absolute script": [str(folder / "probe.py")],
        "symbolic link": ["link.py"],
        "no extension": ["./probe"],
        "module": ["-m", "probe"],
        "package": ["-m", "package"],
        "code": ["-c", PROBE],
        "standard input": ["-"],
        "directory": ["directory"],
        "zip": ["probe.zip"],
        "pyz": ["probe.pyz"],
        "options": ["-u", "-O", "-W", "error", "-Xdev", "-Bs", "probe.py"],
    }[form]


def environment(home: Path, **variables: str) -> dict[str, str]:
    """Return this process's environment without what would steer Python or autoinst, plus `variables`."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("AUTOINST_", "PYTHON", "COV_", "PYTEST_"))}
    return kept | {"AUTOINST_HOME": str(home), "AUTOINST_AGENT": "off"} | variables


def launch(command: list[str], folder: Path, env: dict[str, str], stdin: str = "piped\n") -> Outcome:
    """Run `command` in `folder` and return its outcome; SIGINT is what a shell's foreground child has."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_default_signals,  # noqa: PLW1509 - the tests start no threads
    )
    stdout, stderr = process.communicate(stdin, timeout=60)
    return Outcome(process.returncode, process.pid, stdout, stderr)


def _default_signals() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
