"""Builds a free-threaded CPython, which Debian has no package of, from Debian's source package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

from pythons import BUILT, KEYRING, debian_mirror

if TYPE_CHECKING:
    from pathlib import Path

SUITES = ("sid", "testing", "stable")  # a mirror may name a source that it does not have
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
    archive = next(
        (found for suite in SUITES if (found := download(version.removesuffix("t"), mirror, suite, work / suite))), None
    )
    if archive is None:
        print(f"Python {version}: no suite of {', '.join(SUITES)} has its source", file=sys.stderr)
        return 1
    print(f"Building Python {version} of {archive.name} into {BUILT.name}/", file=sys.stderr)
    with tarfile.open(archive) as source:
        source.extractall(work)  # noqa: S202 - Debian's archive, whose checksum apt has compared
    (folder,) = work.glob("Python-*")
    with (work / "log").open("wb") as log:
        for command in (
            ["./configure", "--disable-gil", f"--prefix={BUILT / version}", "--without-doc-strings"],
            ["make", f"-j{os.cpu_count() or 1}"],
            ["make", "altinstall"],
        ):
            done = subprocess.run(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, check=False)
            if done.returncode:
                print(f"Python {version}: {' '.join(command)} failed, see {work / 'log'}", file=sys.stderr)
                return 1
    shutil.rmtree(work)
    return 0


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
