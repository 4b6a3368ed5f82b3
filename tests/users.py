"""Commands run as another user, for whom the folders in which Python and autoinst lie are opened where need be."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import autoinst

# In a mount namespace of its own: what is needed is kept at hand while an open folder is put over the closed one.
OPENED = """
umask 022
hold=$1; user=$2; groups=$3; count=$4; shift 4
number=0
while [ $number -lt $count ]; do
  closed=$1; needed=$2; shift 2; number=$((number + 1))
  mount --bind "$needed" "$hold" || exit 99
  mount -t tmpfs -o mode=755 tmpfs "$closed" || exit 99
  mkdir -p "$needed" && mount --move "$hold" "$needed" || exit 99
done
umask 077
exec setpriv --reuid="$user" --regid="$user" $groups -- "$@"
"""


def closed_folder(path: Path) -> Path | None:
    """Return the outermost folder above `path` that other users may not enter."""
    for folder in reversed(path.resolve().parents):
        if not folder.stat().st_mode & 1:
            return folder
    return None


def as_user(user: int, groups: list[int], hold: Path) -> list[str]:
    """Return what stands before a command to run it as `user` in `groups`; `hold` is an empty folder.

    Raises RuntimeError where this machine cannot do that.
    """
    for program in ("unshare", "setpriv", "mount"):
        if shutil.which(program) is None:
            raise RuntimeError(f"{program}(1) is missing")
    wanted: dict[Path, Path] = {}
    for needed in (Path(sys.base_prefix), Path(sys.prefix), Path(autoinst.__file__).parent.parent):
        closed = closed_folder(needed)
        if closed is not None and wanted.setdefault(closed, needed) != needed:
            common = Path(os.path.commonpath([wanted[closed], needed]))
            if common == closed:
                raise RuntimeError(f"{needed} and {wanted[closed]} lie in {closed}, which other users may not enter")
            wanted[closed] = common
    option = f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"
    pairs = [str(path) for pair in wanted.items() for path in pair]
    namespace = ["unshare", "--mount", "--propagation", "private"]
    return [*namespace, "sh", "-c", OPENED, "sh", str(hold), str(user), option, str(len(wanted)), *pairs]
