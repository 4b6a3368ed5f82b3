"""Where autoinst keeps things and what the environment asks of it; cheap enough to be read in every worker.

Precedence everywhere: command-line flag, AUTOINST_* variable, rules file, default.
"""

from __future__ import annotations

import _thread
import os
import sys

from autoinst.errors import HomeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

DEFAULT_RULES_FILE = "autoinst.yaml"
SPOOL_NAME = "spool"
STORE_NAME = "store.sqlite3"
MAX_DIGITS = 15  # of a size
MAX_GROUP_DIGITS = 9
SHARED_FOLDER, SHARED_FILE = 0o2750, 0o640  # what AUTOINST_GROUP makes of 0700 and 0600
SHARED_BITS = 0o2050  # new files get the folder's group, which may list and enter it
SPOOL_MAX = 1024**3
# The interpreter's own lock, taken before gevent or eventlet put theirs in its place: native threads meet at it too.
new_lock = _thread.allocate_lock
OFF_WORDS = frozenset({"0", "false", "no", "off"})


class Config:
    """The AUTOINST_* variables of one process, read once.

    `home` is an absolute path (it may not exist yet); `rules` the user's rules files and folders, in order;
    `default_rules` the file that is looked for where AUTOINST_RULES names none;
    `packs` the text of AUTOINST_PACKS or None; the rest are the variables' texts or None.
    """

    __slots__ = (
        "agent",
        "default_rules",
        "enabled",
        "environment",
        "group",
        "home",
        "mechanism",
        "packs",
        "revision",
        "rules",
        "rules_given",
        "service",
        "spool_max",
    )

    def __init__(self, environ: Mapping[str, str], cwd: str) -> None:
        """Read `environ`; relative paths and the default rules file are looked up from `cwd`."""
        get = environ.get
        self.enabled = (get("AUTOINST_ENABLED") or "1").strip().lower() not in OFF_WORDS
        self.home = os.path.join(cwd, get("AUTOINST_HOME") or default_home(environ))
        given = get("AUTOINST_RULES")
        self.rules_given = bool(given)
        self.default_rules = None if given else os.path.join(cwd, DEFAULT_RULES_FILE)
        self.rules: tuple[str, ...] = ()
        if given:
            self.rules = tuple(os.path.join(cwd, name) for name in given.split(os.pathsep) if name)
        self.look_for_rules()
        self.packs = get("AUTOINST_PACKS")
        self.service = get("AUTOINST_SERVICE") or None
        self.environment = get("AUTOINST_ENVIRONMENT") or None
        self.revision = get("AUTOINST_REVISION") or None
        self.group = get("AUTOINST_GROUP") or None
        self.agent = (get("AUTOINST_AGENT") or "auto").strip().lower()
        self.mechanism = get("AUTOINST_MECHANISM") or None
        self.spool_max = get("AUTOINST_SPOOL_MAX") or None

    def look_for_rules(self) -> None:
        """Take the default rules file where none is named and it has come to be there."""
        name = self.default_rules
        if name is not None and not self.rules and os.path.isfile(name):
            self.rules = (name,)

    @property
    def spool(self) -> str:
        """The folder of the arena files."""
        return os.path.join(self.home, SPOOL_NAME)

    @property
    def spool_limit(self) -> int:
        """The bytes the arenas of all processes may take: AUTOINST_SPOOL_MAX if it is a size, else 1 GiB; 0: any."""
        size = parse_size(self.spool_max) if self.spool_max else None
        return SPOOL_MAX if size is None else size

    @property
    def cache(self) -> str:
        """The folder of compiled rules."""
        return os.path.join(self.home, "cache")

    @property
    def store(self) -> str:
        """The embedded store's database file."""
        return os.path.join(self.home, STORE_NAME)


def from_environ() -> Config:
    """Return the configuration of this process."""
    return Config(os.environ, working_directory())


def working_directory() -> str:
    """Return the working directory, an empty text where it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def default_home(environ: Mapping[str, str]) -> str:
    """Return the XDG state directory's `autoinst` folder (XDG Base Directory Specification 0.8)."""
    state = environ.get("XDG_STATE_HOME")
    if not state or not os.path.isabs(state):
        state = os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(state, "autoinst")


def boot_folder() -> str:
    """Return the folder that holds autoinst's sitecustomize: in the package, or in a checkout beside it."""
    package = os.path.dirname(os.path.abspath(__file__))
    shipped = os.path.join(package, "boot")
    return shipped if os.path.isdir(shipped) else os.path.join(os.path.dirname(package), "sitecustomize_example")


def parse_size(text: str) -> int | None:
    """Return a size in bytes, such as `1000`, `500M` or `2GiB` (K, M, G, T: powers of 1024); None if it is none."""
    text = text.strip().upper().removesuffix("B").removesuffix("I")
    power = "KMGT".find(text[-1:]) + 1 if text else 0
    number = text[:-1] if power else text
    return int(number) << (10 * power) if number.isascii() and number.isdigit() and len(number) <= MAX_DIGITS else None


def make_private(path: str) -> str:
    """Create folder `path` with mode 0700 where it is missing and return it.

    Raises HomeError when it cannot be made, is not a folder, or belongs to another user.
    """
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        found = os.stat(path)
    except OSError as error:
        raise HomeError(f"{path}: {error.strerror or error}; set AUTOINST_HOME to a folder you can write") from None
    if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
        raise HomeError(f"{path}: belongs to user {found.st_uid}; set AUTOINST_HOME to a folder of your own")
    return path


def make_home(path: str, group: str | None) -> str:
    """Create the home as `make_private` does, with mode 2750 for `group` (a name or a number) to read it.

    A group that does not exist, or that this user may not give it to, leaves it as it is: `doctor` says so.
    """
    make_private(path)
    number = group_id(group) if group else None
    if number is not None:
        share(path, number, SHARED_FOLDER)
    return path


def make_folder(path: str) -> str:
    """Create folder `path` in the home, or in a folder of it, for whom that one is; raises HomeError."""
    make_private(path)
    parent = os.stat(os.path.dirname(path))
    if is_shared(parent.st_mode):
        share(path, parent.st_gid, SHARED_FOLDER)
    return path


def share(path: str, group: int, mode: int) -> str | None:
    """Give `path` that group and mode; return why that cannot be."""
    try:
        found = os.stat(path)
        if found.st_gid != group:
            os.chown(path, -1, group)
        if found.st_gid != group or found.st_mode & 0o7777 != mode:
            os.chmod(path, mode)  # last: a change of the group takes the set-group-id bit away
    except OSError as error:
        return f"{path}: {error.strerror}"
    return None


def is_shared(mode: int) -> bool:
    """Return whether a folder's mode is that of a home which its group may read."""
    return mode & SHARED_BITS == SHARED_BITS


def share_file(fd: int, folder: str) -> None:
    """Let the group of `folder` read the file `fd` in it, whatever the umask, if it may read the folder."""
    if is_shared(os.stat(folder).st_mode) and os.fstat(fd).st_mode & 0o777 != SHARED_FILE:
        os.fchmod(fd, SHARED_FILE)


def group_id(name: str) -> int | None:
    """Return the number of a group, which /etc/group has, or of a number as text; None where there is none.

    Not by getgrnam(3), which may ask a server: this runs in workers.
    """
    if name.isascii() and name.isdigit() and len(name) <= MAX_GROUP_DIGITS:
        return int(name)
    try:
        with open("/etc/group", "rb") as file:
            for line in file:
                fields = line.split(b":")
                if fields[0] == os.fsencode(name) and len(fields) > 2:  # noqa: PLR2004 - name, password, number
                    return int(fields[2])
    except (OSError, ValueError):
        pass
    return None


_said = False


def say(line: str) -> None:
    """Write `line` to standard error, if it is the first this process says of itself."""
    global _said
    stderr = sys.stderr
    if _said or stderr is None:
        return
    _said = True
    try:
        stderr.write(f"autoinst: {line}\n")
    except (OSError, ValueError):  # closed: there is nobody to tell
        return


# What start-up read, for whoever needs it later in this process: the program may change os.environ meanwhile.
_remembered: tuple[Config, Any] | None = None


def remember(config: Config, rules: Any) -> None:
    """Keep the configuration and the rules this process started with."""
    global _remembered
    _remembered = (config, rules)


def remembered() -> tuple[Config, Any] | None:
    """Return what `remember` kept, None where autoinst was not started."""
    return _remembered


def signature(path: str) -> tuple[int, int, int, int] | None:
    """Return what changes when a file or folder does, None where there is nothing to read."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
