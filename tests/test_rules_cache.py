from __future__ import annotations

import marshal
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoinst.config import Config
from autoinst.rules import cache, load, model
from autoinst.rules.cache import load_cached

REPOSITORY = Path(__file__).resolve().parent.parent
RULES = 'version: 1\njobs: [{function: a.f, tags: {x: "${y}"}}]\n'


class Place:
    """A rules file and a home; `config` as a worker has it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.file = folder / "rules.yaml"
        self.home = folder / "home"
        (folder / "tmp").mkdir()
        monkeypatch.setenv("TMPDIR", str(folder / "tmp"))
        self.environ = {"AUTOINST_RULES": str(self.file), "AUTOINST_HOME": str(self.home)}
        self.write(RULES)

    def write(self, text: str, file: Path | None = None) -> None:
        (file or self.file).write_text(text)
        self.settle()

    def settle(self) -> None:
        time.sleep(cache.SETTLED_NS / 1e9 + 0.02)

    @property
    def config(self) -> Config:
        return Config(self.environ, str(self.folder))

    def cached(self) -> list[Path]:
        return sorted(self.folder.glob("home/cache/*")) + sorted(self.folder.glob("tmp/*/cache/*"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note each time that YAML is read."""
    found: list[str] = []
    real = load.load_files

    def counted(*args: Any) -> Any:
        found.append("read")
        return real(*args)

    monkeypatch.setattr(load, "load_files", counted)
    return found


def test_the_second_time_no_yaml_is_read(place: Place, reads: list[str]) -> None:
    first = load_cached(place.config)
    second = load_cached(place.config)
    assert reads == ["read"]
    assert first.to_data() == second.to_data()
    assert [rule.where for rule in second.wanted("a")] == ["rules.yaml:2"]
    assert {rule.pack for rule in second.wanted("rq.job")} == {"rq"}
    (file,) = place.cached()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_whatever_the_rules_depend_on_makes_them_read_again(place: Place, reads: list[str]) -> None:
    place.write('version: 1\ninclude: ["more/*.yaml", one.yaml]\njobs: [{function: a.f}]\n')
    (place.folder / "more").mkdir()
    place.write("version: 1\njobs: [{function: b.f}]\n", place.folder / "one.yaml")

    def count() -> int:
        place.settle()
        reads.clear()
        found = len([rule for rule in load_cached(place.config).rules if rule.pack is None])
        assert reads == ["read"]
        load_cached(place.config)
        assert reads == ["read"]
        return found

    assert count() == 2
    place.write("version: 1\njobs: [{function: c.f}]\n", place.folder / "more" / "c.yaml")
    assert count() == 3
    before = place.file.stat()
    place.file.write_text(place.file.read_text().replace("a.f", "a.g"))
    os.utime(place.file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert count() == 3
    assert load_cached(place.config).rules[0].targets == (("a", "g", False),)
    (place.folder / "one.yaml").unlink()
    assert count() == 2
    assert "no such file" in load_cached(place.config).problems[0]
    place.environ["AUTOINST_PACKS"] = "none"
    assert count() == 2
    assert load_cached(place.config).settings["packs"] == ()


def test_a_missing_file_is_a_problem_and_the_packs_stay_on(place: Place, reads: list[str]) -> None:
    place.environ["AUTOINST_RULES"] = str(place.folder / "nope.yaml")
    for _ in range(2):
        rules = load_cached(place.config)
        assert rules.problems == [f"{place.folder / 'nope.yaml'}: no such file"]
        assert rules.wanted("rq.job")
    assert reads == ["read"]
    place.write(RULES, place.folder / "nope.yaml")
    assert load_cached(place.config).problems == []


def test_a_file_that_may_still_change_is_not_kept(
    place: Place, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "SETTLED_NS", 3600 * 10**9)  # however long this test is kept waiting
    place.file.write_text(RULES)
    load_cached(place.config)
    assert place.cached() == []


def damaged(data: bytes) -> list[bytes]:
    head = cache.HEAD

    def resealed(body: bytes) -> bytes:
        return cache.MAGIC + cache.checksum(body) + body

    key, others, own, unread, rules = marshal.loads(data[head:])
    return [
        b"",
        data[: head - 2],
        data[: len(data) // 2],
        data[:-1],
        b"x" * len(data),
        data[: head + 9] + b"\xff" + data[head + 10 :],
        resealed(b"\xfb"),
        resealed(marshal.dumps((b"other key", others, own, unread, rules), 2)),
        resealed(marshal.dumps((key, others, own, unread, rules[:-1]), 2)),
        resealed(marshal.dumps((key, others, own, unread, (rules[0] + 1, *rules[1:])), 2)),
        resealed(marshal.dumps((key, 5, own, unread, rules), 2)),
        resealed(marshal.dumps((key, others, 5, unread, rules), 2)),
        resealed(marshal.dumps(None, 2)),
    ]


def test_a_damaged_or_hostile_cache_is_read_anew_and_replaced(place: Place, reads: list[str]) -> None:
    good = load_cached(place.config).to_data()
    (file,) = place.cached()
    for data in damaged(file.read_bytes()):
        file.write_bytes(data)
        reads.clear()
        assert load_cached(place.config).to_data() == good
        assert load_cached(place.config).to_data() == good
        assert reads == ["read"]


@given(data=st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_change_of_a_byte_is_survived(place: Place, data: st.DataObject) -> None:
    config = place.config
    good = load_cached(config).to_data()
    (file,) = place.cached()
    whole = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(whole)
    assert load_cached(config).to_data() == good


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")
def test_a_file_or_folder_of_somebody_else_is_not_read(place: Place, reads: list[str]) -> None:
    load_cached(place.config)
    (file,) = place.cached()
    os.chown(file, 65534, 65534)
    load_cached(place.config)
    assert reads == ["read", "read"]
    assert file.stat().st_uid == 0  # replaced
    os.chmod(file, 0o666)
    load_cached(place.config)
    assert reads == ["read"] * 3
    os.chown(file.parent, 65534, 65534)
    os.chmod(file, 0o666)
    load_cached(place.config)
    assert len(place.cached()) == 2  # the other one below the temporary folder


def test_a_link_is_not_followed(place: Place, reads: list[str]) -> None:
    load_cached(place.config)
    (file,) = place.cached()
    elsewhere = place.folder / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)
    load_cached(place.config)
    assert reads == ["read", "read"]
    assert not file.is_symlink()


def test_a_home_that_cannot_be_written_leaves_the_temporary_folder(place: Place, reads: list[str]) -> None:
    place.home.write_text("a file is in the way")
    load_cached(place.config)
    load_cached(place.config)
    assert reads == ["read"]
    (file,) = place.cached()
    assert file.parent.parent.name == f"autoinst-{os.geteuid()}"
    assert file.parent.parent.stat().st_mode & 0o777 == 0o700


def test_no_place_at_all_is_no_error(place: Place, reads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    place.home.write_text("a file is in the way")
    monkeypatch.setenv("TMPDIR", str(place.home))
    for _ in range(2):
        assert load_cached(place.config).problems == []
    assert reads == ["read", "read"]


def test_a_temporary_folder_that_is_a_link_is_not_used(place: Place) -> None:
    place.home.write_text("a file is in the way")
    target = place.folder / "target"
    target.mkdir(mode=0o777)
    target.chmod(0o777)
    (place.folder / "tmp" / f"autoinst-{os.geteuid()}").symlink_to(target)
    load_cached(place.config)
    assert list(target.iterdir()) == []


def test_a_failure_of_the_reader_gives_no_rules_and_says_so(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> Any:
        raise RuntimeError("no")

    monkeypatch.setattr(load, "load_files", broken)
    rules = load_cached(place.config)
    assert rules.rules == ()
    assert rules.problems == ["rules: not read: RuntimeError: no"]
    assert rules.settings["ignore"] == ()


def test_many_writers_and_readers_at_once(place: Place) -> None:
    expected = load_cached(place.config).to_data()
    wrong: list[Any] = []

    def work() -> None:
        for _ in range(15):
            for file in place.cached():
                if "." not in file.name:
                    file.unlink(missing_ok=True)
            found = load_cached(place.config).to_data()
            if found != expected:
                wrong.append(found)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    load_cached(place.config)
    assert [file.name.count(".") for file in place.cached()] == [0]  # nothing half-written is left


def test_the_worker_loads_nothing_it_would_have_to_pay_for(place: Place) -> None:
    program = """
import sys
before = set(sys.modules)
from autoinst.config import from_environ
from autoinst.rules.cache import load_cached
rules = load_cached(from_environ())
assert rules.wanted("a") and rules.wanted("rq.job") and not rules.wanted("zlib")
from autoinst.rules.expressions import compile_field
field = rules.wanted("a")[0].fields["tags.x"]
assert compile_field(field, ("y",))(5) == 5
assert rules.wanted("a")[0].matches("a", "f")
from autoinst.rules.requires import unmet
unmet(rules.wanted("rq.job")[0].requires)
print(*sorted(set(sys.modules) - before))
"""
    environ = {**place.environ, "PYTHONPATH": str(REPOSITORY), "PATH": os.environ["PATH"]}
    load_cached(place.config)
    assert place.cached()
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    loaded = done.stdout
    extra = {name for name in loaded.split() if not name.startswith("autoinst")}
    assert extra <= {"__future__", "_imp", "marshal", "time", "_stat", "stat", "sys", "posix"}
    mine = {name for name in loaded.split() if name.startswith("autoinst")}
    assert mine == {
        "autoinst",
        "autoinst.config",
        "autoinst.errors",
        "autoinst.rules",
        "autoinst.rules.cache",
        "autoinst.rules.expressions",
        "autoinst.rules.match",
        "autoinst.rules.model",
        "autoinst.rules.operations",
        "autoinst.rules.requires",
        "autoinst.rules.safe",
        "autoinst.rules.times",
    }


def test_all_that_makes_rules_of_files_is_looked_at() -> None:
    code = "import sys, autoinst.rules.load; print(*(m for m in sys.modules if m.startswith('autoinst.rules.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    files = {f"{name.rpartition('.')[2]}.py" for name in done.stdout.split()}
    assert files - {"cache.py", *cache.READERS} == set()


def test_threads_that_ask_at_once_are_given_the_same_rule(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(RULES)
    rules, _ = load.load_files((str(file),), "none")
    made: list[model.Rule] = []

    class Slow(model.Rule):
        def __init__(self, *data: Any) -> None:
            super().__init__(*data)
            made.append(self)
            if len(made) == 1:
                other.start()
                other.join()

    theirs: list[model.Rule] = []
    other = threading.Thread(target=lambda: theirs.extend(rules.wanted("a")))
    monkeypatch.setattr(model, "Rule", Slow)
    ours = rules.wanted("a")
    assert len(made) == 2
    assert [rule is mine for rule, mine in zip(theirs, ours, strict=True)] == [True]
