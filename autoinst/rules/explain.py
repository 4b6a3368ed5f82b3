"""What each rule decides on a function and why, told from the program's text without importing any of it.

It asks the same questions as the import hook, in the same order (`rules.match`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from autoinst.rules import match
from autoinst.rules.problems import CLOSE, nearest, quote
from autoinst.rules.requires import package_folder, unmet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from autoinst.rules.model import Rule, RuleSet
    from autoinst.rules.sources import Function, Module, Sources

    Names = tuple[tuple[str, str], ...]

ACTS, SOMETIMES, LEFT_OUT = "acts", "sometimes", "left out"
DOES = {
    "job": "opens a transaction",
    "event": "adds an event to the transaction in progress",
    "enqueue": "adds an event for a job put on a queue",
    "exception": "notes an exception in the transaction in progress",
    "carry": "hands the trace on to a job",
    "enrich": "adds to the transaction in progress",
}
SCRIPTS = (".py", ".pyw")
MAX_SHOWN = 4


@dataclass(frozen=True)
class Verdict:
    """What one rule decides: ACTS, SOMETIMES (the call decides) or LEFT_OUT; `why` is empty if it simply acts."""

    rule: Rule
    decision: str
    why: str


@dataclass
class Explanation:
    """What is known of the function at `path` and what the rules decide on it.

    `names` are the (module, qualified name) pairs by which rules may mean it, its own first; `line` that of its `def`
    in `file`; `what` is `function`, `C code` (or an object that is called), `property`, or `unknown` where the text
    does not show it. `action` is what records of its calls are called unless a rule says otherwise. `elsewhere` counts
    the rules that name other modules. `problem` is why there is nothing to explain.
    """

    path: str
    names: Names = ()
    file: str | None = None
    line: int | None = None
    what: str = "function"
    action: str = ""
    verdicts: list[Verdict] = field(default_factory=list)
    elsewhere: int = 0
    problem: str | None = None
    hint: str | None = None

    @property
    def acting(self) -> list[Rule]:
        """The rules that act on its calls, or on some of them."""
        return [verdict.rule for verdict in self.verdicts if verdict.decision != LEFT_OUT]


def explain(path: str, rules: RuleSet, sources: Sources) -> list[Explanation]:
    """Explain `module:Class.method`, `module.Class.method`, or `script.py:function`.

    A module or class stands for its functions that a rule acts on. There is always at least one explanation.
    """
    place = _locate(path, rules, sources)
    if isinstance(place, Explanation):
        return [place]
    return list(_Explainer(path, rules, sources).of(*place))


def _locate(path: str, rules: RuleSet, sources: Sources) -> tuple[Module, str, str | None] | Explanation:
    """Return the module of `path`, the qualified name in it, and what else rules may call a script's module."""
    first, colon, qualname = path.partition(":")
    if first.endswith(SCRIPTS) and (colon or os.path.isfile(first)):
        module = sources.script(first)
        if not os.path.isfile(first):
            return Explanation(path, problem=f"no file {quote(first)}")
        if not module.is_source:
            return Explanation(path, problem=f"{quote(first)} cannot be parsed", hint="run it to see the error")
        return module, qualname, os.path.splitext(os.path.basename(first))[0]
    parts = first.split(".")
    for cut in range(len(parts), 0, -1):
        found = sources.module(".".join(parts[:cut]))
        if found is not None and (cut == len(parts) or not colon):
            return found, qualname if colon else ".".join(parts[cut:]), None
    if parts[0] == "__main__":
        hint = "write the script's file: worker.py:function"
        return Explanation(path, problem="which program is '__main__'?", hint=hint)
    hint = _near_module(parts, rules, sources) or "--path DIR says where the program's modules are"
    return Explanation(path, problem=f"no module {quote(first if colon else parts[0])}", hint=hint)


def _near_module(parts: list[str], rules: RuleSet, sources: Sources) -> str | None:
    """Return a hint at a module nearly of the name `parts`: one that rules name if there is, else one that is there."""
    name = ".".join(parts)
    named = [module for top in rules.tops if sources.module(top) is not None for module in rules.spelled_out(top)]
    hint = nearest(name, named, CLOSE)
    if hint is not None:
        return hint
    cut = next((cut for cut in range(len(parts) - 1, 0, -1) if sources.module(".".join(parts[:cut])) is not None), 0)
    return nearest(".".join(parts[: cut + 1]), sources.children(".".join(parts[:cut]) or None), CLOSE)


class _Explainer:
    def __init__(self, path: str, rules: RuleSet, sources: Sources) -> None:
        self.path = path
        self.rules = rules
        self.sources = sources

    def of(self, module: Module, qualname: str, alias: str | None) -> Iterator[Explanation]:
        """Explain what is called `qualname` in `module`; an empty one stands for the module."""
        place = self.sources.resolve(module, qualname) if qualname else (module, "")
        owner, name = (module, qualname) if place is None else place
        if not name or name in owner.classes:
            yield from self._all(owner, name, alias)
            return
        inherited = self._inherited(module, qualname) if place is None else None
        if inherited is not None:
            owner, name = inherited
        function = owner.functions.get(name)
        if function is None and not self._may_have(module, qualname):
            around = qualname.rpartition(".")[0]
            prefix = f"{around}." if around in module.classes else ""
            known = [text for text in module.functions if text.startswith(prefix)]
            problem = f"{quote(module.name)} has no {quote(qualname)}"
            yield Explanation(self.path, file=module.file, problem=problem, hint=nearest(qualname, known))
            return
        names: Names = ((owner.name, name), (module.name, qualname))
        if alias is not None and owner is module:
            names = (*names, (alias, qualname))
        found = self._explained(owner, function, tuple(dict.fromkeys(names)), self._what(module, qualname, function))
        if inherited is not None:  # a record has the class of the object that the method is called on
            found.action = _action(module.name, qualname)
        yield found

    def _all(self, module: Module, owner: str, alias: str | None) -> Iterator[Explanation]:
        prefix = f"{owner}." if owner else ""
        some = False
        for qualname, function in module.functions.items():
            if qualname.startswith(prefix):
                names: Names = ((module.name, qualname), *(() if alias is None else ((alias, qualname),)))
                found = self._explained(module, function, names, self._what(module, qualname, function))
                if found.acting:
                    some = True
                    yield found
        if not some:
            where = f"{module.name}:{owner}" if owner else module.name
            hint = f"explain one: {module.name}:{prefix}name" if module.functions else None
            yield Explanation(self.path, file=module.file, problem=f"no rule acts on a function of {where}", hint=hint)

    def _inherited(self, module: Module, qualname: str) -> tuple[Module, str] | None:
        """Return where the method `qualname` of a class is defined that its class inherits, None if that is unknown."""
        around, _, method = qualname.rpartition(".")
        place = self.sources.resolve(module, around) if around else None
        if place is None or place[1] not in place[0].classes:
            return None
        for owner, name, found in self.sources.bases(*place):
            if found is not None and f"{name}.{method}" in owner.functions:
                return owner, f"{name}.{method}"
        return None

    def _may_have(self, module: Module, qualname: str) -> bool:
        """Tell whether `module` may define the name in a way that its text does not show."""
        top, _, rest = qualname.partition(".")
        if top in module.classes and "<locals>" not in rest:
            known = self.sources.bases(module, top)
            method = rest.rpartition(".")[2]
            return any(found is None or method in found.bound for _, name, found in known if name != "object")
        return module.is_open or bool(module.stars) or "<locals>" in rest or top in module.names()

    def _what(self, module: Module, qualname: str, function: Function | None) -> str:
        if function is not None:
            return "property" if function.is_property else "function"
        return "C code" if self.sources.is_native(module, qualname.partition(".")[0]) else "unknown"

    def _explained(self, owner: Module, function: Function | None, names: Names, what: str) -> Explanation:
        line = None if function is None else function.line
        found = Explanation(self.path, names, owner.file, line, what, _action(*names[0]))
        decorators = {} if function is None else {qualname: function.decorators for _, qualname in names}
        wanted = {rule.index: rule for module, _ in names for rule in self.rules.wanted(module)}
        meant: list[Rule] = []
        for index in sorted(wanted):
            rule = wanted[index]
            why = self._left_out(rule, owner, names, decorators)
            if why is None:
                meant.append(rule)
            elif why:
                found.verdicts.append(Verdict(rule, LEFT_OUT, why))
        late = match.shadowed(meant, names)
        first: Rule | None = None  # that opens something on every call
        for rule in meant:
            opens = match.opens(rule, names)
            before = late.get(rule.index, first if opens else None)
            if before is not None:
                why = f"{before.where} comes first: of several that open something one acts"
                found.verdicts.append(Verdict(rule, LEFT_OUT, why))
                continue
            some = self._some_calls(rule, names)
            found.verdicts.append(Verdict(rule, SOMETIMES if some else ACTS, some))
            if opens and not some:
                first = rule
        found.verdicts.sort(key=lambda verdict: verdict.rule.index)
        found.elsewhere = len(self.rules.rules) - len(found.verdicts)
        return found

    def _left_out(self, rule: Rule, owner: Module, names: Names, decorators: dict[str, tuple[str, ...]]) -> str | None:
        """Return why `rule` does not mean the function, None if it does, empty if it names nothing of its modules."""
        reasons: dict[str, str] = {}
        for module, qualname in names:
            patterns = match.module_patterns(rule, module)
            if not patterns:
                continue
            reason = match.refusal(rule, patterns, module, qualname, decorators)
            if reason is None:
                folder = None if owner.file is None else package_folder(owner.name, os.path.abspath(owner.file))
                return unmet(rule.requires, folder)
            reasons[reason] = _in_words(reason, rule, patterns, decorators.get(qualname, ()))
        best = next((key for key in (match.PROPERTY, match.EXCLUDE, match.DECORATOR) if key in reasons), None)
        if best is not None:
            return reasons[best]
        return reasons.get(match.QUALNAME, "")

    def _some_calls(self, rule: Rule, names: Names) -> str:
        """Return which calls alone the rule means, empty for all."""
        found: list[str] = []
        if rule.subclass_of is not None and not self._is_derived(names, rule.subclass_of):
            found.append(f"calls on objects of {rule.subclass_of} and its subclasses")
        heir = match.inheritor(rule, names)
        if heir is not None:
            found.append(f"calls on objects of {heir} and its subclasses, which inherit it")
        return "; ".join(found)

    def _is_derived(self, names: Names, base: str) -> bool:
        """Tell whether the text shows every class that has the function to be derived from `base`."""
        module = self.sources.module(names[0][0])
        around = names[0][1].rpartition(".")[0]
        if module is None or around not in module.classes:
            return False
        return any(
            base == (f"{owner.name}.{name}" if found is not None else self._origin(owner, name))
            for owner, name, found in self.sources.bases(module, around)
        )

    def _origin(self, module: Module, name: str) -> str:
        """Return the dotted path that a base class has by the imports of `module`, as far as these tell."""
        top, _, rest = name.partition(".")
        origin = module.imported.get(top, top)
        return f"{origin}.{rest}" if rest else origin


def _in_words(reason: str, rule: Rule, patterns: list[str], decorators: Sequence[str]) -> str:
    """Say why `rule`, with these `patterns` of qualified names, leaves out a function."""
    if reason == match.QUALNAME:
        names = list(dict.fromkeys(patterns))
        return f"names {', '.join(names[:MAX_SHOWN])}{', ...' if names[MAX_SHOWN:] else ''} there"
    if reason == match.EXCLUDE:
        return f"exclude: {', '.join(rule.exclude)}"
    if reason == match.PROPERTY:
        return "is a property, which is read and not called"
    have = ", ".join(f"@{name}" for name in decorators) or "no decorator"
    return f"decorated_by: {rule.decorated_by}; it has {have}"


def _action(module: str, qualname: str) -> str:
    owner, _, method = qualname.rpartition(".")
    return f"{module}.{owner}#{method}" if owner else f"{module}#{method}"
