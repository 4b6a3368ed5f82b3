"""The tests of CPython's own that fail with probes, each with the reason why that is inherent to the mechanism.

A trampoline puts one more frame, with a code object of its own, between the caller and the original function. Tests
that look at frames, code objects, trace events or the recursion depth see that. Inlining puts a `with` into the
function's own code, and calls that tracing hooks see. Monitoring changes nothing. Nothing else may be listed here.
"""

from __future__ import annotations

import re

FRAME = "the stack has one more frame: caller's module, stacklevel, extract_stack, source_traceback"
TRACEBACK = "3.10 keeps the trampoline's frame in tracebacks (and what those keep alive)"
SUSPENDED = "a suspended generator or coroutine: its frame, gi_yieldfrom, cr_await"
CODE = "the code object: its variables, constants, bytecode, lines; code made from it by replace()"
DEPTH = "recursion: every probed call takes two frames"
TRACE = "trace events, line by line, and a debugger's jumps"
LEFT = "a generator that delegates by `yield from`, or a lambda: inlining leaves it a trampoline"
LOADED = "a function of a module that was loaded before autoinst (namedtuple, Enum, ABCMeta) has a trampoline"
CONSTANTS = "the code object's constants"
BRANCHES = "the code object's branches: those of the `with` are on no line"
KINDS = "what CPython's C code knows of a code's variables: its own `replace()` forgets which are arguments (3.14+)"
SIGNAL = "a signal that came while a delegating generator was resumed is raised in it, not in the one it delegates to"
RECORD = "the recorder: its context variable while a job runs, the objects a running job keeps, builtins put in its way"

# (pattern of the test's name after "test.", pattern of the message, why)
KNOWN = tuple(
    (re.compile(name), re.compile(message, re.DOTALL), reason)
    for name, message, reason in (
        # Module-making functions that are probed themselves ask for their caller's module: namedtuple, NewType, Enum.
        (
            r".",
            r"PicklingError: .*(lookup \w+ on (typing|collections|enum|dataclasses) failed|not found as \w+\.\w+)",
            FRAME,
        ),
        (r"test_types\.UnionTests", r"Can't pickle ~T", FRAME),
        (r"test_typing\.", r"'typing(\.\w+|\.Unpack\[typing\.Movie\])?' != '", FRAME),
        (r"test_typing\..*Protocol", r"non-method members|Instance and class checks", FRAME),
        (r".*(test_module_attr|test_factory)$", r"'\w+' != 'test\.", FRAME),
        (r"test_inspect\..*test__all__$", r"Element counts", FRAME),
        (r"test_inspect\..*(InterpreterStack|BuggyCases|ToplevelFrames|SourceCode)", r".", FRAME),
        (r"test_inspect\..*Get(AsyncGen|Coroutine|Generator)State", r".", SUSPENDED),
        (r"test_inspect\..*GetClosureVars", r".", CODE),
        (r"test_inspect\..*test_signature_bind_implicit_arg", r"too many positional", CODE),
        # A warning that a probed function gives is attributed to the frame above, which is its trampoline.
        (r".", r"AssertionError: '[^']+\.py' != '", FRAME),
        (r"test_warnings\..*(stacklevel|filename|skip_file|after_default|test_ignore|test_module)", r".", FRAME),
        (r"test_logging\..*(stacklevel|styled_adapter)", r".", FRAME),
        (r"test_asyncio\..*source_traceback", r".", FRAME),
        (r"test_asyncio\..*test_(coroutine_never_yielded|log_destroyed_pending_task)", r"Regex|'future'", FRAME),
        # Hears of the task that test_task_source_traceback leaves behind when it fails.
        (r"test_asyncio\.test_tasks\..*test_tb_logger_not_called_after_cancel", r"True is not false", FRAME),
        (r"test_asyncio\.test_taskgroups\..*refcycles", r"'cr_frame'", SUSPENDED),
        (r"test_coroutines\..*origin_tracking", r".", FRAME),
        (r"test_coroutines\..*test_cr_await", r".", SUSPENDED),
        (r"test_generators\..*(yieldfrom|yield_from|frame_outlives)", r".", SUSPENDED),
        (
            r".*(recursive_traceback|long_context_chain|deep_nested_struct|recursion|deep)",
            r"not found|greater|Recurs",
            DEPTH,
        ),
        (r"test_traceback\..*(stack|Stack|extract_tb)", r".", FRAME),
        (r"test_code\.|test_funcattrs\.", r".", CODE),
        (r"test_positional_only_arg\..*constant_fold", r".", CODE),
        (r"test_exceptions\.PEP626Tests", r"Tuples differ", TRACE),
        (r"test_exceptions\..*testSettingException", r"!= 'test_capi2'", FRAME),
        (r"test_sys_settrace", r".", TRACE),
        (r"test_context\.ContextTest\.test_context_(getset|run)", r"2 != 1|name='autoinst'", RECORD),
        (r"test_descr\..*test_slots", r"^AssertionError: \d+ != \d+$", RECORD),
        (r"test_functools\..*lru_reentrancy_with_len", r"^(TypeError: .*unhashable|RecursionError)", RECORD),
        (r"test_doctest.*(set_trace|debug)", r".", TRACE),
    )
)
KNOWN_BEFORE_311 = tuple(
    (re.compile(name), re.compile(message, re.DOTALL), TRACEBACK)
    for name, message in (
        (r"test_traceback\.", r"."),
        (r"test_raise\.TestTracebackType", r"is not None"),
        (r"test_contextlib(_async)?\..*(nokeepref|exit_exception_traceback)", r"."),
        (r".*testAssertRaisesRefcount", r"!="),
    )
)


# What the recorder itself shows, whichever the mechanism.
ALWAYS = tuple((name, message, reason) for name, message, reason in KNOWN if reason is RECORD)
INLINE = (
    *ALWAYS,
    *(
        (re.compile(name), re.compile(message, re.DOTALL), reason)
        for name, message, reason in (
            (r"test_generators\..*(yieldfrom|yield_from)", r"Lists differ|NoneType", LEFT),
            # 3.10's has a generator as a coroutine.
            (r"test_asyncio\.test_tasks\..*test_log_destroyed_pending_task", r"'future'", LEFT),
            (r"test_code\..*test_code_hash_uses_bytecode", r"<lambda>", LEFT),
            (r"test_code\..*test_returns_only_none .*<lambda>", r"False is not true", LEFT),
            (r"test_code\..*test_(local_kinds|var_counts)", r"': \d+", KINDS),
            (r"test_code\..*test_co_branches", r"\(-\d+, -\d+, -\d+\)", BRANCHES),
            (r"test_inspect\..*test_signature_bind_implicit_arg", r"must be code, not (type|method)", CONSTANTS),
            # 3.10's `logging.currentframe`, which counts frames, is a lambda.
            (r"test_logging\..*find_caller_with_stacklevel", r"'innermost' != 'inner'", LEFT),
            (r"test_inspect\..*test__all__$", r"Element counts", LOADED),
            (r"test_enum\..*test_pickle_enum_function$", r"lookup \w+ on enum failed", LOADED),
            # Before 3.12 a protocol looks three frames up for its caller, and lets abc ask what others may not.
            (
                r"test_typing\.ProtocolTests\.test_protocol(s_issub|_decorated_with_f)",
                r"TypeError not raised",
                LOADED,
            ),
            (r"test_sys_settrace", r".", TRACE),
            (r"test_doctest.*(set_trace|debug)", r".", TRACE),
        )
    ),
)
MONITORING = (
    *ALWAYS,
    (re.compile(r"test_generators\..*test_raise_and_yield_from"), re.compile(r"KeyboardInterrupt"), SIGNAL),
)
BY_MECHANISM = {"trampoline": KNOWN, "inline": INLINE, "monitoring": MONITORING}


def why(mechanism: str, version: str, module: str, test: str, message: str) -> str | None:
    """Return why `test` of `module` differs on `version` by `mechanism`, None if nobody knows."""
    name = test.removeprefix("test.") if test.startswith("test.") else test
    if test.startswith("("):
        name = module.removeprefix("test.")
    known = BY_MECHANISM[mechanism]
    if mechanism == "trampoline" and version == "3.10":
        known = KNOWN_BEFORE_311 + KNOWN
    for test_pattern, message_pattern, reason in known:
        if test_pattern.match(name) and message_pattern.search(message):
            return reason
    return None
