"""The import hook: a meta path finder that lets the others find a wanted module and changes only its code.

This file is all that a process without a matching module pays for; the rest is imported with the first match.
"""

from __future__ import annotations

import os
import sys
from _thread import get_ident
from time import monotonic_ns

from autoinst.hook import is_own

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from autoinst.config import Config
    from autoinst.hook.edits import Edits
    from autoinst.hook.registry import Registry
    from autoinst.hook.run_path import Runs
    from autoinst.rules.model import RuleSet


LOOK_INTERVAL = 1_000_000_000  # ns between two looks at the rules files
RUNPY = "runpy"
_forks_watched = False


class Finder:
    """First on `sys.meta_path`; passes every name that no rule wants straight through."""

    def __init__(self, config: Config, rules: RuleSet) -> None:
        """Serve `rules`, recording as `config` says."""
        self.config = config
        self.rules = rules
        self._tops = rules.tops
        self._anywhere = bool(rules.anywhere)
        self._busy: set[tuple[int, str]] = set()
        self._preparing: set[int] = set()
        self._registry: Registry | None = None
        # The module that `-m` runs as __main__, if any, and what it calls itself.
        self.main_name: str | None = None
        self.main = "__main__"
        self._edits: Edits | None = None
        self._runs: Runs | None = None
        self._looking = False
        self._forked_before = False
        self._prepared = False  # for further forks
        self._first: object = self  # on `sys.meta_path`, when this was last looked at
        self.look_after = monotonic_ns() + LOOK_INTERVAL

    @property
    def registry(self) -> Registry:
        """The states of the rules; made, with the recorder, when a module is wanted for the first time."""
        if self._registry is None:
            looking, self._looking = self._looking, True  # not while half of what that needs is imported
            try:
                from autoinst.hook.registry import Registry
                from autoinst.trace import recorder
            finally:
                self._looking = looking

            recorder.configure(recorder.Recorder(self.config, self.rules.settings, self.rules.digest))
            registry = Registry(self.rules, self.config)
            registry.look_after = self.look_after
            registry.look = self.look
            self._registry = registry
        return self._registry

    @property
    def registry_if_any(self) -> Registry | None:
        """The states of the rules, None while no module has been wanted."""
        return self._registry

    def adopt(self, rules: RuleSet) -> None:
        """Serve `rules` from now on."""
        self.rules = rules
        self._tops = rules.tops
        self._anywhere = bool(rules.anywhere)

    def end(self) -> None:
        """Serve no rules any longer, and take back what was put into the program for that."""
        from autoinst.rules.model import NONE

        sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not self]
        self.adopt(NONE)
        if self._runs is not None:
            self._runs.unwatch()

    def look(self, now: int) -> bool:
        """Apply what has changed in the rules files; return whether anything has. Asked once a second at most.

        `now` is in ns of the monotonic clock.
        """
        if self._looking:  # by another thread, or this imports what it needs, and that takes longer than the interval
            return False
        self._looking = True
        self.look_soon(LOOK_INTERVAL, now)
        try:
            if self._edits is None:
                from autoinst.hook.edits import Edits

                self._edits = Edits(self)
            return self._edits.look()
        except Exception as error:  # the program goes on under the rules it has
            from autoinst.hook import edits
            from autoinst.trace import faults

            if not edits.is_loading_fault(error):
                raise
            faults.note(f"rules not read again: {type(error).__name__}: {error}")
            return False
        finally:
            self._looking = False

    def look_soon(self, wait: int, now: int | None = None) -> None:
        """Look at the rules files when `wait` ns have passed."""
        self.look_after = (monotonic_ns() if now is None else now) + wait
        if self._registry is not None:
            self._registry.look_after = self.look_after

    def before_fork(self) -> None:
        """Learn of new rules before a child begins: a worker that forks for each job runs none itself."""
        now = monotonic_ns()
        if self.look_after < now:
            self.look(now)
        if self._edits is not None:
            self._edits.before_fork()
        if self._forked_before and not self._prepared:
            self._prepare_for_children()
        self._forked_before = True

    def _prepare_for_children(self) -> None:
        """Import what each child of a program that forks again and again would import for itself."""
        if self._registry is None or self._looking:
            return
        try:
            self._prepared = self._registry.prepare()
        except Exception as error:  # each child does it, or fails at it, by itself
            from autoinst.hook import edits

            if not edits.is_loading_fault(error):
                raise

    def forked(self, *, in_child: bool) -> None:
        """Go on, in the parent and in the child."""
        if in_child:  # there is no other thread, and one to come may have the name of one that was
            thread = get_ident()
            self._looking = False
            self._preparing &= {thread}
            self._busy = {mark for mark in self._busy if mark[0] == thread}
        if self._edits is not None:
            self._edits.forked()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the other finders' spec of a wanted module, with its loader prepared; None for all others."""
        now = monotonic_ns()
        if self.look_after < now and not self._preparing and not _is_ours_on_its_way(name):
            self.look(now)
        first = sys.meta_path[0] if sys.meta_path else self
        if first is not self._first and (first is self or not _is_ours_on_its_way(name)):
            self._first = first
            if first is not self:
                self._watch_those_ahead()
        if not self._wants(name):
            return None
        thread = get_ident()
        mark = (thread, name)
        # Asked again by another finder, or for something this hook itself imports: the others answer.
        if mark in self._busy or thread in self._preparing:
            return None
        self._busy.add(mark)
        try:
            spec = self._find(name, path, target)
        finally:
            self._busy.discard(mark)
        if spec is not None:
            self._prepare_safely(spec, name, thread)
        return spec

    def patch_loaded(self, loaded: list[tuple[str, ModuleType]]) -> None:
        """Instrument modules that were there before, by name."""
        thread = get_ident()
        self._preparing.add(thread)  # a rule that means any module means those this hook is made of as well
        try:
            if RUNPY in sys.modules:
                self._watch_runs(sys.modules[RUNPY])
            if loaded:
                from autoinst.hook import module as modules

                for name, module in loaded:
                    modules.patch_loaded(self.registry, name, module)
        finally:
            self._preparing.discard(thread)

    def found(self, spec: ModuleSpec, name: str) -> None:
        """Prepare what a finder before this one has found, if a rule wants it."""
        thread = get_ident()
        if self._wants(name) and (thread, name) not in self._busy and thread not in self._preparing:
            self._prepare_safely(spec, name, thread)

    def _wants(self, name: str) -> bool:
        return (
            ((self._anywhere or name.partition(".")[0] in self._tops) and bool(self.rules.wanted(name)))
            or (self.main_name is not None and self._is_main(name))
            or name == RUNPY
            or (self._registry is not None and self._registry.carries(name))
        )

    def _watch_those_ahead(self) -> None:
        thread = get_ident()
        if thread in self._preparing:
            return
        self._preparing.add(thread)
        try:
            from autoinst.hook import ahead

            ahead.watch(self)
        except Exception as error:  # what those find is then seen late
            from autoinst.trace import faults

            if not faults.absorbed(error, "finders"):
                raise
        finally:
            self._preparing.discard(thread)

    def _prepare_safely(self, spec: ModuleSpec, name: str, thread: int) -> None:
        if spec.loader is None or is_own(name):
            return
        self._preparing.add(thread)
        try:
            self._prepare(spec, name)
        except Exception as error:  # the module loads as it would have
            from autoinst.trace import faults

            if not faults.absorbed(error, name):  # a time limit's, by a signal
                raise
        finally:
            self._preparing.discard(thread)

    def _is_main(self, name: str) -> bool:
        return name in {self.main_name, f"{self.main_name}.__main__"}

    def _find(self, name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        for finder in sys.meta_path:
            if finder is self:
                continue
            find_spec = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None if find_spec is None else find_spec(name, path, target)
            if spec is not None:
                return spec
        return None

    def _watch_runs(self, runpy: ModuleType) -> None:
        from autoinst.hook import run_path

        self._runs = run_path.Runs(self)
        self._runs.watch(runpy)

    def _prepare(self, spec: ModuleSpec, name: str) -> None:
        if name == RUNPY:
            from autoinst.hook.shared import Shared

            spec.loader = Shared(spec.loader, self._watch_runs)  # type: ignore[assignment]
            return
        from autoinst.hook import module

        package = spec.submodule_search_locations is not None
        is_main = name == "__main__" or (not package and self._is_main(name))
        module.prepare(self.registry, spec, name, self.main if is_main else None)


def install(config: Config, rules: RuleSet) -> Finder:
    """Put a finder for `rules` first on `sys.meta_path` and return it; modules loaded already are patched."""
    finder = Finder(config, rules)
    sys.meta_path.insert(0, finder)
    _watch_forks()
    loaded = [
        (name, module)
        for name, module in tuple(sys.modules.items())
        if name != "__main__" and rules.wanted(name) and isinstance(module, type(sys)) and not is_own(name)
    ]
    finder.patch_loaded(loaded)
    return finder


def _watch_forks() -> None:
    """Tell the finder in force of each fork; once a process, since what is registered stays."""
    global _forks_watched
    if not _forks_watched and hasattr(os, "register_at_fork"):
        _forks_watched = True
        os.register_at_fork(before=_before_fork, after_in_parent=_forked, after_in_child=_forked_child)


def _finders() -> list[Finder]:
    return [finder for finder in sys.meta_path if type(finder) is Finder]


def _before_fork() -> None:
    for finder in _finders():
        finder.before_fork()


def _forked() -> None:
    for finder in _finders():
        finder.forked(in_child=False)


def _forked_child() -> None:
    for finder in _finders():
        finder.forked(in_child=True)


def _is_ours_on_its_way(name: str) -> bool:
    """Return whether `name` is imported for a module of autoinst itself: what a look needs may be half there."""
    if is_own(name):
        return True
    loaded = [module for key, module in dict(sys.modules).items() if type(key) is str and is_own(key)]
    return any(getattr(getattr(module, "__spec__", None), "_initializing", False) for module in loaded)
