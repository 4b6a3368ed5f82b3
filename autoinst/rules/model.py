"""The rules as the worker uses them: plain data that marshal can keep, made into objects where a module needs them."""

from __future__ import annotations

import marshal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    # by module, and by the parts before the first wildcard of a pattern
    Index = tuple[dict[str, list[int]], dict[str, list[tuple[str, int]]]]

FORMAT = 4
NO_RULES: tuple[Rule, ...] = ()
MEMO_MAX = 4096
DATA_PARTS = 7


class Field:
    """One value a rule records: a literal, or a generated Python expression over the call.

    `source` is the expression (None for a literal) for `expressions.compile_field`; `names` are the parameters and the
    special names (`args`, `kwargs`, `result`, `exception`) it reads; `at` is 'enter' or 'exit'; `unit` ('s', 'ms',
    'us', 'ns') and `naive` ('utc', 'local') say how to read a time, None = by magnitude and UTC.
    """

    __slots__ = ("at", "literal", "naive", "names", "source", "unit")

    def __init__(
        self,
        source: str | None,
        literal: Any,
        names: tuple[str, ...],
        at: str = "enter",
        unit: str | None = None,
        naive: str | None = None,
    ) -> None:
        """Keep the parts as they are."""
        self.source = source
        self.literal = literal
        self.names = names
        self.at = at
        self.unit = unit
        self.naive = naive

    def to_data(self) -> tuple[Any, ...]:
        """Return plain data that `Field(*data)` takes."""
        return (self.source, self.literal, self.names, self.at, self.unit, self.naive)


class Rule:
    """One rule: which functions it means and what to record of their calls.

    `targets` are (module pattern, qualified-name pattern, exact); `exclude` dotted patterns over module.qualname;
    `ignore` the exceptions that are no errors, those of the whole file and of all rules included; `where` is
    'file.yaml:12'; `pack` the name of the pack it is from, None for the user's own. `keep` are the shares of the jobs
    that end well and of the ignored ones whose records are kept, and the ns from which on all are (None: no job is
    left out). `carry` is how a job is handed the trace: key, name, stamp (texts or None) and form; what it reads is in
    the fields `into` and `value`.
    """

    __slots__ = (
        "_module",
        "_patterns",
        "carry",
        "decorated_by",
        "exclude",
        "fields",
        "ignore",
        "index",
        "keep",
        "kind",
        "name",
        "namespace",
        "nested",
        "pack",
        "requires",
        "subclass_of",
        "targets",
        "unsafe",
        "where",
    )

    def __init__(
        self,
        index: int,
        kind: str,
        where: str,
        pack: str | None,
        targets: tuple[tuple[str, str, bool], ...],
        exclude: tuple[str, ...],
        subclass_of: str | None,
        decorated_by: str | None,
        requires: dict[str, str],
        name: str,
        namespace: str,
        nested: str,
        unsafe: bool,
        fields: dict[str, tuple[Any, ...]],
        ignore: tuple[str, ...],
        keep: tuple[float, float, int | None] | None = None,
        carry: tuple[str | None, str, str | None, str] | None = None,
    ) -> None:
        """Take the parts as `to_data` gives them (`fields` as plain data)."""
        self.index = index
        self.kind = kind
        self.where = where
        self.pack = pack
        self.targets = targets
        self.exclude = exclude
        self.subclass_of = subclass_of
        self.decorated_by = decorated_by
        self.requires = requires
        self.name = name
        self.namespace = namespace
        self.nested = nested
        self.unsafe = unsafe
        self.fields: dict[str, Field] = {key: Field(*data) for key, data in fields.items()}
        self.ignore = ignore
        self.keep = keep
        self.carry = carry
        self._module: str | None = None
        self._patterns: tuple[str, ...] = ()

    @property
    def wraps(self) -> Field | None:
        """What gives the callable whose calls are the jobs, None where these are the functions' own."""
        return self.fields.get("wraps")

    def to_data(self) -> tuple[Any, ...]:
        """Return plain data that `Rule(*data)` takes."""
        return (
            self.index,
            self.kind,
            self.where,
            self.pack,
            self.targets,
            self.exclude,
            self.subclass_of,
            self.decorated_by,
            self.requires,
            self.name,
            self.namespace,
            self.nested,
            self.unsafe,
            {key: field.to_data() for key, field in self.fields.items()},
            self.ignore,
            self.keep,
            self.carry,
        )

    def matches(self, module: str, qualname: str) -> bool:
        """Tell whether the rule's targets and `exclude` mean the function `qualname` of `module`.

        `subclass_of`, `decorated_by` and `requires` are not looked at: the hook knows the module.
        """
        from autoinst.rules.match import matches, matches_qualname

        if module != self._module:
            # a module's functions are asked about one after the other
            self._patterns = tuple(name for pattern, name, _ in self.targets if matches(pattern, module))
            self._module = module
        for pattern in self._patterns:
            if matches_qualname(pattern, qualname):
                break
        else:
            return False
        dotted = f"{module}.{qualname}"
        return not any(matches(pattern, dotted) for pattern in self.exclude)

    def __repr__(self) -> str:
        """Show the rule's kind and place."""
        return f"<Rule {self.kind} {self.where}>"


class RuleSet:
    """All rules in force.

    `digest` names their content; `settings` holds service, environment, revision, namespace (texts or None), redact,
    env, ignore (tuples of texts) and packs (names of those that are on); `problems` one line for each thing wrong;
    `tops` are the first parts of module names that rules spell out, `anywhere` the (module pattern, index) of those
    that spell out none. `watched` are the (path, signature) pairs of the user's files and folders that this was read
    from, `unread` maps those that could not be read at all to what is wrong with them.

    A process pays for the rules of the packages it imports: each rule is packed by itself, and so is what is indexed
    below each of `tops`.
    """

    __slots__ = (
        "_indexes",
        "_made",
        "_memo",
        "_rules",
        "anywhere",
        "digest",
        "problems",
        "settings",
        "tops",
        "unread",
        "watched",
    )

    def __init__(
        self,
        digest: str,
        settings: dict[str, Any],
        problems: list[str],
        rules: tuple[bytes, ...],
        tops: dict[str, bytes],
        anywhere: tuple[tuple[str, int], ...],
    ) -> None:
        """Take the parts as `build` makes them and `to_data` gives them."""
        self.digest = digest
        self.settings = settings
        self.problems = problems
        self.tops = tops
        self.anywhere = anywhere
        self._rules = rules
        self.watched: list[tuple[str, Any]] = []
        self.unread: dict[str, str] = {}
        self._made: dict[int, Rule] = {}
        self._memo: dict[str, tuple[Rule, ...]] = {}
        self._indexes: dict[str, Index] = {}

    @classmethod
    def build(cls, digest: str, settings: dict[str, Any], problems: list[str], rules: Sequence[Rule]) -> RuleSet:
        """Index `rules` (each rule's `index` is its place) by the modules they may mean."""
        indexes: dict[str, tuple[dict[str, list[int]], dict[str, list[tuple[str, int]]]]] = {}
        anywhere: list[tuple[str, int]] = []
        for rule in rules:
            for pattern in dict.fromkeys(target[0] for target in rule.targets):
                top = pattern.partition(".")[0]
                if "*" in top:
                    anywhere.append((pattern, rule.index))
                    continue
                exact, globs = indexes.setdefault(top, ({}, {}))
                if "*" not in pattern:
                    exact.setdefault(pattern, []).append(rule.index)
                else:
                    globs.setdefault(_spelled_out(pattern), []).append((pattern, rule.index))
        return cls(
            digest,
            settings,
            problems,
            tuple(marshal.dumps(rule.to_data(), 2) for rule in rules),
            {top: marshal.dumps(index, 2) for top, index in indexes.items()},
            tuple(anywhere),
        )

    def to_data(self) -> tuple[Any, ...]:
        """Return plain data for marshal."""
        return (FORMAT, self.digest, self.settings, self.problems, self._rules, self.tops, self.anywhere)

    @classmethod
    def from_data(cls, data: Any) -> RuleSet:
        """Return the rules `to_data` described; raises ValueError if `data` is something else."""
        if type(data) is not tuple or len(data) != DATA_PARTS or data[0] != FORMAT:
            raise ValueError("not the data of a rule set")
        kinds = (str, dict, list, tuple, dict, tuple)
        if any(type(part) is not kind for part, kind in zip(data[1:], kinds)):  # noqa: B905 - both have six
            raise ValueError("not the data of a rule set")
        return cls(*data[1:])

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Every rule, the user's first, then the packs'."""
        return tuple(self._rule(index) for index in range(len(self._rules)))

    def _rule(self, index: int) -> Rule:
        rule = self._made.get(index)
        if rule is None:
            # There is one of each, whichever thread was first: rules are known by their identity.
            rule = self._made.setdefault(index, Rule(*marshal.loads(self._rules[index])))
        return rule

    def _index(self, top: str) -> Index:
        index = self._indexes.get(top)
        if index is None:
            packed = self.tops.get(top)
            index = NOTHING if packed is None else marshal.loads(packed)
            if packed is not None:
                self._indexes[top] = index
        return index

    def spelled_out(self, top: str) -> dict[str, list[int]]:
        """Return the indexes of rules by the modules that they spell out, of those that begin with `top`."""
        return self._index(top)[0]

    def wanted(self, module: str) -> tuple[Rule, ...]:
        """Return the rules that may mean functions of the module of that name, in order."""
        top = module.partition(".")[0]
        if top not in self.tops and not self.anywhere:
            return NO_RULES
        known = self._memo.get(module)
        if known is None:
            known = self._find(module, top)
        return known

    def _find(self, module: str, top: str) -> tuple[Rule, ...]:
        exact, globs = self._index(top)
        found = set(exact.get(module, ()))
        candidates = self.anywhere
        if globs:  # by all that a name begins with, so that it costs the same however many there are
            begin = module
            while begin:
                candidates = (*candidates, *globs.get(begin, ()))
                begin = begin.rpartition(".")[0]
        if candidates:
            from autoinst.rules.match import matches

            found.update(index for pattern, index in candidates if matches(pattern, module))
        if len(self._memo) >= MEMO_MAX:
            self._memo.clear()
        known = self._memo[module] = tuple(self._rule(index) for index in sorted(found))
        return known


def _spelled_out(pattern: str) -> str:
    """Return the parts of a dotted pattern before the first that has a wildcard."""
    return pattern[: pattern.index("*")].rpartition(".")[0]


NOTHING: Index = ({}, {})
NONE = RuleSet("", {}, [], (), {}, ())  # no rules at all
