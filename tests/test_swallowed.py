"""Exceptions that a library keeps from its caller: rules of `exceptions` find them where they pass by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.harness import Program

if TYPE_CHECKING:
    from pathlib import Path

LIBRARY = """
    def job(function):
        try:
            attempt(function)
        except ValueError as error:
            handle(error)

    def attempt(function):
        return function()

    def handle(error):
        pass
"""
WORKER = """
    import library

    def bad():
        raise ValueError("bad")

    def outer():
        library.job(bad)

    library.job(print)
    library.job(bad)
    library.job(outer)
"""
JOBS = "version: 1\njobs: [{function: library.job}]\n"


def outcomes(tmp_path: Path, rule: str) -> list[tuple[str, str | None, list[str]]]:
    program = Program(tmp_path)
    program.write("library.py", LIBRARY)
    program.write("rules.yaml", JOBS + f"exceptions: [{rule}]\n")
    program.write("worker.py", WORKER)
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.status, result.stderr) == (0, "")
    return [
        (record["status"], (record["exception"] or {}).get("message"), [event["name"] for event in record["events"]])
        for record in result.records
    ]


# A job inside a job is an event, and the job around it has not failed.
EXPECTED = [("ok", None, []), ("error", "bad", []), ("ok", None, ["perform_job.python"])]


def test_an_exception_that_is_handed_to_a_function(tmp_path: Path) -> None:
    assert outcomes(tmp_path, '{function: library.handle, exception: "${error}"}') == EXPECTED


def test_an_exception_that_leaves_a_function(tmp_path: Path) -> None:
    assert outcomes(tmp_path, '{function: library.attempt, exception: "${exception}"}') == EXPECTED
