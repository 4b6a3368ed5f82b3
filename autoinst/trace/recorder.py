"""The recorder of this process: its spool, its settings, and what a fork does to them."""

from __future__ import annotations

import os
import sys

from autoinst import config as configuration
from autoinst.spool.writer import Spool
from autoinst.trace import faults
from autoinst.trace.sanitize import FILTERED, Sanitizer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from autoinst.config import Config

# Environment variables a record may show; a rules file's `defaults: {env: [...]}` adds to them.
ENV_ALLOWED = (
    "APP_ENV",
    "CI",
    "DJANGO_SETTINGS_MODULE",
    "DYNO",
    "ENV",
    "ENVIRONMENT",
    "FLASK_ENV",
    "HOSTNAME",
    "LANG",
    "LC_ALL",
    "PYTHON_ENV",
    "PYTHONHASHSEED",
    "TZ",
)
MAX_ENV_VALUE = 200


class Recorder:
    """What all transactions of this process share."""

    __slots__ = (
        "_expects_jobs",
        "carries",
        "config",
        "digest",
        "env_allowed",
        "ignored",
        "sanitizer",
        "settings",
        "spool",
    )

    def __init__(self, config: Config, settings: Mapping[str, Any], digest: str = "") -> None:
        """Record under `config`; `settings` are those of the rules file, `digest` names the rules in force."""
        self.config = config
        self.adopt(settings, digest)
        self._expects_jobs = False
        self.spool = self._new_spool()

    def adopt(self, settings: Mapping[str, Any], digest: str) -> None:
        """Go by the settings of rules files that have changed; a service's name stays what the arena says."""
        self.settings = settings
        self.digest = digest
        self.ignored: tuple[str, ...] = tuple(settings.get("ignore") or ())
        self.carries = settings.get("carry") is not False
        messages = settings.get("redact_messages") is not True
        self.sanitizer = Sanitizer(settings.get("redact") or (), messages=messages)
        self.env_allowed = frozenset((*ENV_ALLOWED, *(settings.get("env") or ())))

    def _new_spool(self) -> Spool:
        config = self.config
        return Spool(config.spool, self.description, config.spool_limit, config.group, self._grown)

    def expect_jobs(self) -> None:
        """Have an agent started on demand: functions of a program that was started under autoinst are jobs by rules.

        Called once there is an arena, by which an agent that leads sees that this process lives.
        """
        if (
            not self._expects_jobs
            and configuration.remembered() is not None
            and self.config.agent not in configuration.OFF_WORDS
        ):
            self._expects_jobs = True
            self._grown()

    def _grown(self) -> None:
        """Ask for an agent; also when a further arena was needed (nobody drains), or one after a fork."""
        if self._expects_jobs:
            try:  # loaded here: a process that records no job needs none of it
                from autoinst import demand
            except (ImportError, OSError) as error:  # no descriptor is free to read it by
                if isinstance(error, TimeoutError):  # by a signal
                    raise
                return
            try:
                demand.ask(self.config, os.environ)
            except (OSError, ValueError) as error:
                if not faults.is_ours(error):  # a time limit's, by a signal, which may be an OSError too
                    raise

    def description(self) -> dict[str, Any]:
        """Return what an arena's header says of this process (plain data)."""
        from autoinst import __version__

        settings, config = self.settings, self.config
        return {
            "service": config.service or settings.get("service"),
            "environment": config.environment or settings.get("environment"),
            "revision": config.revision or settings.get("revision"),
            "host": os.uname().nodename if hasattr(os, "uname") else None,
            "argv": [str(word)[:200] for word in getattr(sys, "orig_argv", [])[:12]],
            "python": ".".join(map(str, sys.version_info[:3])),
            "autoinst": __version__,
            "env": self.allowed_env(os.environ),
            "cwd": configuration.working_directory() or None,
            "exe": sys.executable,
            "cgroup": _cgroup(),
            "parent": os.getppid(),
        }

    def allowed_env(self, env: Mapping[str, str] | None) -> dict[str, str]:
        """Return the entries of `env` that may be recorded, secrets filtered; anything but a mapping gives none."""
        if env is None:
            return {}
        out: dict[str, str] = {}
        for key in self.env_allowed:
            try:
                value = env[key]
            except (KeyError, TypeError, AttributeError):
                continue
            if isinstance(value, str):
                text = str.__str__(value)[:MAX_ENV_VALUE]
                out[key] = FILTERED if self.sanitizer.is_secret(key) else self.sanitizer.text(text)
        return out

    def forked(self) -> Spool:
        """Return the new spool of a forked child: the arenas, and the jobs in progress, are its parent's."""
        inherited = self.spool
        self.spool = self._new_spool()
        inherited.abandon()
        for forget in at_fork:
            forget()
        return self.spool


def _cgroup() -> str | None:
    try:
        with open("/proc/self/cgroup", "rb", 0) as file:
            for line in file.read(4096).splitlines():
                if line.startswith(b"0::"):
                    return line[3:].decode("utf-8", "replace")
    except OSError:
        pass
    return None


active: Recorder | None = None
_follows_forks = False
at_fork: list[Callable[[], None]] = []  # called in a child whose memory has its parent's counts


def get() -> Recorder:
    """Return this process's recorder; a program that uses only the Python API gets one made from the environment."""
    recorder = active
    if recorder is None:
        started = configuration.remembered()
        if started is None:
            from autoinst.rules.cache import load_cached

            config = configuration.from_environ()
            rules = load_cached(config)
        else:
            config, rules = started
        recorder = configure(Recorder(config, rules.settings, rules.digest))
    return recorder


def configure(recorder: Recorder) -> Recorder:
    """Make `recorder` this process's; forks are followed from now on."""
    global _follows_forks, active
    if not _follows_forks and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork)
        _follows_forks = True
    active = recorder
    return recorder


def _after_fork() -> None:
    if active is not None:
        active.forked()
