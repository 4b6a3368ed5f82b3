"""Reaches the functions of `__main__`, however Python was started, without a trace in the program's own view.

A script is run through an importer made for its very path, which CPython asks for before it opens the file; `-m`,
folders and zip files come by the finder; `-c` and standard input are watched by sys.monitoring on 3.12+.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any

    from autoinst.hook.finder import Finder
    from autoinst.hook.module import Module

OPTIONS_WITH_VALUE = "WX"
CHILDREN = "from multiprocessing."  # how the command of a child begins
LONG_OPTIONS_WITH_VALUE = ("--check-hash-based-pycs",)


def started_as(argv: list[str]) -> tuple[str, str]:
    """Return how Python was started by `sys.orig_argv`: ("script", path), ("-m", module), ("-c", ""), ("-", "")."""
    words = iter(argv[1:])
    for word in words:
        if word in LONG_OPTIONS_WITH_VALUE:
            next(words, None)
        elif word.startswith("--"):
            continue
        elif word == "-":
            return "-", ""
        elif not word.startswith("-"):
            return "script", word
        else:
            for i, letter in enumerate(word[1:], 2):
                if letter in "mc":
                    return f"-{letter}", word[i:] or next(words, "")
                if letter in OPTIONS_WITH_VALUE:
                    if not word[i:]:
                        next(words, None)
                    break
    return "-", ""


def names_of_main() -> tuple[str, ...]:
    """Return what records call the module that runs as `__main__`, and then what else rules may call it."""
    module, kind = sys.modules.get("__main__"), type(sys)
    names = kind.__getattribute__(module, "__dict__") if issubclass(type(module), kind) else {}
    name = getattr(names.get("__spec__"), "name", "__main__")
    if name != "__main__":  # -m
        return name, "__main__"
    how, what = started_as(getattr(sys, "orig_argv", []))
    if how == "script" and what.endswith((".py", ".pyw")):
        return "__main__", os.path.splitext(os.path.basename(what))[0]
    return ("__main__",)


def prepare(finder: Finder) -> None:
    """Arrange that the functions of `__main__` which rules mean get their probes."""
    how, what = started_as(getattr(sys, "orig_argv", []))
    if how == "-m":
        finder.main_name = what
        return
    if how == "-c" and any(word.startswith(CHILDREN) for word in sys.orig_argv):
        return  # a child of multiprocessing: what it runs as its main module comes by run_path
    names = names_of_main()
    if not any(finder.rules.wanted(name) for name in names):
        return
    registry = finder.registry
    candidates = registry.candidates_of(names)
    if how == "script":
        path = os.path.abspath(what)
        if os.path.isfile(path):
            from autoinst.hook.module import Module

            alias = names[1] if len(names) > 1 else None
            module = Module(registry, "__main__", candidates, main="__main__", alias=alias)
            sys.path_hooks.insert(0, Script(module, path, what))
    elif sys.version_info >= (3, 12):
        from autoinst.hook.main_monitor import watch_main

        watch_main(registry, candidates)
    else:
        registry.note("__main__ of -c and of standard input: not reachable this way before Python 3.12")


class Script:
    """A path hook that accepts one path, the script's: CPython then runs "the package" there, which is the script."""

    def __init__(self, module: Module, path: str, given: str) -> None:
        """Run the script at absolute `path`, called `given` on the command line, as `module`."""
        self.module = module
        self.path = path
        self.given = given

    def __call__(self, path: str) -> Script:
        """Accept the script's own path; raise ImportError for others, and where plain Python must say what is wrong."""
        # CPython makes the path absolute without folding `./` and `../`, and shows it so in tracebacks.
        if os.path.abspath(path) != self.path:
            raise ImportError(path)
        self.path = path
        try:
            with open(path, "rb") as file:
                source = file.read()
            code = self.module.code(compile(source, path, "exec", dont_inherit=True))
        except Exception:  # plain Python reports it
            raise ImportError(path) from None
        stand_in = type(sys)("runpy")
        stand_in._run_module_as_main = _runner(code, self)  # type: ignore[attr-defined]
        self._runpy = sys.modules.get("runpy")
        sys.modules["runpy"] = stand_in
        return self

    def find_spec(self, _name: str, _target: Any = None) -> None:
        """Find nothing: the importer serves only to be there."""

    def repair(self) -> dict[str, Any]:
        """Undo the traces of the detour; return the globals of `__main__` as plain Python makes them."""
        sys.path_hooks.remove(self)
        if self._runpy is None:
            sys.modules.pop("runpy", None)
        else:
            sys.modules["runpy"] = self._runpy
        sys.path_importer_cache[self.path] = None  # what CPython notes of a path that no hook accepts
        if sys.path and sys.path[0] == self.path:
            if getattr(sys.flags, "safe_path", False) or sys.flags.isolated:
                del sys.path[0]
            else:
                sys.path[0] = _folder_of(self.given)
        namespace = sys.modules["__main__"].__dict__
        from importlib.machinery import SourceFileLoader

        namespace["__file__"] = self.path
        if sys.version_info < (3, 15):
            namespace["__cached__"] = None
        namespace["__loader__"] = SourceFileLoader("__main__", self.path)
        return namespace


def _folder_of(script: str) -> str:
    """Return what plain Python puts first on sys.path for `script`: the folder of the file a link points to."""
    if os.path.islink(script):
        target = os.readlink(script)
        script = os.path.join(os.path.dirname(script), target)
    return os.path.dirname(os.path.realpath(os.path.join(os.path.dirname(script) or ".", os.path.basename(script))))


def _runner(code: CodeType, script: Script) -> Any:
    """Return what stands in for `runpy._run_module_as_main` once: it runs the script's code in `__main__`."""

    def _run_module_as_main(_name: str, _alter_argv: bool = True) -> None:
        namespace = script.repair()
        try:
            exec(code, namespace)  # noqa: S102  # the program itself
        except SystemExit:
            if sys.version_info >= (3, 14):
                _forget_file_at_exit(namespace)
            raise
        except BaseException as error:
            from autoinst.hook.trampoline import trim

            trim(error)
            _forget_file_at_exit(namespace)
            if sys.version_info < (3, 11) and isinstance(error, Exception):
                _report(error)
            raise
        _forget_file(namespace)

    return _run_module_as_main


def _forget_file(namespace: dict[str, Any]) -> None:
    """Take the names away that plain Python takes away when a script has ended."""
    namespace.pop("__file__", None)
    namespace.pop("__cached__", None)


def _forget_file_at_exit(namespace: dict[str, Any]) -> None:
    """Do so after an error has been reported, and before the program's exit handlers, as plain Python does."""
    import atexit

    atexit.register(_forget_file, namespace)


def _report(error: Exception) -> None:
    """Report an uncaught exception as the interpreter does, where `raise` would put this frame back (3.10)."""
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, error.__traceback__
    try:
        sys.excepthook(type(error), error, error.__traceback__)
    except SystemExit:
        raise
    except BaseException:  # a broken hook: let the interpreter say so
        return
    raise SystemExit(1) from None
