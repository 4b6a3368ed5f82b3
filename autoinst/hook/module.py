"""One wanted module on its way in: its loader is prepared, its code gets probes, and its rules hear what was found."""

from __future__ import annotations

from autoinst.hook import carry, live
from autoinst.hook.calls import CALLS
from autoinst.hook.decorators import Decorators
from autoinst.hook.mechanism import instrument
from autoinst.hook.registry import is_lazy
from autoinst.hook.rewrite import functions
from autoinst.hook.shared import Shared
from autoinst.hook.trampoline import trim
from autoinst.rules.requires import package_folder
from autoinst.trace import faults
from autoinst.trace.exceptions import module_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType
    from typing import Any

    from autoinst.hook.registry import Candidates, Registry

HOOKED = ("get_code", "exec_module")


def prepare(registry: Registry, spec: ModuleSpec, name: str, main: str | None = None) -> None:
    """Arrange that module `name` is loaded with probes; whatever fails, it loads as it would have.

    `main` is what a module that is run as the main one calls itself (`__main__`, or `__mp_main__` in a child).
    """
    try:
        candidates = registry.candidates(name, package_folder(name, spec.origin))
        alias = "__main__" if main is not None and name != "__main__" else None
        if alias is not None:
            candidates.extend(registry.candidates(alias, None))
        if candidates or registry.carries(name):
            Module(registry, name, candidates, main=main, alias=alias).arm(spec)
    except Exception as error:
        if not faults.absorbed(error, name):
            raise


def patch_loaded(registry: Registry, name: str, module: ModuleType) -> None:
    """Give the functions of a module that is loaded already their probes."""
    try:
        if is_lazy(module):
            return
        file = module_names(name).get("__file__")  # an attribute may be of the program's own making
        candidates = registry.candidates(name, package_folder(name, file if isinstance(file, str) else None))
        live.patch_missing(registry, candidates, module, name, shown=None)
        registry.announce()
    except Exception as error:
        if not faults.absorbed(error, name):
            raise


class Module:
    """One wanted module on its way in."""

    def __init__(
        self,
        registry: Registry,
        name: str,
        candidates: Candidates,
        *,
        main: str | None = None,
        alias: str | None = None,
    ) -> None:
        """Look for the functions that `candidates` mean in module `name`, which rules may also call `alias`."""
        self.registry = registry
        self.name = name
        self.alias = alias
        self.candidates = candidates
        self._rules = registry.rules  # those that the candidates are of
        self.main = main
        self.loader: Any = None
        self.seen: CodeType | None = None  # its code, once that has been rewritten

    def arm(self, spec: ModuleSpec) -> None:
        """Put this module's `get_code` and `exec_module` on its loader, an instance."""
        loader = _behind_proxies(spec.loader)
        self.loader = loader
        get_code = getattr(loader, "get_code", None)
        exec_module = getattr(loader, "exec_module", None)
        if exec_module is None:
            self.registry.note(f"{self.name}: not reachable this way ({loader!r:.60})")
            return
        if isinstance(loader, type):  # built in or frozen: its loader is shared by all
            spec.loader = Shared(loader, self.loaded)  # type: ignore[assignment]
            return
        own = vars(loader)
        before = {name: own[name] for name in HOOKED if name in own}
        # A glob is served by the code alone; a name may also be a re-export, or made when the module runs.
        # What runs as __main__ is asked for its code only.
        by_name = self.main is None and (
            any("*" not in pattern for _, found in self.candidates for pattern in found)
            or type(loader).__name__ == "ExtensionFileLoader"  # which has no code to show
        )

        def disarm() -> None:
            for name in HOOKED:
                own.pop(name, None)
            own.update(before)  # a zip file's importer serves several modules

        if get_code is not None:
            own["get_code"] = self._get_code(get_code, None if by_name else disarm)
        if get_code is None or by_name or self.registry.carries(self.name):
            own["exec_module"] = self._exec_module(exec_module, disarm)

    def _get_code(self, get_code: Callable[..., Any], disarm: Callable[[], None] | None) -> Callable[..., Any]:
        def get_code_with_probes(fullname: str = self.name, *args: Any, **kwargs: Any) -> Any:
            code = get_code(fullname, *args, **kwargs)
            if fullname != self.name or code is None:
                return code
            if disarm is not None:
                disarm()
            return self.code(code)

        return get_code_with_probes

    def _exec_module(self, exec_module: Callable[..., Any], disarm: Callable[[], None]) -> Callable[..., Any]:
        def exec_module_with_probes(module: ModuleType) -> None:
            try:
                exec_module(module)
            except BaseException as error:
                trim(error)  # of this frame, which plain Python has not
                self.registry.note(f"{self.name}: its import raised {type(error).__name__}")
                self.registry.flush()
                raise
            finally:
                if getattr(module, "__name__", None) == self.name:
                    disarm()
            if getattr(module, "__name__", None) == self.name:
                self.loaded(module)

        return exec_module_with_probes

    def code(self, code: CodeType) -> CodeType:
        """Return the module's code with probes; the code itself where that fails."""
        try:
            self._renew()
            decorators = self._decorators(code)
            runtime = self.main or self.name
            new = instrument(
                code,
                lambda qualname, inner: self.registry.probes_for(
                    self.candidates,
                    self.name,
                    qualname,
                    inner,
                    runtime,
                    decorators,
                    () if self.alias is None else ((self.alias, qualname),),
                ),
                self.registry,
                self.loader,
                # Once each, as all rules for a call are chosen together.
                list(dict.fromkeys(pattern for _, found in self.candidates for pattern in found if CALLS in pattern)),
            )
            self.seen = code
            if self.main is not None or new is not code:
                self.report()
        except Exception as error:
            if not faults.absorbed(error, self.name):
                raise
            return code
        return new

    def _renew(self) -> None:
        """Go by the rules in force now: they may have changed since the module was found, long ago if it is lazy."""
        registry = self.registry
        if self._rules is not registry.rules:
            self._rules = registry.rules
            folder = package_folder(self.name, module_names(self.name).get("__file__"))
            names = (self.name,) if self.alias is None else (self.name, self.alias)
            self.candidates = registry.candidates_of(names, folder)

    def _decorators(self, code: CodeType) -> dict[str, list[str]]:
        return Decorators(code, everything=any(state.rule.decorated_by for state, _ in self.candidates))

    def loaded(self, module: ModuleType) -> None:
        """After the module ran: reach what its code did not show (re-exports, functions made at run time)."""
        try:
            if self.registry.carries(self.name):
                carry.loaded(self.name, module, self.registry.choice)
            self._renew()
            if self.candidates:
                live.patch_missing(self.registry, self.candidates, module, self.name, shown=self.seen)
                self.report()
        except Exception as error:
            if not faults.absorbed(error, self.name):
                raise

    def report(self) -> None:
        """Say of each rule that found nothing what there was instead, and let readers see the statuses."""
        for state, patterns in self.candidates:
            # A dotted path is tried at each of its dots: only the longest module can say that something is missing.
            if not (state.found or state.problem or state.refused) and state.rule.targets[0][0] == self.name:
                names = [] if self.seen is None else [qualname for qualname, _ in functions(self.seen)]
                state.problem = live.not_found(self.name, patterns, names)
        self.registry.announce()


def _behind_proxies(loader: Any) -> Any:
    """Return the loader that transparent proxies (wrapt's, around those of its import hooks) stand for.

    A proxy's attributes are its loader's own: what it forwards to must not be replaced by what calls the proxy.
    """
    while loader.__class__ is not type(loader):
        inner = getattr(loader, "__wrapped__", None)
        if inner is None:
            break
        loader = inner
    return loader
