"""What `python autoinst.pyz` runs: unpacks the file once into the user's cache, and goes on there.

A program under `autoinst run` is another process, for which nothing is importable from within an archive; so the files
have to lie in a folder. Its name has the content's hash, so that versions do not meet.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import zipfile

NAME = "autoinst-@DIGEST@"


def main() -> int:
    """Run the command line."""
    sys.path[0] = unpacked(os.path.dirname(os.path.abspath(__file__)))
    sys.argv[0] = "autoinst"
    from autoinst.cli.main import main as run

    return run()


def unpacked(archive: str) -> str:
    """Return the folder with the archive's files, made if it is not there yet."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    parent = os.path.join(cache, "autoinst")
    folder = os.path.join(parent, NAME)
    if not is_own(folder):
        os.makedirs(parent, mode=0o700, exist_ok=True)
        made = tempfile.mkdtemp(dir=parent)
        try:
            with zipfile.ZipFile(archive) as files:
                files.extractall(made, [name for name in files.namelist() if name.startswith("site/")])
            os.rename(os.path.join(made, "site"), folder)
        except OSError:
            if not is_own(folder):  # another process was not faster
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return folder


def is_own(folder: str) -> bool:
    """Tell whether `folder` is there; raises PermissionError where it is somebody else's."""
    try:
        found = os.lstat(folder)
    except FileNotFoundError:
        return False
    if found.st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to another user")
    return True


if __name__ == "__main__":
    sys.exit(main())
