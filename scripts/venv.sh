#!/bin/sh
# Make a virtual environment and install a lock in it.
#   venv.sh FOLDER LOCK [--editable]
# PYTHON names the interpreter; without it the first Python 3.10+ found is taken. --editable adds autoinst itself.
set -eu

folder=$1
lock=$2
editable=${3:-}

say() { printf '%s\n' "autoinst: $*" >&2; }

recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; }

find_python() {
    for name in python3 python python3.13 python3.12 python3.11 python3.10 python3.14 python3.15; do
        path=$(command -v "$name" 2>/dev/null) || continue
        recent "$path" && { printf '%s' "$path"; return; }
    done
    for path in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[0-9].*/bin/python; do
        [ -x "$path" ] && recent "$path" && { printf '%s' "$path"; return; }
    done
}

if [ -n "${PYTHON:-}" ]; then
    python=$(command -v "$PYTHON") || { say "PYTHON=$PYTHON: not found"; exit 1; }
    recent "$python" || { say "PYTHON=$PYTHON: autoinst needs Python 3.10 or newer"; exit 1; }
else
    python=$(find_python)
    [ -n "$python" ] || { say "no Python 3.10 or newer found; install one (Debian: apt-get install python3 python3-venv)"; exit 1; }
fi

# The interpreter behind an active virtual environment, which may be the very one to be made.
python=$("$python" -c '
import os, sys
base = os.path.join(sys.base_prefix, "bin", "python%d.%d" % sys.version_info[:2])
print(base if os.path.exists(base) else sys.executable)')

# Debian keeps ensurepip, without which a virtual environment has no pip, in a package of its own.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "installing Debian's python$version-venv"
        { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "python$version-venv"; } >&2 \
            || { say "apt-get could not install python$version-venv"; exit 1; }
    else
        say "$python has no ensurepip; install it and try again (Debian, as root: apt-get install python$version-venv)"
        exit 1
    fi
fi

version=$("$python" --version)
if [ "$("$folder/bin/python" --version 2>/dev/null)" = "$version" ] && "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
    say "bringing $folder up to date"
else
    say "making $folder with $version"
    rm -rf "$folder"
    "$python" -m venv "$folder" || { rm -rf "$folder"; exit 1; }
fi
# A lock has all that is needed, so nothing is looked for beyond it.
"$folder/bin/python" -m pip install -qq --disable-pip-version-check --no-deps --require-hashes -r "$lock"
if [ "$editable" = --editable ]; then
    # The build tools are in the lock, so nothing beside it is downloaded.
    "$folder/bin/python" -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
fi
