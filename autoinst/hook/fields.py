"""A rule's fields made ready for one function: which arguments to hand over, and what to do with their values."""

from __future__ import annotations

from autoinst.hook.arguments import ARGS, CALLABLE, Given, Own, place_of_args
from autoinst.hook.trampoline import ALL_ARGS, ALL_KWARGS
from autoinst.rules.expressions import Unavailable, compile_field, duration_ns, time_ns
from autoinst.trace import traceparent
from autoinst.trace.payload import MAX_ATTEMPTS, MAX_JOB_ID, MAX_LABEL, spell_out_method
from autoinst.trace.sanitize import FILTERED, plain_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from autoinst.hook.target import Target
    from autoinst.rules.model import Field, Rule
    from autoinst.trace.transaction import Transaction

    Unavailables = dict[tuple[str, str], list[Any]]
    Reader = tuple[str, Callable[..., Any], Field]

AT_EXIT = ("result", "exception")
MAX_UNAVAILABLE = 100  # (rule, field) pairs whose reasons are kept
WRAPPED = "wrapped"
WHOLE = {"args": ALL_ARGS, "kwargs": ALL_KWARGS}
EVENT_FIELDS = ("title", "body", "when")
CONVERTED = frozenset({"enqueued_at", "eta", "queue_time", "traceparent"})  # what may be of no use though it was read


class Fields:
    """The fields of one rule, compiled for the parameters of one target.

    `names` are the arguments a probe must be handed, in order; `self` or `cls` always comes first for a method.
    """

    __slots__ = (
        "_on_new",
        "_readers",
        "_unavailable",
        "at_enter",
        "at_exit",
        "body",
        "names",
        "title",
        "when",
        "where",
    )

    def __init__(
        self, rule: Rule, target: Target, unavailable: Unavailables, on_new: Callable[[], None] | None = None
    ) -> None:
        """Compile `rule`'s fields for `target`; what cannot be read there is noted in `unavailable`.

        `on_new` is called where that has a field for the first time.
        """
        parameters = target.parameters
        known = parameters.names | {"args", "kwargs"}
        free = frozenset(parameters.free) - known
        known |= free
        names = [parameters.first] if target.reads_self and parameters.first else []
        fields = rule.fields
        if rule.wraps is not None:
            fields = {key: _naming(field, target) for key, field in fields.items() if key != "wraps"}
        for field in fields.values():
            names.extend(name for name in field.names if name in known and name not in names)
        # The rule cannot know what a callable that is handed over calls its parameters.
        self.names = tuple(names if rule.wraps is None else [WHOLE.get(name, name) for name in names])
        self.where = rule.where
        self._unavailable = unavailable
        self._on_new = on_new
        self._readers: dict[str, Reader] = {}
        self.at_enter: list[Reader] = []
        self.at_exit: list[Reader] = []
        for key, field in fields.items():
            late = field.at == "exit"
            # A name the function has not makes that alternative of the field unavailable, with its reason.
            read = compile_field(field, (*names, *AT_EXIT) if late else tuple(names), free)
            self._readers[key] = (key, read, field)
        for key, (_, read, field) in self._readers.items():
            if key in EVENT_FIELDS or key == CALLABLE:
                continue
            reader = (key, self._arguments(read, target) if key == ARGS else read, field)
            (self.at_exit if field.at == "exit" else self.at_enter).append(reader)
        self.when = self._readers.get("when")
        self.title = "title" in self._readers
        self.body = "body" in self._readers

    def _arguments(self, read: Callable[..., Any], target: Target) -> Callable[..., Any]:
        """Return what reads the job's arguments without those that have a secret's name."""
        given = self._readers.get(CALLABLE)
        if given is not None:
            return Given(read, given[1], self.note)
        place = place_of_args(self.names, target)
        return read if place is None else Own(read, target, place)

    def note(self, key: str, reason: str) -> None:
        """Count that field `key` could not be read."""
        entry = self._unavailable.get((self.where, key))
        if entry is None:
            if len(self._unavailable) < MAX_UNAVAILABLE:
                self._unavailable[(self.where, key)] = [reason[:200], 1]
                if self._on_new is not None:
                    self._on_new()
        else:
            entry[0] = reason[:200]
            entry[1] += 1

    def value(self, key: str, values: tuple[Any, ...]) -> Any:
        """Return field `key` of this call, None where it cannot be read."""
        reader = self._readers.get(key)
        if reader is None:
            return None
        try:
            return reader[1](*values)
        except Unavailable as reason:
            self.note(key, str(reason))
            return None

    def holds(self, values: tuple[Any, ...]) -> bool:
        """Return whether the rule's `when` is true of this call; one that cannot be read is not."""
        return bool(self.value("when", values))

    def text(self, key: str, values: tuple[Any, ...]) -> str | None:
        """Return field `key` as text, None where it is null or cannot be read."""
        value = self.value(key, values)
        return value if value is None or type(value) is str else _text(value)

    def apply(self, transaction: Transaction, readers: list[Reader], values: tuple[Any, ...]) -> None:
        """Evaluate `readers` on a call's values and set what they give on `transaction`."""
        due, waited = 0, None
        for key, read, field in readers:
            try:
                value = read(*values)
                if value is None:
                    continue
                if key in CONVERTED:
                    if key == "traceparent":
                        self._set_trace(transaction, value)
                    elif key == "queue_time":
                        waited = duration_ns(value, field.unit) / 1e6
                    else:
                        due = max(due, time_ns(value, field.unit, field.naive))
                    continue
            except Unavailable as reason:
                self.note(key, str(reason))
                continue
            self._set(transaction, key, value)
        if due:
            transaction.set_enqueued(due)
        if waited is not None:
            transaction.set_queue_time(waited)

    def _set(self, transaction: Transaction, key: str, value: Any) -> None:
        if key == "attempts":
            self._set_attempts(transaction, value)
        elif key == "class":
            transaction.class_name = _text(value) or transaction.class_name
            spell_out_method(transaction)
        elif key == "method":
            transaction.method = _text(value) or transaction.method
            spell_out_method(transaction)
        elif key == "queue":
            transaction.queue = _text(value)
        elif key == "exception":
            if issubclass(type(value), BaseException):
                transaction.add_exception(value)
        elif key.startswith("tags."):
            name, sanitizer = key[5:], transaction.sanitizer
            transaction.merge_tags({name: FILTERED if sanitizer.is_secret(name) else sanitizer.plain(value)})
        elif key == "job_id":
            transaction.set_detail(key, _text(value)[:MAX_JOB_ID])
        elif key != ARGS or CALLABLE not in self._readers or ARGS not in (transaction.details or ()):
            # Arguments of a callable are those of the first call: the job's own.
            transaction.set_detail(key, transaction.sanitizer.plain(value))

    @staticmethod
    def _set_trace(transaction: Transaction, value: Any) -> None:
        found = traceparent.parse(value)
        if found is None:
            raise Unavailable("no traceparent")
        transaction.trace_id, transaction.parent_span_id = found

    def _set_attempts(self, transaction: Transaction, value: Any) -> None:
        number = plain_number(value)
        if number is not None and 0 < number <= MAX_ATTEMPTS:
            transaction.attempts = int(number)
        else:
            self.note("attempts", "not a count from 1")


def _naming(field: Field, target: Target) -> Field:
    """Return a field of a rule for what is handed over with that function's own dotted name in the place of WRAPPED."""
    if WRAPPED not in field.names:
        return field
    name = f"{target.class_name}.{target.method}"
    source = (field.source or "").replace(f"${WRAPPED}$", repr(name))
    names = tuple(other for other in field.names if other != WRAPPED)
    return type(field)(source, field.literal, names, field.at, field.unit, field.naive)


def _text(value: Any) -> str:
    if type(value) is str:
        return value[:MAX_LABEL]
    from autoinst.trace.recorder import get

    return str(get().sanitizer.plain(value))[:MAX_LABEL]
