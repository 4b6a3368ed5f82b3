"""Finds a program's modules and what they define without importing any of it: files along a search path, parsed."""

from __future__ import annotations

import ast
import importlib.machinery
import os
import pkgutil
import sys
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from autoinst.rules.match import is_property

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_MODULES = 2_000
MAX_HOPS = 10
DefNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Function:
    """A function's parameters (with those of `*args` and `**kwargs`) and whether it is a property of a class.

    `decorators` are as dotted text (`app.task`), outermost first; `line` is that of its `def`.
    """

    parameters: tuple[str, ...]
    is_property: bool
    decorators: tuple[str, ...] = ()
    line: int = 0


@dataclass
class Class:
    """A class's bases as they are written (None for what is no dotted name), and other names bound in its body."""

    bases: list[str | None]
    bound: set[str] = field(default_factory=set)


@dataclass
class Module:
    """What a module's file shows; `is_source` is false for an extension or bytecode, of which nothing is known.

    `functions` and `classes` are by qualified name, `imported` the dotted origin of each imported name, `stars` the
    modules of `from x import *`, `bound` the other names bound at its top, `made` what is called for some of them.
    """

    name: str
    file: str | None
    is_source: bool = True
    is_extension: bool = False
    is_package: bool = False
    functions: dict[str, Function] = field(default_factory=dict)
    classes: dict[str, Class] = field(default_factory=dict)
    imported: dict[str, str] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)
    bound: set[str] = field(default_factory=set)
    made: dict[str, str] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        """Tell whether it may define names that its text does not show."""
        return not self.is_source or "__getattr__" in self.functions

    def names(self) -> list[str]:
        """Return the names at the module's top."""
        tops = (name for name in (*self.functions, *self.classes) if "." not in name)
        return [*tops, *self.imported, *self.bound]


class Sources:
    """The modules along `search`, a list of folders like sys.path."""

    def __init__(self, search: Sequence[str]) -> None:
        self.search = [entry or os.getcwd() for entry in search]
        self._modules: dict[str, Module | None] = {}
        self._paths: dict[str, list[str] | None] = {}

    def module(self, name: str) -> Module | None:
        """Return the module of that name, None if there is none."""
        if name not in self._modules:
            self._modules[name] = self._find(name)
        return self._modules[name]

    def children(self, name: str | None) -> list[str]:
        """Return the full names of a package's direct submodules; None stands for the top of the search path."""
        if name is None:
            found = [module.name for module in pkgutil.iter_modules(self.search)]
            return [*found, *sys.builtin_module_names]
        if self.module(name) is None:
            return []
        return [f"{name}.{module.name}" for module in pkgutil.iter_modules(self._paths.get(name) or [])]

    def below(self, name: str) -> Iterator[Module]:
        """Yield a module and all modules below it."""
        waiting = [name]
        count = 0
        while waiting and count < MAX_MODULES:
            current = waiting.pop(0)
            module = self.module(current)
            if module is not None:
                count += 1
                yield module
                waiting.extend(self.children(current))

    def _find(self, name: str) -> Module | None:
        parent, _, _ = name.rpartition(".")
        if parent:
            if self.module(parent) is None:
                return None
            path = self._paths.get(parent)
            if path is None:
                return None
        else:
            path = self.search
        spec = _spec(name, path)
        if spec is None:
            if name in sys.builtin_module_names:
                return Module(name, None, is_source=False, is_extension=True)
            return None
        locations = spec.submodule_search_locations
        self._paths[name] = None if locations is None else list(locations)
        file = spec.origin
        module = Module(name, file, is_package=locations is not None)
        if isinstance(spec.loader, importlib.machinery.ExtensionFileLoader):
            module.is_source, module.is_extension = False, True
        elif file is not None and file.endswith((".py", ".pyw")):
            _read(module, file)
        else:
            module.is_source = locations is not None and file is None  # a namespace package defines nothing
        return module

    def resolve(self, module: Module, name: str, hops: int = 0) -> tuple[Module, str] | None:
        """Follow a name of `module` through its imports to where it is defined: (module, qualified name).

        None where that cannot be told.
        """
        top, _, rest = name.partition(".")
        if name in module.functions or name in module.classes:
            return module, name
        if top in module.functions or top in module.classes or top in module.bound or hops > MAX_HOPS:
            return None
        origin = module.imported.get(top)
        if origin is not None:
            found = self.locate(f"{origin}.{rest}" if rest else origin, hops + 1)
            return found if found is not None and found[1] else None
        for star in module.stars:
            other = self.module(star)
            if other is not None:
                found = self.resolve(other, name, hops + 1)
                if found is not None:
                    return found
        return None

    def bases(self, module: Module, name: str) -> list[tuple[Module, str, Class | None]]:
        """Return a class and its bases, nearest first; a base that is not found is there without its Class.

        That one's name is empty where the text does not even show it to be a built-in class.
        """
        found: list[tuple[Module, str, Class | None]] = []
        waiting: list[tuple[Module, str]] = [(module, name)]
        seen: set[tuple[str, str]] = set()
        while waiting:
            owner, qualname = waiting.pop(0)
            if (owner.name, qualname) in seen:
                continue
            seen.add((owner.name, qualname))
            current = owner.classes[qualname]
            found.append((owner, qualname, current))
            for base in current.bases:
                place = None if base is None else self.resolve(owner, base)
                if place is not None and place[1] in place[0].classes:
                    waiting.append(place)
                else:
                    shadowed = base is not None and base in owner.names()
                    found.append((owner, "" if base is None or shadowed else base, None))
        return found

    def script(self, file: str) -> Module:
        """Return what a file shows that is run as the main program; `is_source` is false where it cannot be read."""
        module = Module("__main__", file)
        _read(module, file)
        return module

    def is_native(self, module: Module, name: str, hops: int = 0) -> bool:
        """Tell whether the name at the top of `module` comes from an extension module, as far as its text shows."""
        if module.is_extension:
            return True
        if name in module.functions or name in module.classes or name in module.bound or hops > MAX_HOPS:
            return False
        origin, _, last = module.imported.get(name, "").rpartition(".")
        places = [(origin, last)] if origin else [(star, name) for star in module.stars]
        found = [(self.module(place), last) for place, last in places]
        return any(other is not None and self.is_native(other, last, hops + 1) for other, last in found)

    def locate(self, path: str, hops: int = 0) -> tuple[Module, str] | None:
        """Split a dotted path at the longest prefix that is a module, and follow the rest through imports."""
        parts = path.split(".")
        for cut in range(len(parts), 0, -1):
            module = self.module(".".join(parts[:cut]))
            if module is not None:
                rest = ".".join(parts[cut:])
                return (self.resolve(module, rest, hops) if rest else (module, "")) or None
        return None


def _spec(name: str, path: list[str]) -> importlib.machinery.ModuleSpec | None:
    try:
        found = importlib.machinery.PathFinder.find_spec(name, path)
        if found is not None or "." in name:
            return found
        for finder in sys.meta_path:
            # an editable install brings a finder of its own
            if not isinstance(finder, type):
                found = finder.find_spec(name, None)
                if found is not None:
                    return found
    except (ImportError, OSError, ValueError, AttributeError):
        pass
    return None


def _read(module: Module, file: str) -> None:
    try:
        with open(file, "rb") as source, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source.read())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        module.is_source = False
        return
    _Indexer(module).read(tree.body, "", None)


class _Indexer:
    def __init__(self, module: Module) -> None:
        self.module = module

    def read(self, body: Sequence[ast.stmt], prefix: str, owner: Class | None) -> None:
        """Index statements; `prefix` goes before their names, `owner` is the class they are the body of."""
        for node in body:
            if isinstance(node, DefNode):
                self._function(node, prefix, owner)
            elif isinstance(node, ast.ClassDef):
                found = Class([dotted_name(base) for base in node.bases])
                self.module.classes[prefix + node.name] = found
                self.read(node.body, f"{prefix}{node.name}.", found)
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                self._import(node, prefix, owner)
            else:
                self._other(node, prefix, owner)

    def _function(self, node: DefNode, prefix: str, owner: Class | None) -> None:
        names = [dotted_name(decorator) or "" for decorator in node.decorator_list]
        given = node.args
        arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs]
        arguments += [extra for extra in (given.vararg, given.kwarg) if extra is not None]
        reads = owner is not None and any(map(is_property, names))
        parameters = tuple(arg.arg for arg in arguments)
        self.module.functions[prefix + node.name] = Function(parameters, reads, tuple(filter(None, names)), node.lineno)
        self.read(node.body, f"{prefix}{node.name}.<locals>.", None)

    def _import(self, node: ast.Import | ast.ImportFrom, prefix: str, owner: Class | None) -> None:
        if prefix:
            if owner is not None:
                owner.bound.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
            return
        origin = "" if isinstance(node, ast.Import) else self._origin(node)
        for alias in node.names:
            if alias.name == "*":
                self.module.stars.append(origin)
            elif origin:
                self.module.imported[alias.asname or alias.name] = f"{origin}.{alias.name}"
            else:
                top = alias.name.partition(".")[0]
                self.module.imported[alias.asname or top] = alias.name if alias.asname else top

    def _origin(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.module.name.split(".")
        up = node.level - (1 if self.module.is_package else 0)
        base = parts[: len(parts) - up] if up else parts
        return ".".join([*base, *([node.module] if node.module else [])])

    def _other(self, node: ast.stmt, prefix: str, owner: Class | None) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt):
                self.read([child], prefix, owner)
            elif isinstance(child, (ast.ExceptHandler, ast.match_case)):
                self.read(child.body, prefix, owner)
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, (ast.AnnAssign, ast.AugAssign, ast.For)):
            targets = [node.target]
        names = {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
        if owner is not None:
            owner.bound |= names
        elif not prefix:
            self.module.bound |= names
            made = dotted_name(node.value) if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value else None
            if made is not None:
                self.module.made.update(dict.fromkeys(names, made))


def dotted_name(node: ast.expr) -> str | None:
    """Return `a.b.c` of a name, an attribute, or a call or subscript of one; None for another expression."""
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Subscript):
        node = node.value
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None
