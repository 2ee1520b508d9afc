"""The database of one process, and how it is asked: all that a command needs which changes nothing."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from receiver.core import ReceiverError
from receiver.db import set_aside
from receiver.db.availability import CircuitBreaker
from receiver.db.encryption import ColumnEncryption
from receiver.db.engine import Database
from receiver.db.message_status import Clock
from receiver.db.replica import Replica
from receiver.messages.projector import Projector
from receiver.messages.reads import Reads

if TYPE_CHECKING:
    from receiver.config import Settings

_EXPORT_PATIENCE_SECONDS = 3600.0
_STOP_SECONDS = 1.0  # for what is saved while stopping


class Store:
    """The database of a process that answers queries; a server's Runtime adds to it all that accepts pushes.

    Opens no connection before the first question.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.encryption = ColumnEncryption(settings.encryption_keys)
        self.database = Database(settings.database_url, encryption=self.encryption)
        self._export_database = Database(
            settings.database_url, patience_seconds=_EXPORT_PATIENCE_SECONDS, encryption=self.encryption
        )
        self.replica: Replica | None = None
        if settings.read_database_url:
            self.replica = Replica(
                settings.read_database_url,
                primary=settings.database_url,
                max_lag_seconds=settings.replica_max_lag.total_seconds(),
                encryption=self.encryption,
            )
        self.availability = CircuitBreaker(self._on_availability)
        self.require_database = self.availability.require
        self.projector = Projector(
            self.database,
            availability=self.availability,
            is_busy=self._is_busy,
            on_projected=self._on_projected,
        )
        reads = Reads(
            self.database,
            export_database=self._export_database,
            replica=self.replica,
            availability=self.availability,
            projector=self.projector,
        )
        self.ask, self.ask_present, self.browse = reads.ask, reads.ask_present, reads.browse
        self.exporting = reads.exporting

    def _on_availability(self, up: bool) -> None:
        """Note that the database answers, or does not."""

    def _is_busy(self) -> bool:
        """Return whether the projection should give way."""
        return False

    def _on_projected(self) -> None:
        """Do at once what follows a set that is projected."""

    def stop(self) -> None:
        """Record the rows that were left out, and close every connection."""
        if self.availability.up or not self.availability.known:  # also what a command found; must not delay the stop
            with suppress(ReceiverError):
                set_aside.save_noted(self.database, self.now(), patience_seconds=_STOP_SECONDS)
        self.database.close()
        self._export_database.close()
        if self.replica is not None:
            self.replica.close()

    def now(self) -> datetime:
        """Return the current time, UTC."""
        return datetime.now(UTC)

    def clock(self, now: datetime | None = None) -> Clock:
        """Return the thresholds for late messages as of `now`, by default the current time."""
        return Clock(
            now=now or self.now(),
            late_after=self.settings.late_after,
            no_receipt_after=self.settings.no_receipt_after,
        )
