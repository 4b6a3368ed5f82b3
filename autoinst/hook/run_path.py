"""Reaches what `runpy` runs by a path: `runpy.run_path`, and the main module in a child of multiprocessing.

A spawned child runs its parent's main script, or module, as `__mp_main__`; rules call it `__main__`, or by its name.
Two functions of runpy that fetch code are replaced; they have returned before that code runs.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from typing import Any

    from autoinst.hook.finder import Finder

MAIN_NAMES = ("__main__", "__mp_main__")


class Runs:
    """What runpy runs in this process."""

    def __init__(self, finder: Finder) -> None:
        """Give the functions that the rules of `finder` mean their probes."""
        self._finder = finder
        self._names: dict[str, Any] = {}  # runpy's own
        self._replaced: list[tuple[str, Any, Any]] = []  # name, the function there was and the one that is

    def watch(self, runpy: ModuleType) -> None:
        """Replace the functions of the loaded module `runpy`; one that has not got them is left alone."""
        names = vars(runpy)
        from_file, of_module = names.get("_get_code_from_file"), names.get("_get_module_details")
        if from_file is None or of_module is None:
            return

        def _get_code_from_file(*args: Any) -> Any:
            found = from_file(*args)
            run_name = sys._getframe(1).f_locals.get("run_name")
            if type(found) is tuple:  # before 3.12
                return (self._with_probes(found[0], run_name), *found[1:])
            return self._with_probes(found, run_name)

        def _get_module_details(mod_name: str, *args: Any) -> Any:
            run_name = sys._getframe(1).f_locals.get("run_name")
            if run_name not in MAIN_NAMES or self._finder.main_name is not None:
                return of_module(mod_name, *args)
            self._finder.main_name, self._finder.main = mod_name, run_name
            try:
                return of_module(mod_name, *args)
            finally:
                self._finder.main_name, self._finder.main = None, "__main__"

        self._names = names
        self._replaced = [
            ("_get_code_from_file", from_file, _get_code_from_file),
            ("_get_module_details", of_module, _get_module_details),
        ]
        for name, _, new in self._replaced:
            names[name] = new

    def unwatch(self) -> None:
        """Put back the functions that were there, unless another has put its own in the place of these."""
        for name, old, new in self._replaced:
            if self._names.get(name) is new:
                self._names[name] = old

    def _with_probes(self, code: CodeType, run_name: Any) -> CodeType:
        """Return the code of a file that is run as `run_name` with probes, if rules mean any of it."""
        stem = os.path.splitext(os.path.basename(code.co_filename))[0]
        names = ["__main__", stem] if run_name in MAIN_NAMES else [stem]
        finder = self._finder
        if type(run_name) is not str or not any(finder.rules.wanted(name) for name in names):
            return code
        try:
            from autoinst.hook.module import Module

            candidates = finder.registry.candidates_of(names)
            alias = names[1] if names[1:] else None
            return Module(finder.registry, names[0], candidates, main=run_name, alias=alias).code(code)
        except Exception as error:  # the file runs as it would have
            from autoinst.trace import faults

            if not faults.absorbed(error, run_name):
                raise
            return code
