"""Every error this project raises on purpose, in one tree."""

from __future__ import annotations


class ReceiverError(Exception):
    """An error that the user reads in one line: what is wrong and what to do."""


class SettingsError(ReceiverError):
    """One or more settings are wrong; the text names each of them."""


class DatabaseUnavailable(ReceiverError):
    """The database is out of reach or did not answer; the same call may work later."""


class DatabaseMisconfigured(ReceiverError):
    """The database answers but cannot be used; the text names the fix."""


class Overloaded(ReceiverError):
    """There is no room for it now; nothing was stored or read. `retry_after_seconds`: when there may be."""

    def __init__(self, text: str, *, retry_after_seconds: int = 1) -> None:
        super().__init__(text)
        self.retry_after_seconds = retry_after_seconds


class SpoolUnavailable(ReceiverError):
    """Neither the database nor the spool can store it now; nothing was stored."""


class NotFound(ReceiverError):
    """There is nothing under that id."""


class InvalidCursor(ReceiverError):
    """A cursor that this receiver did not make, or made for another list or filter. `parameter`: that had it."""

    def __init__(self, text: str, *, parameter: str = "cursor") -> None:
        super().__init__(text)
        self.parameter = parameter


class TooManyRows(ReceiverError):
    """More rows than the format that was asked for can hold."""


class MissingExtra(ReceiverError):
    """A part of the package that was not installed; the text names it."""


class NameTaken(ReceiverError):
    """A name that must be unique is in use."""
