"""Rarer routes to a function: made at run time, run by path, in other processes and interpreters."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.harness import ROOT, Program

if TYPE_CHECKING:
    from pathlib import Path

RULES = """
version: 1
jobs:
  - {class: work.Job, methods: [perform]}
  - {function: work.job}
"""
WORK = """
class Job:
    def perform(self, n=1):
        return n

def job(n=1):
    return n
"""


@pytest.fixture
def program(tmp_path: Path) -> Program:
    program = Program(tmp_path)
    program.write("rules.yaml", RULES)
    program.write("work.py", WORK)
    return program


def actions(program: Program, worker: str, *arguments: str) -> list[str]:
    """Return the recorded actions, after the program behaved as without autoinst."""
    program.write("worker.py", worker)
    arguments = arguments or ("worker.py",)
    plain = program.run(*arguments, instrumented=False)
    assert (plain.status, plain.stderr) == (0, "")
    result = program.run(*arguments, AUTOINST_PACKS="none")
    assert (result.status, result.stdout, result.stderr) == (0, plain.stdout, "")
    return [record["action"] for record in result.records]


def doctor(program: Program) -> str:
    environ = program.environ({"AUTOINST_PACKS": "none", "COLUMNS": "1000"}, instrumented=False)
    done = subprocess.run(
        [sys.executable, "-m", "autoinst.cli.main", "doctor"],
        cwd=program.folder,
        env={**environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def test_closures_made_many_times_leak_nothing(program: Program) -> None:
    program.write("rules.yaml", "version: 1\njobs:\n  - {function: work.factory.<locals>.job, keep: {ok: 1/1000}}\n")
    program.write("work.py", "def factory(n):\n    def job():\n        return n\n    return job\n")
    worker = """
    import gc, work

    class Big:
        pass

    def alive():
        gc.collect()
        return sum(type(thing) is Big for thing in gc.get_objects())

    for _ in range(3000):
        work.factory(Big())()
    print(alive())
    kept = [work.factory(Big()) for _ in range(10)]
    print(alive(), len({id(job.__code__) for job in kept}))
    """
    assert set(actions(program, worker)) <= {"work.factory.<locals>#job"}


def test_classes_made_at_run_time(program: Program) -> None:
    program.write(
        "work.py",
        """
        def perform(self, n=1):
            return n

        Job = type("Job", (), {"perform": perform, "__module__": __name__})
        namespace = {"__name__": __name__}
        exec("def job(n=1):\\n    return n\\n", namespace)
        job = namespace["job"]
        """,
    )
    assert actions(program, "import work\nwork.Job().perform()\nwork.job()\n") == ["work#perform", "work#job"]


def test_run_path_and_run_module(program: Program) -> None:
    program.write("rules.yaml", RULES + "  - {function: __main__.job}\n  - {function: script.job}\n")
    program.write("script.py", "def job(n=1):\n    return n\njob()\n")
    worker = """
    import runpy
    runpy.run_module("work")["job"]()
    runpy.run_module("script", run_name="__main__")
    runpy.run_path("script.py")
    """
    assert actions(program, worker) == ["work#job", "script#job", "script#job"]


def test_spec_from_file_location(program: Program) -> None:
    program.write("rules.yaml", RULES + "  - {function: other.job}\n")
    program.write("other.py", WORK)
    worker = """
    import importlib.util, sys
    spec = importlib.util.spec_from_file_location("work", "work.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["work"] = module
    spec.loader.exec_module(module)
    module.job()
    import other
    module.job()
    module.Job().perform()
    """
    # No import tells of it: it is seen with the next one that is wanted, or within a second of jobs.
    assert actions(program, worker) == ["work#job", "work.Job#perform"]


def test_exec_is_not_reachable_and_doctor_says_so(program: Program) -> None:
    program.write("rules.yaml", RULES + "  - {function: other.job}\n")
    program.write("other.py", WORK)
    worker = """
    import types, other
    module = types.ModuleType("work")
    exec(open("work.py").read(), module.__dict__)
    print(module.job(), other.job())
    """
    assert actions(program, worker) == ["other#job"]
    (line,) = (line for line in doctor(program).splitlines() if line.startswith("rules.yaml:5"))
    assert "not imported" in line
    assert "not reachable this way if exec() or a file's path made it" in line


SPAWNED = """
import multiprocessing, sys

class Cleanup:
    def run(self, n):
        return n

def task(n):
    return Cleanup().run(n)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with context.Pool(2) as pool:
        print(sorted(pool.map(task, range(4))))
    process = context.Process(target=task, args=(5,))
    process.start()
    process.join()
    print(process.exitcode)
"""


@pytest.mark.parametrize("how", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings("ignore")
def test_functions_of_the_main_script_in_children(program: Program, how: str) -> None:
    program.write(
        "rules.yaml",
        "version: 1\njobs:\n  - {function: __main__.task}\n  - {class: __main__.Cleanup, methods: [run]}\n",
    )
    found = actions(program, SPAWNED, "worker.py", how)
    assert sorted(found) == ["__main__#task"] * 5


@pytest.mark.parametrize("how", ["fork", "spawn", "forkserver"])
def test_process_pool_executor(program: Program, how: str) -> None:
    worker = """
    import concurrent.futures, multiprocessing, sys
    import work

    if __name__ == "__main__":
        context = multiprocessing.get_context(sys.argv[1])
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            print(sorted(pool.map(work.job, range(4))))
            print(pool.submit(work.Job().perform, 7).result())
    """
    found = actions(program, worker, "worker.py", how)
    assert sorted(found) == ["work#job"] * 4 + ["work.Job#perform"]


@pytest.mark.skipif(sys.version_info < (3, 15), reason="lazy import is new in 3.15")
def test_lazy_import(program: Program) -> None:
    worker = """
    import sys
    lazy import work
    lazy from work import job
    print("work" in sys.modules)
    work.Job().perform()
    job()
    """
    assert actions(program, worker) == ["work.Job#perform", "work#job"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="before 3.12 there is no interface to them")
def test_subinterpreters_have_records_of_their_own(program: Program) -> None:
    worker = """
    import sys
    try:
        from _interpreters import create, exec as run, destroy
    except ImportError:
        from _xxsubinterpreters import create, run_string as run, destroy
    sys.stdout.flush()
    for _ in range(3):
        one = create()
        run(one, "import sys; sys.path.insert(0, '.')\\nimport work\\nassert work.job(3) == 3\\nwork.Job().perform()")
        destroy(one)
    import work
    work.job()
    print("done")
    """
    assert actions(program, worker) == ["work#job", "work.Job#perform"] * 3 + ["work#job"]


@pytest.mark.skipif(sys.version_info < (3, 14), reason="new in 3.14")
def test_interpreter_pool_executor(program: Program) -> None:
    worker = """
    from concurrent.futures import InterpreterPoolExecutor
    import work

    if __name__ == "__main__":
        with InterpreterPoolExecutor(2) as pool:
            print(sorted(pool.map(work.job, range(4))))
    """
    assert actions(program, worker) == ["work#job"] * 4


FINDER = """
import importlib.abc, importlib.machinery, importlib.util, json, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "missing":
            raise LookupError("not by this finder")
        if name in ("work", "other"):
            return importlib.util.spec_from_file_location(name, name + ".py", loader=Loader())

class Loader(importlib.abc.Loader):
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        exec(compile(open(module.__name__ + ".py").read(), module.__name__ + ".py", "exec"), vars(module))

sys.meta_path.insert(0, Finder())
import json.tool
import work
work.job()
try:
    import missing
except LookupError as error:
    tb = error.__traceback__
    while tb.tb_next:
        print(tb.tb_frame.f_code.co_name)
        tb = tb.tb_next
sys.meta_path.pop(0)
print(type(work.__loader__), type(work.__spec__.loader), any(type(f) is Finder for f in sys.meta_path))
import other
print(type(other.__loader__))
other.job()
"""


def test_a_finder_that_the_program_puts_first(program: Program) -> None:
    program.write("rules.yaml", RULES + "  - {function: other.job}\n")
    program.write("other.py", WORK)
    # 3.10 keeps autoinst's frame in the traceback of what the finder raises
    worker = FINDER if sys.version_info >= (3, 11) else FINDER.replace("print(tb.tb_frame", "(tb.tb_frame")
    assert actions(program, worker) == ["work#job", "other#job"]


DEADLOCKS = {
    "a package that waits for a thread which imports its submodule": {
        "pkg/__init__.py": """
            import importlib, threading
            def load():
                importlib.import_module("pkg.work")
            thread = threading.Thread(target=load)
            thread.start()
            thread.join(20)
            stuck = thread.is_alive()
        """,
        "pkg/work.py": WORK,
        "worker.py": "import pkg\nassert not pkg.stuck\nimport pkg.work\npkg.work.job()\n",
    },
    "two modules that two threads import crosswise": {
        "pkg/__init__.py": "",
        "pkg/work.py": WORK + "\nimport time\ntime.sleep(0.05)\nimport pkg.other\n",
        "pkg/other.py": WORK + "\nimport time\ntime.sleep(0.05)\nimport pkg.work\n",
        "worker.py": """
            import importlib, threading
            failed = []
            def load(name):
                try:
                    importlib.import_module(name)
                except Exception as error:
                    failed.append(error)
            threads = [threading.Thread(target=load, args=(f"pkg.{name}",)) for name in ("work", "other")]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
            assert not any(thread.is_alive() for thread in threads) and not failed, failed
            import pkg.work
            pkg.work.job()
        """,
    },
    "an import in a finalizer while another import is under way": {
        "pkg/__init__.py": "",
        "pkg/work.py": """
            import gc
            class Last:
                def __del__(self):
                    import pkg.other
                    pkg.other.Job().perform()
            cycle = Last()
            cycle.me = cycle
            del cycle
            gc.collect()
        """
        + WORK.replace("\n", "\n            "),
        "pkg/other.py": WORK,
        "worker.py": "import pkg.work\npkg.work.job()\n",
    },
    "a module that many threads import at once": {
        "pkg/__init__.py": "",
        "pkg/work.py": "import time\ntime.sleep(0.05)\n" + WORK,
        "worker.py": """
            import threading
            def load():
                import pkg.work
                pkg.work.Job()
            threads = [threading.Thread(target=load) for _ in range(20)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
            assert not any(thread.is_alive() for thread in threads)
            import pkg.work
            pkg.work.job()
        """,
    },
    "an import in a signal handler while another import is under way": {
        "pkg/__init__.py": "",
        "pkg/work.py": """
            import os, signal
            def handle(number, frame):
                import pkg.other
                pkg.other.Job().perform()
            signal.signal(signal.SIGUSR1, handle)
            os.kill(os.getpid(), signal.SIGUSR1)
        """
        + WORK.replace("\n", "\n            "),
        "pkg/other.py": WORK,
        "worker.py": "import pkg.work\npkg.work.job()\n",
    },
}


@pytest.mark.parametrize("name", DEADLOCKS)
def test_nothing_waits_for_ever(program: Program, name: str) -> None:
    if sys.version_info >= (3, 14) and name.startswith("a package that waits"):
        pytest.skip("plain Python waits for ever there")
    for path, text in DEADLOCKS[name].items():
        program.write(path, text)
    for part in ("perform", "job"):
        kind = "class: pkg.*.Job, methods: [perform]" if part == "perform" else "function: pkg.work.job"
        program.write("rules.yaml", f"version: 1\njobs:\n  - {{{kind}}}\n")
        plain = program.run("worker.py", instrumented=False, timeout=60)
        result = program.run("worker.py", AUTOINST_PACKS="none", timeout=60)
        assert (
            (result.status, result.stdout, result.stderr) == (plain.status, plain.stdout, plain.stderr) == (0, "", "")
        )
    assert [record["action"] for record in result.records][-1] == "pkg.work#job"
