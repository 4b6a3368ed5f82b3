"""`autoinst ui`: the web page over what was recorded."""

from __future__ import annotations

import os
import threading
import webbrowser
from typing import TYPE_CHECKING

from autoinst.cli.output import message
from autoinst.config import from_environ
from autoinst.errors import AutoinstError

if TYPE_CHECKING:
    import argparse

LEAST_TOKEN = 12  # characters: what is shorter is guessed


def run(options: argparse.Namespace) -> int:
    """Serve until it is told to end; returns 0, 1 where it cannot be served, 2 for wrong options."""
    token = options.token or os.environ.get("AUTOINST_UI_TOKEN") or None
    if token is not None and len(token) < LEAST_TOKEN:
        message(f"the token is too short: {LEAST_TOKEN} characters at least")
        return 2
    if options.read_from is not None and not os.path.exists(options.read_from):
        message(f"--read-from {options.read_from}: there is no such file or folder")
        return 2
    try:
        from autoinst.web.server import Options, serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "autoinst":
            raise
        message(f"the page needs {error.name}: pip install 'autoinst[ui]'")
        return 1
    wanted = Options(options.host, options.port, token, options.read_from, options.allow_host)

    def ready(address: str) -> None:
        print(f"autoinst ui: {address}", flush=True)
        if token is not None:
            message("open it and give the token, or send it as `Authorization: Bearer`")
        if options.open:
            threading.Timer(0.3, webbrowser.open, (address,)).start()

    try:
        serve(from_environ(), wanted, ready)
    except AutoinstError as error:
        message(str(error))
        return 1
    return 0
