"""Builds a free-threaded CPython, which Debian has no package of, from Debian's source package."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import urllib.request
from typing import TYPE_CHECKING

from pythons import BUILT, KEYRING, debian_mirror

if TYPE_CHECKING:
    from pathlib import Path

# What Debian's mirrors keep longer than a suite names it: release and SHA-256 of the upstream archive. Without it the
# suites are asked, which may name a source that the mirror does not have.
POOL = {"3.14": ("3.14.7", "3b48dac8fb59f62eaa67ac83c1eb12bda1b7a08406dd286e252c11a66be27f81")}
SUITES = ("sid", "testing", "stable")
LESS = ("--without-doc-strings", "--disable-test-modules", "--without-ensurepip")  # nobody needs them, all take time
TOOLS = ("apt-get", "gcc", "make", "tar")


def build(version: str) -> int:
    """Build CPython `3.14t` into .pythons.built/, which takes minutes; return 0, or 1 after a message."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    mirror = debian_mirror()
    if missing or mirror is None:
        reason = f"without {', '.join(missing)}" if missing else "without a Debian mirror that apt names"
        print(f"Python {version}: not found, and {reason} not to be built", file=sys.stderr)
        return 1
    work = BUILT / f".{version}"
    number = version.removesuffix("t")
    archive = from_pool(number, mirror, work) or next(
        (found for suite in SUITES if (found := download(number, mirror, suite, work / suite))), None
    )
    if archive is None:
        print(f"Python {version}: neither the pool nor suites {', '.join(SUITES)} have its source", file=sys.stderr)
        return 1
    print(f"Building Python {version} of {archive.name} into {BUILT.name}/", file=sys.stderr)
    with tarfile.open(archive) as source:
        source.extractall(work)  # noqa: S202 - Debian's archive, whose checksum apt has compared
    (folder,) = work.glob("Python-*")
    with (work / "log").open("wb") as log:
        for command in (
            ["./configure", "--disable-gil", f"--prefix={BUILT / version}", *LESS],
            ["make", f"-j{os.cpu_count() or 1}"],
            ["make", "altinstall"],
        ):
            done = subprocess.run(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, check=False)
            if done.returncode:
                print(f"Python {version}: {' '.join(command)} failed, see {work / 'log'}", file=sys.stderr)
                return 1
    shutil.rmtree(work)
    return 0


def from_pool(version: str, mirror: str, folder: Path) -> Path | None:
    """Download the archive of POOL, if there is one for that version and the mirror has it as it was."""
    release, checksum = POOL.get(version, ("", ""))
    name = f"python{version}_{release}.orig.tar.xz"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with urllib.request.urlopen(f"{mirror.rstrip('/')}/pool/main/p/python{version}/{name}", timeout=60) as answer:  # noqa: S310 - apt's own address
            content = answer.read()
    except OSError:
        return None
    if hashlib.sha256(content).hexdigest() != checksum:
        return None
    (folder / name).write_bytes(content)
    return folder / name


def download(version: str, mirror: str, suite: str, state: Path) -> Path | None:
    """Download the upstream source of that version's package in `suite`, with an apt state of its own."""
    for name in ("etc/preferences.d", "lists/partial", "cache/archives/partial"):
        (state / name).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    (state / "etc" / "sources.list").write_text(f"deb-src [signed-by={KEYRING}] {mirror} {suite} main\n")
    apt = ["apt-get", "-qq", f"-oDir::State={state}", f"-oDir::State::status={state}/status"]
    apt += [f"-oDir::State::lists={state}/lists", f"-oDir::Cache={state}/cache", f"-oDir::Etc={state}/etc"]
    apt += [
        f"-oDir::Etc::sourcelist={state}/etc/sources.list",
        "-oDir::Etc::sourceparts=-",
        "-oAPT::Sandbox::User=root",
    ]
    for command in ([*apt, "update"], [*apt, "source", "--download-only", "--tar-only", f"python{version}"]):
        if subprocess.run(command, cwd=state, capture_output=True, check=False).returncode:
            return None
    return next(state.glob("*.orig.tar.*"), None)
