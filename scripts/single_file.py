"""Make dist/autoinst.pyz: autoinst and what it needs as one file that runs where nothing can be installed.

single_file.py [FILE]

The libraries' compiled parts are left out, so that one file serves every Python from 3.10 on. The web page's are not in
it: `autoinst ui` needs an installation.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATE = (1980, 1, 1, 0, 0, 0)  # of all its files: the same content makes the same file
COMPILED = (".so", ".pyd", ".pyc")
OWN = ("autoinst", "rules", "sitecustomize_example")


def main(argv: list[str]) -> int:
    """Write the file and print its path."""
    target = Path(argv[0]) if argv else ROOT / "dist" / "autoinst.pyz"
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder, "site")
        install(site)
        files = {f"site/{path.relative_to(site).as_posix()}": path.read_bytes() for path in wanted(site)}
    digest = hashlib.sha256(b"".join(name.encode() + content for name, content in sorted(files.items()))).hexdigest()
    start = (ROOT / "scripts" / "pyz" / "__main__.py").read_text(encoding="utf-8")
    files["__main__.py"] = start.replace("@DIGEST@", digest[:16]).encode()
    target.parent.mkdir(exist_ok=True)
    with open(target, "wb") as out:
        out.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in sorted(files.items()):
                archive.writestr(zipfile.ZipInfo(name, DATE), content, zipfile.ZIP_DEFLATED)
    target.chmod(0o755)
    print(target)
    return 0


def install(site: Path) -> None:
    """Put autoinst's folders as a checkout has them, and its dependencies, into `site`."""
    needed = [entry for entry in importlib.metadata.requires("autoinst") or () if "extra ==" not in entry]
    command = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--target", str(site)]
    subprocess.run([*command, *needed], check=True)
    for name in OWN:
        shutil.copytree(ROOT / name, site / name, ignore=shutil.ignore_patterns("__pycache__"))


def wanted(site: Path) -> list[Path]:
    """Return the files that belong into it."""
    found = (path for path in site.rglob("*") if path.is_file() and path.suffix not in COMPILED)
    return [path for path in found if "bin" not in path.relative_to(site).parts[:1]]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
