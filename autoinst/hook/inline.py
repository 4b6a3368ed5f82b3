"""What the body of an inlined function stands inside: `with CALL(values): body`, CALL being a constant of its code.

CALL makes an instance of a class that the probe has: one call. What the body itself must tell (a result, a yield) goes
by the id of its frame, so that the function has no variable more than it says.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from types import CodeType

from autoinst.hook.constants import Calls, InnerCalls, inert_context
from autoinst.hook.trampoline import CO_ASYNC_GENERATOR, CO_GENERATOR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any

    from autoinst.hook.probe import Probe

PLACEHOLDER = "@autoinst."  # PLACEHOLDER + "3.1.call": of function 3's second probe
_frame_of_caller = sys._getframe


class NotInlined(Exception):  # noqa: N818 - an answer, no error
    """Why a function, or a whole module, keeps its trampoline."""


class Wanted:
    """A function that is to be inlined: its code, and what its probes read."""

    __slots__ = ("callee", "code", "names", "number", "results")

    def __init__(
        self,
        number: int,
        code: CodeType,
        names: tuple[tuple[str, ...], ...],
        results: tuple[bool, ...],
        callee: str | None = None,
    ) -> None:
        """Inline function `number`, whose probes read the arguments `names` and, as `results` says, the result.

        With a `callee` only the calls of that are meant, which are inside the function.
        """
        self.callee = callee
        self.number = number
        self.code = code
        self.names = names
        self.results = results

    def placeholder(self, probe: int, part: str) -> str:
        """Return the constant that stands for a `part` of the function's probe number `probe`."""
        return f"{PLACEHOLDER}{self.number}.{probe}.{part}"


def parts(probe: Probe, code: CodeType) -> dict[str, Any]:
    """Return the constants of a function with original `code` under `probe`, by what a placeholder calls them."""
    if code.co_flags & (CO_GENERATOR | CO_ASYNC_GENERATOR):
        return _generator_parts(probe)
    return _result_parts(probe) if reads_result(probe) else Calls(probe, _kind(probe)).methods()


def call_parts(probe: Probe) -> dict[str, Any]:
    """Return the constants of a call inside a function: the function is not known by its probes."""
    opened_late = _opened_late(probe).methods()
    within = {"within": opened_late["call"], "begin": opened_late["begin"]}
    return InnerCalls(probe, _kind(probe)).methods() | within


def reads_result(probe: Probe) -> bool:
    """Return whether the probe's rule reads what the function returns."""
    late = [field for _, _, field in probe.fields.at_exit]
    given = probe.rule.fields.get("args.callable")  # read with `args`, which is among them
    return any("result" in field.names for field in (*late, *(() if given is None else (given,))))


def _entering(probe: Probe) -> Callable[[Any], None]:
    """Return the `__enter__` of calls that have the arguments in `node`, and what the probe opened from then on."""
    enter, error = probe.enter, probe.error

    def __enter__(self: Any) -> None:  # noqa: N807 - a method's
        # Opened here and not before: once this has returned, `__exit__` is sure to be called.
        try:
            self.node = enter(self.node)
        except RecursionError:  # the function's own call is to raise it, if it comes so far
            self.node = None
        except BaseException as exception:  # a signal handler's
            self.node = None
            error(False, exception)
            raise

    return __enter__


def _kind(probe: Probe) -> type:
    leave, error = probe.exit, probe.error

    class Call:
        """One call; `node` has the arguments until it has begun."""

        __slots__ = ("node",)
        node: Any

        __enter__ = _entering(probe)

        def __exit__(self, _: object, exception: BaseException | None, _traceback: TracebackType | None) -> None:
            try:
                if exception is None:
                    leave(self.node, None)
                elif self.node is not None:
                    error(self.node, exception)
            except RecursionError:
                return

    return Call


def _result_parts(probe: Probe) -> dict[str, Any]:
    leave, error = probe.exit, probe.error
    results: dict[int, Any] = {}
    frame_of = _frame_of_caller

    class Call:
        """One call of a function whose result the rule reads."""

        __slots__ = ("node",)
        node: Any

        __enter__ = _entering(probe)

        def __exit__(self, _: object, exception: BaseException | None, _traceback: TracebackType | None) -> None:
            try:
                result = results.pop(id(frame_of(1)), None)
                if exception is None:
                    leave(self.node, result)
                elif self.node is not None:
                    error(self.node, exception)
            except RecursionError:
                return

    def give(result: Any) -> None:
        results[id(frame_of(2))] = result

    return Calls(probe, Call, give=give).methods()


_begun: dict[int, list[Any]] = {}  # the calls that a statement in progress has made, in order, by the frame's id


def _opened_late(probe: Probe) -> InnerCalls:
    """Return the calls that are opened inside the `with` around their statement, when their arguments are there."""
    enter, error = probe.enter, probe.error
    calls: dict[int, Any] = {}  # by the frame's id
    frame_of = _frame_of_caller

    def begin(values: Any) -> None:
        frame = frame_of(2)
        while id(frame) not in calls and frame.f_back:  # a comprehension before 3.12 is a function of its own
            frame = frame.f_back
        call = calls.get(id(frame))
        if call is None or call.begun:
            return
        call.begun = True
        _begun.setdefault(id(frame), []).append(call)
        try:
            call.node = enter(values)
        except RecursionError:  # the call itself is to raise it, if it comes so far
            return
        except BaseException as exception:  # a signal handler's
            error(False, exception)
            raise

    return InnerCalls(probe, _statements(_kind(probe), calls), begin=begin)


def _statements(kind: Any, calls: dict[int, Any]) -> type:
    """Return the class of statements with calls of `kind`, which are among `calls` while they run."""
    frame_of = _frame_of_caller

    class Statement(kind):  # type: ignore[misc]
        """One statement with such calls: the first of them opens what the end of the statement closes."""

        __slots__ = ("begun",)
        begun: bool
        node: Any

        close = kind.__exit__

        def __enter__(self) -> None:
            self.begun = False
            self.node = None
            try:
                calls[id(frame_of(1))] = self
            except RecursionError:  # the call itself is to raise it, if it comes so far
                return

        def __exit__(self, *outcome: object) -> None:
            interruption: BaseException | None = None
            try:
                frame = id(frame_of(1))
                calls.pop(frame, None)
                begun: Any = _begun.get(frame, ())
                # In here, not in a function of its own: what had room to begin has it to end. What calls that other
                # rules mean have opened inside this one since ends before it.
                while self in begun:
                    try:
                        begun.pop().close(*outcome)
                    except BaseException as error:  # a signal handler's: the others end all the same
                        interruption = error
                if not begun:
                    _begun.pop(frame, None)
                if interruption is not None:
                    raise interruption
            except RecursionError:
                return
            finally:
                interruption = None

    return Statement


def _generator_parts(probe: Probe) -> dict[str, Any]:
    enter, leave, error = probe.enter, probe.exit, probe.error
    calls: dict[int, Any] = {}  # by the frame's id
    frame_of = _frame_of_caller

    class Call:
        """One run of a generator or async generator: its job is current only while the body runs."""

        __slots__ = ("node", "result", "suspended")
        node: Any
        result: Any
        suspended: bool

        def __enter__(self) -> None:
            self.result = None
            self.suspended = False
            try:
                calls[id(frame_of(1))] = self
                self.node = enter(self.node)
            except RecursionError:  # the function's own call is to raise it, if it comes so far
                self.node = None
            except BaseException as exception:  # a signal handler's
                self.node = None
                error(False, exception)
                raise

        def __exit__(self, _: object, exception: BaseException | None, _traceback: TracebackType | None) -> None:
            try:
                calls.pop(id(frame_of(1)), None)
                result, self.result = self.result, None
                if exception is None:
                    leave(self.node, result)
                elif self.node is not None:
                    error(self.node, exception)
            except RecursionError:
                return

    return _pausing_parts(probe, Call, calls)


def _pausing_parts(probe: Probe, kind: type, calls: dict[int, Any]) -> dict[str, Any]:
    suspend_node, resume_node = probe.suspend, probe.resume
    frame_of = _frame_of_caller

    class Pause:
        """Stands around a statement that yields: whichever way the generator runs on, its job is current again."""

        __slots__ = ()

        __enter__ = get_ident  # anything that takes no argument and does nothing: what is yielded is made first

        def __exit__(self, _: object, _exception: BaseException | None, _traceback: TracebackType | None) -> None:
            try:
                call = calls[id(frame_of(1))]
                if call.suspended:
                    call.suspended = False
                    resume_node(call.node)
            except RecursionError:
                return

        def __reduce__(self) -> tuple[Any, ...]:
            return inert_context()

    def suspend(_: Any) -> None:
        call = calls[id(frame_of(2))]
        suspend_node(call.node)
        call.suspended = True

    def resume(_: Any) -> None:
        call = calls[id(frame_of(2))]
        call.suspended = False
        resume_node(call.node)

    def give(result: Any) -> None:
        calls[id(frame_of(2))].result = result

    calling = Calls(probe, kind, suspend=suspend, resume=resume, give=give)
    return {"pause": Pause(), **calling.methods()}


def fill(code: CodeType, found: dict[str, Any]) -> CodeType:
    """Return `code` with the values of `found` in the place of the placeholders that are their keys."""
    constants: list[Any] = []
    changed = False
    for constant in code.co_consts:
        new = constant
        if type(constant) is CodeType:
            new = fill(constant, found)
        elif type(constant) is str and constant.startswith(PLACEHOLDER):
            new = found.get(constant, constant)
        changed = changed or new is not constant
        constants.append(new)
    return code.replace(co_consts=tuple(constants)) if changed else code


def same_code(one: CodeType, other: CodeType) -> bool:
    """Return whether two code objects are the same, line numbers included."""
    if one != other:
        return False
    return sys.version_info >= (3, 11) or _lines(one) == _lines(other)  # 3.10 compares all but lines


def _lines(code: CodeType) -> list[bytes]:
    found = [code.co_linetable]
    for constant in code.co_consts:
        if type(constant) is type(code):
            found += _lines(constant)
    return found
