"""Compiled rules kept on disk, so that a worker reads no YAML: one marshal file for each set of rules files.

A cache file is good while every file and folder that the rules came from has the same inode, size and times. It lies in
AUTOINST_HOME, or else in a folder of the user's own below the temporary folder. Marshal trusts what it reads, so a file
that somebody else owns or may write is never read, and a checksum finds damage.
"""

from __future__ import annotations

import marshal
import os
import stat
import sys
import time
from _imp import source_hash  # the checksum of hash-based .pyc files: in the interpreter, zlib costs 0.25 ms to load

from autoinst.config import signature
from autoinst.rules.model import FORMAT, RuleSet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from autoinst.config import Config

MAGIC = b"autoinst rules 1\n"
HEAD = len(MAGIC) + 8
MAX_SIZE = 64 << 20
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
# A file changed so lately may change again within the same tick of its clock: such rules are not kept.
SETTLED_NS = 50_000_000
# What makes rules of files; with another version of these the cache is no longer good.
READERS = (
    "load.py",
    "parse.py",
    "parsed.py",
    "keys.py",
    "exporters.py",
    "check_ins.py",
    "crontab.py",
    "figures.py",
    "values.py",
    "translate.py",
    "document.py",
    "match.py",
    "model.py",
    "operations.py",
    "packs.py",
    "problems.py",
    "requires.py",
    "safe.py",
)


def load_cached(config: Config) -> RuleSet:
    """Return the rules in force for `config`: its rules files and packs. Never raises.

    What is wrong in the files is in the result's `problems`; if reading them fails altogether, there are no rules.
    """
    try:
        return load(config)
    except Exception as error:
        problem = f"rules: not read: {type(error).__name__}: {error}"
        return RuleSet.build("", {"redact": (), "env": (), "ignore": (), "packs": ()}, [problem], ())


def load(config: Config) -> RuleSet:
    """Do so, but let pass whatever exception comes up while files are read."""
    key = _key(config)
    name = f"rules-{checksum(key).hex()}"
    folders = folders_of(config)
    for folder in folders:
        found = _read(os.path.join(folder, name), key)
        if found is not None:
            return found
    return _load(config, key, name, folders)


def _key(config: Config) -> bytes:
    # the prefix: third-party packs belong to an environment
    parts = (FORMAT, sys.version, sys.prefix, os.path.abspath(__file__), config.packs, tuple(config.rules))
    return repr(parts).encode("utf-8", "surrogateescape")


def checksum(data: bytes) -> bytes:
    """Return 8 bytes that tell whether `data` is what was written."""
    return source_hash(FORMAT, data)


def folders_of(config: Config) -> list[str]:
    """Return the folders in which compiled things are kept, the first that can be written before the others."""
    temporary = os.environ.get("TMPDIR") or "/tmp"  # noqa: S108 - a folder below it, checked to be the user's own
    return [config.cache, os.path.join(temporary, f"autoinst-{_user()}", "cache")]


def _read(path: str, key: bytes) -> RuleSet | None:
    try:
        data = read_own(path)
        body = data[HEAD:]
        if data[:HEAD] != MAGIC + checksum(body):
            return None
        known, others, own, unread, content = marshal.loads(body)
        if known != key or any(signature(name) != kept for name, kept in (*others, *own)):
            return None
        rules = RuleSet.from_data(content)
        rules.watched, rules.unread = own, unread
    except Exception:
        return None
    return rules


def read_own(path: str) -> bytes:
    """Return the bytes of a regular file of this user that nobody else can write, empty for another."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_mode & OTHERS_WRITE or found.st_size > MAX_SIZE:
            return b""
        if found.st_uid != _user():
            return b""
        return os.read(descriptor, found.st_size)
    finally:
        os.close(descriptor)


def _load(config: Config, key: bytes, name: str, folders: list[str]) -> RuleSet:
    from autoinst.rules.load import load_files

    before = time.time_ns()
    here = os.path.dirname(os.path.abspath(__file__))
    others = [(path, signature(path)) for path in (os.path.join(here, name) for name in READERS)]
    rules, loader = load_files(config.rules, config.packs)
    own = rules.watched
    others += [entry for entry in loader.touched.items() if entry not in own]
    if all(kept is None or max(kept[:2]) < before - SETTLED_NS for _, kept in (*others, *own)):
        body = marshal.dumps((key, others, own, rules.unread, rules.to_data()), 2)
        write_own(folders, name, MAGIC + checksum(body) + body)
    return rules


def write_own(folders: list[str], name: str, data: bytes) -> None:
    """Keep `data` in the first folder that can be written, replacing what is there in one step."""
    for folder in folders:
        try:
            make_own(folder)
            temporary = os.path.join(folder, f"{name}.{os.getpid()}.{time.monotonic_ns():x}")
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
            descriptor = os.open(temporary, flags, 0o600)
        except OSError:
            continue
        try:
            try:
                written = os.write(descriptor, data)
            finally:
                os.close(descriptor)
            if written == len(data):
                os.replace(temporary, os.path.join(folder, name))
                return
        except OSError:
            pass  # a full disk, say: the next folder may do
        try:
            os.unlink(temporary)
        except OSError:
            pass


def can_keep(folders: list[str]) -> bool:
    """Return whether one of `folders` can be written."""
    for folder in folders:
        try:
            make_own(folder)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return True
    return False


def make_own(folder: str) -> None:
    """Make `folder` and the one above it, 0700; raises OSError where one of them is not the user's own."""
    for path in (os.path.dirname(folder), folder):
        os.makedirs(path, mode=0o700, exist_ok=True)
        # not followed: below a temporary folder a link may be anybody's
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode) and path != folder:
            found = os.stat(path) if found.st_uid == _user() else found
        if not stat.S_ISDIR(found.st_mode) or found.st_mode & OTHERS_WRITE or found.st_uid != _user():
            raise PermissionError(path)


def _user() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else 0
