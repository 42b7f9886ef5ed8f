"""The few errors naica raises. Each message says what was found, what was expected and what to do."""

from __future__ import annotations


class NaicaError(Exception):
    """Root of all errors a user can cause or cure; the command line prints it without a traceback."""

    exit_code = 1


class InputError(NaicaError, ValueError):
    """A file, a structure, a column or an argument is not what was asked for."""

    exit_code = 2


class LevelError(NaicaError, ValueError):
    """Labels of different levels of theory (or without one) met where they must not mix."""

    exit_code = 2


class ConfigError(NaicaError, ValueError):
    """A configuration key or value is unknown, misspelt or out of range."""

    exit_code = 2


class MissingPart(NaicaError, ImportError):
    """An optional dependency or data set is not installed; the message holds the command that installs it."""

    exit_code = 3


class RunError(NaicaError, RuntimeError):
    """A run could not go on (disk full, folder read-only, ledger of another campaign); nothing already paid for is lost."""

    exit_code = 4
