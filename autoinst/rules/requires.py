"""`requires: {rq: ">=1.16"}`: compares release numbers with the name of the `*.dist-info` folder beside a package.

`python` stands for the interpreter. Only the numbers count: `2.0rc1` and `2.0.post1` are 2.0. importlib.metadata would
cost a worker 27 ms.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

OPERATORS = (">=", "<=", "==", "!=", "~=", ">", "<")  # the two-letter ones first
MAX_DIGITS = 10
PYTHON = "python"
SUFFIXES = (".dist-info", ".egg-info")

_versions: dict[str, dict[str, str]] = {}


def release(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version as a tuple without trailing zeros; empty if it starts with none."""
    found: list[int] = []
    for part in version.strip().lstrip("vV").rpartition("!")[2].split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits or len(digits) >= MAX_DIGITS or not digits.isascii():
            break
        found.append(int(digits))
        if digits != part:
            break
    while found and not found[-1]:
        found.pop()
    return tuple(found)


def parse(specifier: str) -> list[tuple[str, str]]:
    """Return the (operator, version) pairs of `">=1.16,<3"`; raises ValueError with what is wrong."""
    pairs: list[tuple[str, str]] = []
    for piece in specifier.split(","):
        text = piece.strip()
        operator = next((found for found in OPERATORS if text.startswith(found)), "")
        version = text[len(operator) :].strip()
        numbers = version.removesuffix(".*") if operator in ("==", "!=") else version
        if (
            not operator
            or not numbers
            or not all(part.isdigit() and len(part) < MAX_DIGITS for part in numbers.split("."))
        ):
            raise ValueError(f"{text!r} is not a comparison such as '>=1.16'")
        if operator == "~=" and "." not in version:
            raise ValueError(f"{text!r} needs two numbers, such as '~=1.16'")
        pairs.append((operator, version))
    return pairs


def allows(specifier: str, version: str) -> bool:
    """Tell whether `version` satisfies every comparison of `specifier`; raises ValueError for a bad specifier."""
    return all(_compare(operator, wanted, release(version)) for operator, wanted in parse(specifier))


def _compare(operator: str, wanted: str, have: tuple[int, ...]) -> bool:
    limit = release(wanted)
    if operator in ("==", "!="):
        if wanted.endswith(".*"):
            depth = wanted.count(".")
            same = _padded(have, depth) == _padded(limit, depth)
        else:
            same = have == limit
        return same is (operator == "==")
    if operator == "~=":
        depth = wanted.count(".")
        return have >= limit and _padded(have, depth) == _padded(limit, depth)
    if operator == ">=":
        return have >= limit
    if operator == "<=":
        return have <= limit
    return have > limit if operator == ">" else have < limit


def _padded(numbers: tuple[int, ...], length: int) -> tuple[int, ...]:
    return (numbers + (0,) * length)[:length]


def unmet(requires: Mapping[str, str], folder: str | None = None) -> str | None:
    """Return why `requires` does not hold, None if it does.

    `folder` is the one that holds the package (its metadata is looked for there first, then along `sys.path`). A
    distribution without metadata counts as not installed. Never raises.
    """
    for name, specifier in requires.items():
        version = installed_version(name, folder)
        if version is None:
            return f"{name} {specifier} is required; its version is not to be found"
        try:
            fits = allows(specifier, version)
        except ValueError as error:
            return f"requires {name}: {error}"
        if not fits:
            return f"{name} {specifier} is required; {version} is installed"
    return None


def installed_version(name: str, folder: str | None = None) -> str | None:
    """Return the version of the distribution `name` in `folder` or else along `sys.path`, None if it is not there.

    `python` is the running interpreter.
    """
    key = normal(name)
    if key == PYTHON:
        return ".".join(str(number) for number in sys.version_info[:3])
    for place in (folder, *sys.path):
        if isinstance(place, str):
            version = _versions_in(place or os.curdir).get(key)
            if version is not None:
                return version
    return None


def package_folder(module: str, file: object) -> str | None:
    """Return the folder in which the top package of `module` lies, beside its `*.dist-info`."""
    if file is None:
        top, kind = sys.modules.get(module.partition(".")[0]), type(sys)
        # Not by getattr: a lazy module would load with that.
        names = kind.__getattribute__(top, "__dict__") if issubclass(type(top), kind) else {}
        file = names.get("__file__")
        module = module.partition(".")[0] + ".x" if file else module
    if not isinstance(file, str):
        return None
    folder = os.path.dirname(file)
    levels = module.count(".")
    if os.path.basename(file).startswith("__init__."):
        levels += 1
    for _ in range(levels):
        folder = os.path.dirname(folder)
    return folder


def normal(name: str) -> str:
    """Return a distribution's name as PEP 503 compares it, with underscores."""
    parts = name.lower().replace("-", "_").replace(".", "_").split("_")
    return "_".join(part for part in parts if part)


def forget() -> None:
    """Read the folders anew next time."""
    _versions.clear()


def _versions_in(folder: str) -> dict[str, str]:
    known = _versions.get(folder)
    if known is None:
        known = {}
        try:
            names = os.listdir(folder)
        except (OSError, ValueError):
            names = []
        for entry in names:
            for suffix in SUFFIXES:
                if entry.endswith(suffix):
                    # `name-1.2.dist-info`; an egg-info may go on with `-py3.11`
                    name, _, rest = entry[: -len(suffix)].partition("-")
                    if rest:
                        known[normal(name)] = rest.partition("-")[0]
        _versions[folder] = known  # not before: other threads may ask meanwhile
    return known
