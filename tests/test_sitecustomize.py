"""The sitecustomize on PYTHONPATH: the program is what plain Python makes of it, its own sitecustomize included."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from autoinst.config import boot_folder
from tests.launching import ENDS, FORMS, PROBE, arguments, environment, launch

# Prints all that an interpreter tells about its start-up.
SHOW = """
import os, sys
site = sys.modules.get("sitecustomize")
print(sys.path)
print(site and (site.__file__, site.__name__, site.__spec__.origin, sorted(vars(site))))
print([name for name in sys.path_importer_cache if "sitecustomize_example" in name or name.endswith("boot")])
"""


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("form", FORMS)
def test_equals_plain_python(form: str, end: str, folder: Path, tmp_path: Path) -> None:
    env = environment(tmp_path / "home")
    command = [sys.executable, *arguments(form, folder), end, "second argument"]
    stdin = PROBE if form == "standard input" else "piped\n"
    plain = launch(command, folder, env, stdin)
    ours = launch(command, folder, env | {"PYTHONPATH": boot_folder()}, stdin)
    assert ours.seen() == plain.seen()
    assert ours.messages() == plain.messages()
    assert ours.status == plain.status


OWN = {
    "absent": None,
    "fine": "value = 1\nimport sys\nsys.from_own = list(sys.path)\n",
    "prints": "print('own', __name__, __file__)\n"
    "import sys; print(sys.modules['sitecustomize'].__dict__ is globals())\n",
    "raises": "def f():\n    1 / 0\nf()\n",
    "raises ImportError": "import no_such_module\n",
    "raises ImportError of its own name": "raise ImportError('x', name='sitecustomize')\n",
    "does not parse": "def (\n",
    "exits": "raise SystemExit(4)\n",
    "interrupted": "raise KeyboardInterrupt\n",
    "replaces itself": "import sys, types\nsys.modules[__name__] = types.ModuleType('other')\n"
    "sys.modules[__name__].__file__ = 'f'\nsys.modules[__name__].__spec__ = types.SimpleNamespace(origin='o')\n",
    "changes the path": "import sys; sys.path.append('/added'); sys.path.insert(0, '/first')\n",
    "chains": "import sys; here = sys.path.pop(0); del sys.modules['sitecustomize']; import sitecustomize\n",
}


@pytest.mark.parametrize("kind", OWN)
def test_the_program_s_own_sitecustomize(kind: str, folder: Path, tmp_path: Path) -> None:
    own = folder / "own"
    own.mkdir()
    text = OWN[kind]
    if text is not None:
        (own / "sitecustomize.py").write_text(text)
    env = environment(tmp_path / "home")
    command = [sys.executable, "-c", SHOW]
    plain = launch(command, folder, env | {"PYTHONPATH": str(own)})
    ours = launch(command, folder, env | {"PYTHONPATH": f"{boot_folder()}:{own}"})
    assert (ours.status, ours.stdout) == (plain.status, plain.stdout)
    if (
        "Fatal Python error" in plain.stderr
    ):  # the dump of a failed start shows the frames of every file it went through
        assert ours.messages().splitlines()[-1] == plain.messages().splitlines()[-1]
    else:
        assert ours.stderr == plain.stderr
    assert (ours.status, bool(ours.stderr)) == {
        "raises": (0, True),
        "raises ImportError": (0, True),
        "does not parse": (0, True),
        "exits": (1, True),
        "interrupted": (1, True),
    }.get(kind, (0, False))


def test_autoinst_is_started_before_the_own_sitecustomize(folder: Path, tmp_path: Path) -> None:
    (folder / "sitecustomize.py").write_text("import sys\nprint('autoinst.startup' in sys.modules)\n")
    env = environment(tmp_path / "home", PYTHONPATH=f"{boot_folder()}:{folder}")
    assert launch([sys.executable, "-c", ""], folder, env).stdout == "True\n"


def test_children_are_instrumented_though_the_directory_changed(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(boot_folder(), folder / "boot")
    code = (
        "import os, subprocess, sys\nos.chdir('/')\n"
        "subprocess.run([sys.executable, '-c', 'import sys; print(\"autoinst.startup\" in sys.modules, sys.path)'])\n"
    )
    plain = launch([sys.executable, "-c", code], folder, environment(tmp_path / "home"))
    ours = launch([sys.executable, "-c", code], folder, environment(tmp_path / "home", PYTHONPATH="boot"))
    assert ours.stdout == plain.stdout.replace("False", "True")
    assert "True" in ours.stdout
    assert ours.stderr == ""


def test_entries_that_name_the_folder_twice_or_with_a_slash(folder: Path, tmp_path: Path) -> None:
    boot = boot_folder()
    plain = launch([sys.executable, "-c", SHOW], folder, environment(tmp_path / "home", PYTHONPATH="/a:/b"))
    env = environment(tmp_path / "home", PYTHONPATH=f"{boot}/:/a:{boot}:/b")
    assert launch([sys.executable, "-c", SHOW], folder, env).stdout == plain.stdout


def test_disabled_installs_nothing(folder: Path, tmp_path: Path) -> None:
    env = environment(tmp_path / "home", PYTHONPATH=boot_folder(), AUTOINST_ENABLED="0")
    show = "import sys; print([type(f).__name__ for f in sys.meta_path], sys.path_hooks[0])"
    plain = launch([sys.executable, "-c", show], folder, environment(tmp_path / "home"))
    ours = launch([sys.executable, "-c", show], folder, env)
    assert (ours.stdout.split(" at ")[0], ours.stderr) == (plain.stdout.split(" at ")[0], "")


def without_autoinst() -> str:
    """Return the interpreter this virtual environment was made from."""
    assert sys.base_prefix != sys.prefix, "the tests run in a virtual environment"
    return os.path.join(sys.base_prefix, "bin", "python{}.{}".format(*sys.version_info[:2]))


def test_silent_where_autoinst_is_not_installed(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(boot_folder(), folder / "boot")
    command = [without_autoinst(), "-c", SHOW + "print('autoinst' in sys.modules)"]
    plain = launch(command, folder, environment(tmp_path / "home"))
    ours = launch(command, folder, environment(tmp_path / "home", PYTHONPATH=str(folder / "boot")))
    assert (ours.stdout, ours.stderr, ours.status) == (plain.stdout, plain.stderr, 0)


def test_a_checkout_is_used_without_being_installed(folder: Path, tmp_path: Path) -> None:
    boot = Path(boot_folder())
    if not (boot.parent / "autoinst" / "startup.py").is_file():
        pytest.skip("the package under test is not a checkout")
    env = environment(tmp_path / "home", AUTOINST_PACKS="none")
    show = SHOW + "print('autoinst.startup' in sys.modules, [n for n in sys.path_importer_cache if n == %r])"
    command = [without_autoinst(), "-c", show % str(boot.parent)]
    plain = launch(command, folder, env)
    ours = launch(command, folder, env | {"PYTHONPATH": str(boot)})
    assert ours.stdout == plain.stdout.replace("False []", "True []")
    assert "True []" in ours.stdout
    assert ours.stderr == ""


def test_a_broken_installation_is_one_line(folder: Path, tmp_path: Path) -> None:
    (folder / "broken" / "autoinst").mkdir(parents=True)
    (folder / "broken" / "autoinst" / "__init__.py").write_text("")
    (folder / "broken" / "autoinst" / "startup.py").write_text("import gone\n")
    env = environment(tmp_path / "home", PYTHONPATH=f"{boot_folder()}:{folder}/broken")
    outcome = launch([sys.executable, "-c", "print('ran')"], folder, env)
    assert outcome.stdout == "ran\n"
    assert outcome.stderr == "autoinst: not active: ModuleNotFoundError: No module named 'gone'\n"


OLD_PYTHONS = sorted(
    str(path)
    for version in ("2.7", "3.6", "3.7", "3.8", "3.9")
    for path in Path.home().glob(f".pyenv/versions/{version}.*/bin/python")
)


@pytest.mark.once
@pytest.mark.skipif(not OLD_PYTHONS, reason="no Python older than 3.10 on this machine")
def test_silent_on_older_pythons(folder: Path, tmp_path: Path) -> None:
    (folder / "own").mkdir()
    (folder / "own" / "sitecustomize.py").write_text("import sys\nsys.stdout.write('own\\n')\n")
    show = "import sys; sys.stdout.write('%r %r\\n' % (sys.path, sorted(n for n in sys.modules if 'autoinst' in n)))"
    env = environment(tmp_path / "home", PYTHONDONTWRITEBYTECODE="1")
    for python in OLD_PYTHONS:
        for own in ([], [f"{folder}/own"]):
            path = {"PYTHONPATH": own[0]} if own else {}
            plain = launch([python, "-c", show], folder, env | path)
            ours = launch([python, "-c", show], folder, env | {"PYTHONPATH": ":".join([boot_folder(), *own])})
            assert (ours.stdout, ours.stderr, ours.status) == (plain.stdout, plain.stderr, 0), python
            assert ("own\n" in ours.stdout) == bool(own)
