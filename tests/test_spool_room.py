"""AUTOINST_SPOOL_MAX: processes that nobody drains cannot fill a disk."""

from __future__ import annotations

import os

import pytest

from autoinst.cli.diagnosis import spool_facts
from autoinst.config import Config
from autoinst.spool import room
from autoinst.spool.writer import Spool
from tests.harness import Program

RULES = """\
    version: 1
    jobs: [{class: __main__.Job, methods: [perform]}]
    """


def test_forked_children_stop_making_arenas_and_their_jobs_run_on(tmp_path):
    program = Program(tmp_path)
    program.write("rules.yaml", RULES)
    program.write(
        "worker.py",
        """
        import os

        class Job:
            def perform(self):
                os.write(1, b".")

        for _ in range(30):
            pid = os.fork()
            if not pid:
                Job().perform()
                os._exit(0)
            os.waitpid(pid, 0)
        spool = os.environ["AUTOINST_HOME"] + "/spool"
        print(sum(os.stat(f"{spool}/{name}").st_size for name in os.listdir(spool)) <= 300_000)
        """,
    )
    result = program.run("worker.py", AUTOINST_PACKS="none", AUTOINST_SPOOL_MAX="300000")
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout == "." * 30 + "True\n"
    assert 5 < len(result.records) < 30
    attention: list[str] = []
    spool_facts(Config({"AUTOINST_HOME": str(program.home)}, "/"), attention)
    assert "the spool was full" in attention[0]
    program.write("worker.py", "class Job:\n    def perform(self): pass\nJob().perform()\n")
    assert (
        len(program.run("worker.py", AUTOINST_PACKS="none").records) == len(result.records) + 1
    )  # drained: room again


def test_a_process_that_may_not_grow_counts(tmp_path):
    spool = Spool(str(tmp_path / "spool"), dict, limit=50_000)
    assert spool.open()
    head = ("A#b", None, 0, "background_job", "perform_job.python", None, None)
    slots = [spool.begin(number, 1, 0.0, head, b"") for number in range(1, 41)]
    assert [slot is None for slot in slots] == [False] * 32 + [True] * 8
    assert "SpoolFullError" in (spool.problem or "")
    assert len(os.listdir(tmp_path / "spool")) == 2  # one arena, and the mark


def test_what_the_spool_takes_is_reckoned_from_some(tmp_path):
    assert room.used(str(tmp_path)) == 0
    for number in range(1000):
        (tmp_path / f"{number}.arena").write_bytes(b"x" * 100)
    (tmp_path / "other").write_bytes(b"x" * 10_000)
    assert room.used(str(tmp_path)) == 100_000
    room.check(str(tmp_path), 50, 100_050)
    room.check(str(tmp_path), 50, 0)
    with pytest.raises(room.SpoolFullError, match="100000 of 100049"):
        room.check(str(tmp_path), 50, 100_049)


@pytest.mark.parametrize(("text", "limit"), [("", 1 << 30), ("5M", 5 << 20), ("0", 0), ("much", 1 << 30)])
def test_the_limit(text, limit):
    assert Config({"AUTOINST_HOME": "/h", "AUTOINST_SPOOL_MAX": text}, "/").spool_limit == limit
