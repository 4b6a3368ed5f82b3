"""Where the agent says what it did: standard error, or a file in the home that stays small."""

from __future__ import annotations

import logging
import os
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING

from autoinst.config import share_file
from autoinst.demand import LOG_NAME

if TYPE_CHECKING:
    from io import TextIOWrapper

MAX_BYTES = 256 * 1024  # of the file; one older one of that size is kept beside it


class SharedFileHandler(RotatingFileHandler):
    """Lets the home's group read each file it begins."""

    def _open(self) -> TextIOWrapper:
        stream = super()._open()
        share_file(stream.fileno(), os.path.dirname(self.baseFilename))
        return stream


def open_journal(home: str, *, foreground: bool) -> logging.Logger:
    """Return the agent's log; what cannot be written to it (a full disk) is dropped. Raises OSError."""
    logging.raiseExceptions = False
    handler: logging.Handler
    if foreground:
        handler = logging.StreamHandler()
    else:
        handler = SharedFileHandler(os.path.join(home, LOG_NAME), maxBytes=MAX_BYTES, backupCount=1, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s autoinst agent[%(process)d]: %(message)s"))
    journal = logging.getLogger("autoinst.agent")
    journal.setLevel(logging.INFO)
    journal.propagate = False
    journal.handlers[:] = [handler]
    return journal


def last_line(home: str) -> str | None:
    """Return the last line of the daemon's log, None if there is none."""
    try:
        with open(os.path.join(home, LOG_NAME), encoding="utf-8", errors="replace") as file:
            lines = file.read(MAX_BYTES * 2).splitlines()
    except OSError:
        return None
    return lines[-1] if lines else None
