"""Wires the worker half when a process starts. It never raises, and prints at most one line on standard error."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from autoinst.hook.finder import Finder

_finder: Finder | None = None


def start() -> None:
    """Install the import hook for the rules in force, once; AUTOINST_ENABLED=0 installs nothing."""
    global _finder
    if _finder is not None:
        return
    try:
        _finder = _start()
    except Exception as error:  # instrumentation must not keep a program from starting
        from autoinst.config import say

        say(f"not started: {type(error).__name__}: {error}")


def start_beside() -> None:
    """Start where another sitecustomize, first on the path, kept the boot folder's from being imported.

    opentelemetry-instrument brings such a one and calls this by the entry point `opentelemetry_pre_instrument`.
    """
    import os
    import sys

    from autoinst.config import boot_folder

    boot = boot_folder()
    others = [entry for entry in sys.path if os.path.abspath(entry) != boot]
    if len(others) < len(sys.path):  # this process is to be instrumented, and is not yet
        sys.path[:] = others
        start()


def _start() -> Finder | None:
    from autoinst import config as configuration

    config = configuration.from_environ()
    if not config.enabled:
        return None
    from autoinst.rules.cache import load_cached

    rules = load_cached(config)
    configuration.remember(config, rules)
    if rules.problems:
        configuration.say(f"{_summary(rules.problems)}; see `autoinst check` and `autoinst doctor`")
    if not rules.tops and not rules.anywhere and not config.rules:
        return None
    from autoinst.hook import finder as hook
    from autoinst.hook import main_program

    finder = hook.install(config, rules)
    main_program.prepare(finder)
    return finder


def _summary(problems: list[str]) -> str:
    first = problems[0].strip().splitlines()[0]
    return first if len(problems) == 1 else f"{first} (and {len(problems) - 1} more)"
