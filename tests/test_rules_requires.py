from __future__ import annotations

import os
import sys
import threading
import types
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoinst.cli import main as cli
from autoinst.rules import requires

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    requires.forget()
    yield
    requires.forget()


@pytest.mark.parametrize(
    ("specifier", "version", "expected"),
    [
        (">=1.16", "1.16", True),
        (">=1.16", "1.16.0", True),
        (">=1.16", "1.9", False),
        (">=1.16", "2.0rc1", True),
        (">=1.16,<3", "3.0.0", False),
        ("<3", "2.99.1", True),
        ("==2.*", "2.7", True),
        ("==2.*", "20.7", False),
        ("!=2.1.*", "2.1.5", False),
        ("==2", "2.0.0", True),
        ("!=2", "2.0.1", True),
        ("~=1.4", "1.9", True),
        ("~=1.4", "2.0", False),
        ("~=1.4.2", "1.4.9", True),
        ("~=1.4.2", "1.5", False),
        (">1", "1.0", False),
        ("<=1", "1.0.post1", True),
        (">=1", "1!0.5", False),
    ],
)
def test_releases_compare_by_their_numbers(specifier: str, version: str, expected: bool) -> None:
    assert requires.allows(specifier, version) is expected


@pytest.mark.parametrize(
    "specifier", ["", "1.16", "=1", ">=", ">=x", ">=1,", "~=1", "=>1", ">=1..2", ">=1.*", ">=99999999999"]
)
def test_what_is_no_comparison_is_refused(specifier: str) -> None:
    with pytest.raises(ValueError, match=r"is not a comparison|needs two numbers"):
        requires.parse(specifier)


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_texts_compare_or_are_refused(specifier: str, version: str) -> None:
    assert isinstance(requires.release(version), tuple)
    try:
        assert requires.allows(specifier, version) in (True, False)
    except ValueError:
        return


def test_versions_are_read_from_the_names_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside, other = tmp_path / "beside", tmp_path / "other"
    for name in (
        "rq-2.1.0.dist-info",
        "Some_Lib-1.0rc1.dist-info",
        "old.lib-0.5-py3.11.egg-info",
        "noversion.dist-info",
    ):
        (beside / name).mkdir(parents=True)
    (other / "rq-9.9.dist-info").mkdir(parents=True)
    (other / "far-3.dist-info").mkdir()
    monkeypatch.setattr(sys, "path", [str(other), str(tmp_path / "missing"), ""])
    assert requires.installed_version("rq", str(beside)) == "2.1.0"
    assert requires.installed_version("rq") == "9.9"
    assert requires.installed_version("some-lib", str(beside)) == "1.0rc1"
    assert requires.installed_version("old_lib", str(beside)) == "0.5"
    assert requires.installed_version("far", str(beside)) == "3"
    assert requires.installed_version("noversion", str(beside)) is None
    assert requires.unmet({"rq": ">=2", "far": "==3"}, str(beside)) is None
    assert requires.unmet({"rq": ">=3"}, str(beside)) == "rq >=3 is required; 2.1.0 is installed"
    assert requires.unmet({"nope": ">=3"}) == "nope >=3 is required; its version is not to be found"
    assert requires.unmet({"rq": "nonsense"}) == "requires rq: 'nonsense' is not a comparison such as '>=1.16'"


def test_it_agrees_with_the_interpreters_own_metadata() -> None:
    from importlib.metadata import version

    assert requires.installed_version("pytest") == version("pytest")
    assert requires.installed_version("PyYAML") == version("pyyaml")


def test_threads_that_ask_meanwhile_do_not_find_a_folder_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow-1.0.dist-info").mkdir()
    listing, go_on = threading.Event(), threading.Event()
    listdir = os.listdir

    def slow(path: str) -> list[str]:
        listing.set()
        assert go_on.wait(30)
        return listdir(path)

    monkeypatch.setattr(os, "listdir", slow)
    first = threading.Thread(target=requires.installed_version, args=("slow", str(tmp_path)))
    first.start()
    try:
        assert listing.wait(30)
        monkeypatch.setattr(os, "listdir", listdir)
        assert requires.installed_version("slow", str(tmp_path)) == "1.0"
    finally:
        go_on.set()
        first.join()


def test_a_lazy_module_is_not_loaded_by_the_question_where_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lazy(types.ModuleType):
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(name)

    monkeypatch.setitem(sys.modules, "lazy", Lazy("lazy"))
    assert requires.package_folder("lazy.part", None) is None


def test_doctor_names_a_library_in_a_version_that_no_rule_of_its_pack_is_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = tmp_path / "site" / "apache_airflow-2.11.2.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: apache-airflow\nVersion: 2.11.2\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("AUTOINST_HOME", str(tmp_path / "home"))
    cli.main(["doctor"])
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    packs = {words[1].partition(":")[0]: words[1] for words in lines if words and words[0] == "pack"}
    assert packs["airflow"] == "airflow: apache-airflow 2.11.2 left alone: the pack is for >=3.3,<3.4"
    assert packs["sqlite"] == "sqlite: on"
