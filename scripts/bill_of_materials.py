"""Write DIST/autoinst.cdx.json: what an installation of the wheel in DIST consists of, in CycloneDX form.

bill_of_materials.py DIST

The wheel is installed in an environment of its own, whose content is then listed by cyclonedx-py.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import environments

ROOT = Path(__file__).resolve().parent.parent


def main(argv: list[str]) -> int:
    """Write the file and print its path."""
    folder = Path(argv[0])
    (wheel,) = folder.glob("*.whl")
    target = folder / "autoinst.cdx.json"
    lister = environments.library("release").with_name("cyclonedx-py")
    with tempfile.TemporaryDirectory() as made:
        venv.create(made, with_pip=True)
        python = os.path.join(made, "bin", "python")
        subprocess.run([python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", wheel], check=True)
        subprocess.run([python, "-m", "pip", "uninstall", "-qq", "-y", "pip", "setuptools"], check=True)
        command = [str(lister), "environment", python, "--pyproject", str(ROOT / "pyproject.toml")]
        subprocess.run([*command, "--output-reproducible", "-o", str(target)], check=True)
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
