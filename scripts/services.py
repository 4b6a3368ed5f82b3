"""Make sure that the programs which the tests start are installed, from Debian's packages.

As root on a machine with apt-get, what is missing is installed; otherwise the message names the package.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys

# Program -> Debian package that has it; the last two are for mysqlclient, which is built.
SERVERS = {
    "clickhouse-server": "clickhouse-server",
    "postgres": "postgresql",
    "prometheus": "prometheus",
    "rabbitmq-server": "rabbitmq-server",
    "redis-server": "redis-server",
    "mariadbd": "mariadb-server-core",
    "mariadb_config": "libmariadb-dev",
    "pkg-config": "pkg-config",
}
OTHERS = {"chromium": "chromium", "faketime": "faketime", "fish": "fish", "man": "man-db", "zsh": "zsh"}
FOLDERS = "/usr/lib/postgresql/*/bin"  # where Debian has what is not on PATH


def find(program: str) -> str | None:
    """Return the path of a server's program, of its newest version where there are several."""
    return shutil.which(program) or max(glob.glob(f"{FOLDERS}/{program}"), default=None)


def main() -> int:
    """Return 0 when every server's program is there, 1 after a message when one is not."""
    missing = [package for program, package in {**SERVERS, **OTHERS}.items() if find(program) is None]
    if not missing:
        return 0
    names = " ".join(missing)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(f"The tests need {names}; install it first (Debian, as root: apt-get install {names})", file=sys.stderr)
        return 1
    print(f"Installing {names} from Debian's packages", file=sys.stderr)
    # A package's own service would listen on the standard port; the tests start theirs, so none is started here.
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
        done = subprocess.run(["apt-get", "-qq", *command], env=environment, stdout=sys.stderr, check=False)
        if done.returncode:
            print(f"apt-get {command[0]} ended with status {done.returncode}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
