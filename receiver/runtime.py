"""What one process runs on: settings, database, gate and committer, put together and taken apart in order."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from receiver.intake.committer import Committer
from receiver.intake.gate import Gate
from receiver.store import access, read, write
from receiver.store.database import Database

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import sqlalchemy as sa

    from receiver.config import Settings
    from receiver.domain import Push

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """The parts that a process needs to take pushes and answer questions.

    Nothing connects and no thread starts before its first use, so a runtime may be made before a fork.
    """

    settings: Settings
    database: Database
    gate: Gate
    committer: Committer

    @classmethod
    def of(cls, settings: Settings) -> Runtime:
        """Put the parts together."""
        database = Database(settings.database_url)

        def save(batch: Sequence[Push]) -> None:
            write.save_pushes_in(database, batch)

        return cls(settings=settings, database=database, gate=Gate(settings), committer=Committer(save))

    def stop(self) -> None:
        """Keep what was taken, then close."""
        self.committer.stop()
        self.database.close()

    def now(self) -> datetime:
        """The present moment, UTC."""
        return datetime.now(UTC)

    def clock(self, now: datetime | None = None) -> read.Clock:
        """What counts as late at that moment, at present by default."""
        return read.Clock(
            now=now or self.now(),
            late_after=self.settings.late_after,
            no_receipt_after=self.settings.no_receipt_after,
        )

    def ask(self, question: Callable[[sa.Connection], T]) -> T:
        """Answer one question from the database."""
        with self.database.reading() as connection:
            return question(connection)

    def shared_secret(self, name: str) -> bytes:
        """Give a secret that all nodes share."""
        return self.database.write(lambda connection: access.shared_secret(connection, name))

    def audit(self, actor: str, action: str, **detail: Any) -> None:
        """Note who did what, durably, before the answer goes out."""
        entry: Mapping[str, Any] = {name: value for name, value in detail.items() if value is not None}
        self.database.write(
            lambda connection: access.write_audit(connection, at=self.now(), actor=actor, action=action, detail=entry)
        )
