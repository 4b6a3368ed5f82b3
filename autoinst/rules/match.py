"""Dotted patterns: `*` stays within one part, `**` as a whole part is any number of parts, even none.

A wildcard never reaches a dunder (`__init__`) or a made-up name (`<lambda>`, `<listcomp>`) unless the pattern's own
last part begins the same way: `methods: ["*"]` means a class's ordinary methods.

Which rules mean a function, and why others do not, is said here once: for the import hook and for `autoinst explain`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from autoinst.rules.model import Field, Rule

WILD = "*"
PAIR = 2
CALLS = ".<calls>."  # `work.<calls>.job.func` is the call `job.func(...)` inside the function `work`
PROPERTIES = frozenset({"property", "cached_property", "functools.cached_property", "abc.abstractproperty"})
ACCESSORS = frozenset({"setter", "getter", "deleter"})
ANY_PARTS = "**"
# Kinds of rules that open something: of several that mean one function, the first in the files counts.
OPENING_KINDS = ("job", "event", "enqueue")
QUALNAME, EXCLUDE, DECORATOR, PROPERTY = "qualname", "exclude", "decorated_by", "property"


def is_glob(pattern: str) -> bool:
    """Tell whether `pattern` has a wildcard."""
    return WILD in pattern


def matches_part(pattern: str, part: str) -> bool:
    """Tell whether one part of a dotted name matches one part of a pattern; takes linear time."""
    if WILD not in pattern:
        return pattern == part
    pieces = pattern.split(WILD)
    first, last = pieces[0], pieces[-1]
    if len(part) < len(first) + len(last) or not part.startswith(first) or not part.endswith(last):
        return False
    at, end = len(first), len(part) - len(last)
    for piece in pieces[1:-1]:
        at = part.find(piece, at, end)
        if at < 0:
            return False
        at += len(piece)
    return True


def matches(pattern: str, name: str) -> bool:
    """Tell whether the dotted `name` matches the dotted `pattern`."""
    if WILD not in pattern:
        return pattern == name
    return _matches_parts(pattern.split("."), name.split("."))


def _matches_parts(patterns: list[str], parts: list[str]) -> bool:
    # The usual two-pointer glob walk over parts: only the last `**` seen ever needs to take one part more.
    p = n = 0
    retry_p = retry_n = -1
    while n < len(parts):
        if p < len(patterns) and patterns[p] == ANY_PARTS:
            retry_p, retry_n = p + 1, n
            p += 1
        elif p < len(patterns) and matches_part(patterns[p], parts[n]):
            p += 1
            n += 1
        elif retry_p >= 0:
            retry_n += 1
            p, n = retry_p, retry_n
        else:
            return False
    return all(pattern == ANY_PARTS for pattern in patterns[p:])


def matches_qualname(pattern: str, qualname: str) -> bool:
    """Tell whether a function's qualified name matches, wildcards leaving dunders and made-up names alone."""
    if WILD not in pattern:
        return pattern == qualname
    if CALLS in qualname:
        return False
    last = qualname.rpartition(".")[2]
    if is_handed(qualname) and not is_handed(pattern):
        return False
    for special in ("<", "__"):
        if last.startswith(special) and not pattern.rpartition(".")[2].startswith(special):
            return False
    return matches(pattern, qualname)


def handed(qualname: str, field: Field) -> str:
    """Return the name, such as `Function.__init__(coroutine)`, by which rules mean what function `qualname` is given.

    `field` is the rule's `wraps`; what the function returns is `name()`.
    """
    return f"{qualname}({'' if field.at == 'exit' else field.names[0]})"


def is_handed(qualname: str) -> bool:
    """Tell whether `qualname` is a name that `handed` makes."""
    return qualname.endswith(")")


def split_path(path: str, least: int = 1) -> tuple[tuple[str, str, bool], ...]:
    """Return every (module pattern, qualified-name pattern, exact) that a dotted path may mean.

    `a.b:C` means one, and is exact; in `a.b.C` each dot may be the end of the module's name. The longest module comes
    first; the qualified name keeps at least `least` parts (a method's has two). A `**` may lie across the border, so it
    counts on both sides of it. A path too short to have a module means nothing.
    """
    module, colon, qualname = path.partition(":")
    if colon:
        return ((module, qualname, True),)
    parts = path.split(".")
    # `<locals>` and its like cannot be a part of a module's name
    limit = next((at for at, part in enumerate(parts) if part.startswith("<")), len(parts))
    found: list[tuple[str, str, bool]] = []
    for cut in range(min(limit, len(parts) - 1), 0, -1):
        if cut <= len(parts) - least:
            found.append((".".join(parts[:cut]), ".".join(parts[cut:]), False))
        if parts[cut - 1] == ANY_PARTS:
            found.append((".".join(parts[:cut]), ".".join(parts[cut - 1 :]), False))
    return tuple(found)


def is_everything(pattern: str) -> bool:
    """Tell whether a pattern names nothing at all: only wildcards and separators."""
    return not pattern.strip("*.:")


def bad_pattern(pattern: str) -> str | None:
    """Return what is wrong with a dotted pattern, or None. One `:` may stand between module and qualified name."""
    text = pattern
    if ":" in pattern:
        module, _, qualname = pattern.partition(":")
        if ":" in qualname:
            return "has more than one ':'"
        if not module or not qualname:
            return "needs a module before ':' and a name after it"
        text = f"{module}.{qualname}"
    for part in text.split("."):
        if not part:
            return "has an empty part between dots"
        if ANY_PARTS in part and part != ANY_PARTS:
            return f"has `**` within a part: write `*` in {part!r}, or `**` as a part by itself"
        if part.startswith("<") and part.endswith(">"):
            continue
        plain = part.replace(WILD, "a")
        if not plain.isidentifier() and not f"a{plain}".isidentifier():
            return f"has {part!r}, which is not a Python name"
        if WILD not in part and not plain.isidentifier():
            return f"has {part!r}, which is not a Python name"
    return None


def module_patterns(rule: Rule, module: str) -> list[str]:
    """Return the patterns of qualified names that `rule` has for a module; none if it does not mean that module."""
    return [name for pattern, name, _ in rule.targets if matches(pattern, module)]


def refusal(
    rule: Rule, patterns: Iterable[str], module: str, qualname: str, decorators: Mapping[str, Sequence[str]] | None
) -> str | None:
    """Return which of the rule's keys leaves out function `qualname` of `module`; None if the rule means it.

    `patterns` are those `module_patterns` gave, `decorators` the module's functions with their decorators.
    """
    if not any(matches_qualname(pattern, qualname) for pattern in patterns):
        return QUALNAME
    if any(matches(pattern, f"{module}.{qualname}") for pattern in rule.exclude):
        return EXCLUDE
    names = decorators.get(qualname, ()) if decorators else ()
    # Reading a property is no job and no event, but may tell of one.
    if any(map(is_property, names)) and (rule.kind != "enrich" or qualname not in patterns):
        return PROPERTY
    if rule.decorated_by is not None and not any(
        matches(rule.decorated_by, name) for name in (decorators or {}).get(qualname, ())
    ):
        return DECORATOR
    return None


def is_property(decorator: str) -> bool:
    """Tell whether a decorator, as dotted text, makes a function what is read rather than called."""
    return decorator in PROPERTIES or decorator.rpartition(".")[2] in ACCESSORS


def inheritor(rule: Rule, names: Sequence[tuple[str, str]]) -> str | None:
    """Return the class (`module:qualname`) on which alone `rule` means calls, where that inherits the function.

    `names` are the (module, qualified name) pairs by which rules may mean the function, its own first.
    """
    own = names[0][1]
    for module, qualname in names:
        if is_handed(qualname):
            continue
        if any(matches_qualname(pattern, qualname) for pattern in module_patterns(rule, module)):
            return None if qualname == own or "." not in qualname else f"{module}:{qualname.rpartition('.')[0]}"
    return None


def opens(rule: Rule, names: Sequence[tuple[str, str]]) -> bool:
    """Tell whether `rule` opens something on calls of the function that rules may mean by `names`.

    One with `wraps` does so on calls of what that function is given or returns, and not on its own.
    """
    return rule.kind in OPENING_KINDS and (rule.wraps is None or any(is_handed(name) for _, name in names))


def shadowed(rules: Iterable[Rule], names: Sequence[tuple[str, str]] = ()) -> dict[int, Rule]:
    """Return of `rules`, in order, those that an earlier one keeps from opening anything: index -> that earlier one.

    One that means only some calls, by the class they are on, keeps nobody from the others. `names` as in `inheritor`.
    """
    first: Rule | None = None
    found: dict[int, Rule] = {}
    for rule in rules:
        if opens(rule, names):
            if first is not None:
                found[rule.index] = first
            elif (rule.subclass_of is None or rule.wraps is not None) and (
                len(names) < PAIR or inheritor(rule, names) is None
            ):
                first = rule
    return found
