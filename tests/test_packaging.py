"""What a wheel and an sdist contain, and that an installed wheel finds its packs and its boot folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


def sources(folder: str, pattern: str) -> set[str]:
    files = (path for path in (ROOT / folder).rglob(pattern) if path.is_file() and path.parent.name != "__pycache__")
    return {path.relative_to(ROOT / folder).as_posix() for path in files}


def test_wheel(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    assert wheel.name == "autoinst-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata_name,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(metadata_name).decode().splitlines()
        entry_points = archive.read(metadata_name.replace("METADATA", "entry_points.txt")).decode()
        boot = archive.read("autoinst/boot/sitecustomize.py")
    package = {f"autoinst/{name}" for name in sources("autoinst", "*")} | {"autoinst/boot/sitecustomize.py"}
    assert {"autoinst/py.typed", "autoinst/demo/rules.yaml"} <= package
    package |= {f"autoinst/packs/{name}" for name in sources("rules", "*.yaml")}
    assert "autoinst/packs/rq.yaml" in package
    package.add("autoinst-0.1.0.data/data/share/man/man1/autoinst.1")
    assert {name for name in names if ".dist-info/" not in name} == package
    assert boot == (ROOT / "sitecustomize_example" / "sitecustomize.py").read_bytes()
    assert "autoinst = autoinst.cli.main:main" in entry_points
    assert "Requires-Python: >=3.10" in metadata
    assert sorted(line for line in metadata if line.startswith("Requires-Dist:")) == [
        "Requires-Dist: importlib-metadata>=4.6",
        "Requires-Dist: jinja2>=3.1; extra == 'ui'",
        "Requires-Dist: pyyaml>=5.4",
        "Requires-Dist: starlette>=0.40; extra == 'ui'",
        "Requires-Dist: urllib3>=1.26",
        "Requires-Dist: uvicorn>=0.30; extra == 'ui'",
        "Requires-Dist: wrapt>=1.14",
    ]


def test_sdist_has_all_a_wheel_is_built_from(built: Path, tmp_path: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        archive.extractall(tmp_path, filter="data") if sys.version_info >= (3, 12) else archive.extractall(tmp_path)
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "rules/rq.yaml"} <= names
    assert {"autoinst/cli/run.py", "sitecustomize_example/sitecustomize.py", "tests/test_packaging.py"} <= names
    assert {name for name in names if name.startswith(".")} <= {".gitignore"}
    assert not [name for name in names if "__pycache__" in name]
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "again")]
    subprocess.run(command, cwd=tmp_path / "autoinst-0.1.0", check=True, capture_output=True)
    (first,), (second,) = built.glob("*.whl"), (tmp_path / "again").glob("*.whl")
    with zipfile.ZipFile(first) as one, zipfile.ZipFile(second) as other:
        assert sorted(one.namelist()) == sorted(other.namelist())


def test_an_installed_wheel_finds_its_packs_and_boot_folder(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "from autoinst.rules.packs import builtin_packs\nfrom autoinst.cli.run import boot_folder\n"
        "print(boot_folder())\nprint(builtin_packs()['rq'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == [str(tmp_path / "autoinst/boot"), str(tmp_path / "autoinst/packs/rq.yaml")]


def test_the_lock_names_versions_and_hashes_but_no_address() -> None:
    for lock in (ROOT / "requirements").glob("*.txt"):
        text = lock.read_text()
        assert "://" not in text
        assert "/" not in text.replace("sha256:", "")
        entries = [entry for entry in text.replace("\\\n", " ").splitlines() if entry.strip()]
        assert entries
        for entry in entries:
            assert "==" in entry
            assert "--hash=sha256:" in entry


@pytest.mark.service
def test_one_file_serves_a_python_with_nothing_installed(tmp_path: Path) -> None:
    file = tmp_path / "autoinst.pyz"
    subprocess.run([sys.executable, ROOT / "scripts" / "single_file.py", file], check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    (tmp_path / "worker.py").write_text(
        "import sqlite3\n\ndef job():\n    sqlite3.connect(':memory:').cursor().execute('SELECT 1')\n\n"
        "job()\nprint('done')\n"
    )
    (tmp_path / "rules.yaml").write_text(
        "version: 1\npacks: [none]\njobs:\n  - function: __main__.job\n"
        "events:\n  - {class: sqlite3.Cursor, methods: [execute], name: query.sqlite}\n"
    )
    python = str(tmp_path / "bare" / "bin" / "python")
    environ = {
        "PATH": os.environ["PATH"],
        "AUTOINST_HOME": str(tmp_path / "home"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "AUTOINST_AGENT": "off",
        "HOME": str(tmp_path),
    }

    def autoinst(*words: str) -> str:
        done = subprocess.run(
            [python, file, *words], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert autoinst("run", "--rules", "rules.yaml", "worker.py") == "done\n"
    (record,) = (json.loads(line) for line in autoinst("jobs", "--json").splitlines())
    assert record["action"] == "__main__#job"
    assert [event["name"] for event in record["events"]] == ["query.sqlite"]
    autoinst("agent", "--once")
    (unpacked,) = (tmp_path / "cache" / "autoinst").iterdir()
    assert oct(unpacked.parent.stat().st_mode & 0o777) == "0o700"
    assert not list(unpacked.rglob("*.so"))


@pytest.mark.service
def test_the_bill_of_materials_names_what_an_installation_has(built: Path) -> None:
    script = ROOT / "scripts" / "bill_of_materials.py"
    subprocess.run([sys.executable, script, built], check=True, capture_output=True)
    bill = json.loads((built / "autoinst.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "autoinst"
    names = {component["name"].lower().replace("_", "-") for component in bill["components"]}
    assert {"importlib-metadata", "pyyaml", "urllib3", "wrapt"} <= names
    assert not names & {"cyclonedx-bom", "pip", "pytest"}
