"""The exceptions autoinst raises to callers of its own tools (never into an instrumented program)."""

from __future__ import annotations


class AutoinstError(Exception):
    """Base of every error a command line or an API of autoinst reports to a person."""


class HomeError(AutoinstError):
    """AUTOINST_HOME cannot be used: wrong owner, not a directory, not writable."""


class SpoolError(AutoinstError):
    """An arena file is not one, is of another version, or is damaged."""


class StoreError(AutoinstError):
    """The store cannot be opened: locked for too long, corrupt, or written by a newer version."""


class RulesError(AutoinstError):
    """A rules file has problems; the message lists them with file:line:col."""


class UsageError(AutoinstError):
    """An option's value cannot be understood: the command ends with status 2."""
