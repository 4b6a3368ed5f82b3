"""Find the CPythons of this machine, and fetch newer ones from Debian's packages.

pythons.py                      list what is found: version and path
pythons.py fetch 3.14 3.15      unpack these from Debian's suite sid into .pythons/ (no change to the system)
pythons.py fetch 3.14t          build a free-threaded one from Debian's source into .pythons.built/ (some minutes)
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FETCHED = ROOT / ".pythons"
BUILT = ROOT / ".pythons.built"  # a fetch of packages empties the other folder
FREE_THREADED = ("3.15t", "3.14t", "3.13t")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# python3.14 runs with the C library it was built for, so that comes along; venv has ensurepip.
COMPANIONS = ("base-files", "libstdc++6", "tzdata")


def find(version: str) -> str | None:
    """Return the path of a CPython of that version (`3.x`, `3.xt`) that can make virtual environments, or None."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    release = f"{version[:-1]}.*t" if version.endswith("t") else f"{version}.*"
    candidates = [str(path) for path in sorted(pyenv.glob(f"{release}/bin/python{version}"), reverse=True)]
    candidates += [shutil.which(f"python{version}") or "", str(FETCHED / "usr" / "bin" / f"python{version}")]
    candidates += [str(BUILT / version / "bin" / f"python{version}")]
    return next((path for path in candidates if path and works(path)), None)


def works(path: str) -> bool:
    """Whether the interpreter at `path` starts and has what a virtual environment needs."""
    command = [path, "-c", "import ssl, sqlite3, ctypes, venv"]
    return os.path.exists(path) and subprocess.run(command, capture_output=True, check=False).returncode == 0


def fetch(versions: list[str]) -> int:
    """Unpack Debian's packages of these `versions`, or build them; return 0, or 1 after a message."""
    wanted = [version for version in versions if find(version) is None]
    for version in [version for version in wanted if version.endswith("t")]:
        from source_build import build

        wanted.remove(version)
        if build(version):
            return 1
    if not wanted:
        return 0
    for tool in ("apt-get", "dpkg-deb", "tar"):
        if shutil.which(tool) is None:
            print(f"Python {', '.join(wanted)}: not found, and without {tool} not to be fetched", file=sys.stderr)
            return 1
    mirror = debian_mirror()
    if mirror is None:
        print(
            f"Python {', '.join(wanted)}: not found, and apt names no Debian mirror to fetch it from", file=sys.stderr
        )
        return 1
    print(f"Fetching Python {', '.join(wanted)} from Debian's suite sid into {FETCHED.name}/", file=sys.stderr)
    # All of them anew: what an earlier fetch unpacked and changed would only be half overwritten.
    fetched = [path.name.removeprefix("python") for path in (FETCHED / "usr" / "bin").glob("python3.[0-9][0-9]")]
    shutil.rmtree(FETCHED, ignore_errors=True)
    wanted = sorted({*wanted, *fetched})
    for archive in download(mirror, wanted):
        unpack(archive)
    patchelf = install_patchelf()
    for version in wanted:
        link_to_own_library(patchelf, version)
        use_own_wheels(version)
        if find(version) is None:
            print(f"Python {version}: fetched, but it does not run", file=sys.stderr)
            return 1
    return 0


def debian_mirror() -> str | None:
    """Return the address of the Debian mirror this machine's apt uses, or None."""
    for path in [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]:
        if path.is_file():
            found = re.search(r"https?://[^\s\]]+/debian/?(?=\s|$)", path.read_text(errors="replace"))
            if found:
                return found.group()
    return None


def download(mirror: str, versions: list[str]) -> list[Path]:
    """Download the packages with an apt state of their own and return the archives, base-files first."""
    state = FETCHED / ".apt"
    for name in ("etc/preferences.d", "lists/partial", "cache/archives/partial"):
        (state / name).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    (state / "etc" / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror} sid main\n")
    (state / "apt.conf").write_text(
        f"""Dir::State "{state}";
Dir::State::lists "{state}/lists";
Dir::State::status "{state}/status";
Dir::Cache "{state}/cache";
Dir::Etc "{state}/etc";
Dir::Etc::sourcelist "{state}/etc/sources.list";
Dir::Etc::sourceparts "-";
APT::Sandbox::User "root";
"""
    )
    packages = [*COMPANIONS, *(f"python{version}{part}" for version in versions for part in ("", "-venv"))]
    apt = ["apt-get", "-qq", "-c", str(state / "apt.conf")]
    subprocess.run([*apt, "update"], check=True)
    install = [*apt, "install", "-y", "--no-install-recommends", "--download-only", *packages]
    subprocess.run(install, stdout=subprocess.DEVNULL, check=True)
    return sorted((state / "cache" / "archives").glob("*.deb"), key=lambda path: not path.name.startswith("base-files"))


def unpack(archive: Path) -> None:
    """Unpack one .deb into .pythons/, keeping the symbolic links of a merged /usr."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE) as reader:
        subprocess.run(["tar", "-x", "-C", str(FETCHED), "--keep-directory-symlink"], stdin=reader.stdout, check=True)
    if reader.returncode:
        raise subprocess.CalledProcessError(reader.returncode, "dpkg-deb")


def install_patchelf() -> str:
    """Install patchelf in a virtual environment of its own and return the program's path."""
    folder = FETCHED / ".patchelf"
    venv.create(folder, with_pip=True)
    subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "-qq", "patchelf"], check=True)
    return str(folder / "bin" / "patchelf")


def link_to_own_library(patchelf: str, version: str) -> None:
    """Make the fetched interpreter use the C library fetched with it."""
    usr = FETCHED / "usr"
    loader = next(usr.glob("lib*/ld-linux*.so.*"), None) or next(usr.glob("lib/*/ld-linux*.so.*"))
    libraries = next(path.parent for path in usr.glob("lib/*/libc.so.6"))
    options = ["--set-interpreter", str(loader), "--force-rpath", "--set-rpath", str(libraries)]
    subprocess.run([patchelf, *options, str(usr / "bin" / f"python{version}")], check=True)


def use_own_wheels(version: str) -> None:
    """Make the fetched ensurepip install the pip fetched with it, not the system's older one."""
    wheels = "usr/share/python-wheels/"
    for path in (FETCHED / "usr" / "lib" / f"python{version}").glob("_sysconfig*"):
        if path.is_file() and not path.is_symlink():
            path.write_text(path.read_text().replace(f"/{wheels}", str(FETCHED / wheels) + "/"))


def main() -> int:
    """Run the command line described at the top."""
    if sys.argv[1:2] == ["fetch"]:
        return fetch(sys.argv[2:])
    for version in (*(f"3.{minor}" for minor in range(10, 16)), *reversed(FREE_THREADED)):
        path = find(version)
        if path:
            print(f"{version}\t{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
