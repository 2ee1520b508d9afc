"""Times of the last good and the last failed backup of this node: mtimes of empty files in the data directory.

Files instead of a table: they work without the database, and a script can touch them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

COMMAND = "receiver backup"
_FILES = {COMMAND: "backup", "backup.sh": "backup.sh"}  # the latter is written by deploy/postgresql/backup.sh
_MADE, _FAILED = "made", "failed"
_OLD = timedelta(hours=36)  # a backup is made each night and may take hours


@dataclass(frozen=True, kw_only=True, slots=True)
class Noted:
    """The last backups of one command."""

    made_at: datetime | None  # the last good one; None: none yet
    failed_at: datetime | None  # the last failed run; None: none failed

    @property
    def failing(self) -> bool:
        """Return whether the last run failed."""
        return self.failed_at is not None and (self.made_at is None or self.failed_at > self.made_at)

    def old(self, now: datetime) -> bool:
        """Return whether the last good backup is too old, or dated by a clock that was ahead."""
        return self.made_at is not None and abs(now - self.made_at) > _OLD


def note_backup(data_dir: Path, *, made: bool) -> None:
    """Record that `receiver backup` has just succeeded or failed. Raises OSError."""
    path = data_dir / f"{_FILES[COMMAND]}.{_MADE if made else _FAILED}"
    path.touch(mode=0o600)


def find_backups(data_dir: Path) -> Mapping[str, Noted]:
    """Return the last backups by command, without commands that never ran here."""
    found = {}
    for command, name in _FILES.items():
        made_at, failed_at = (_time_of(data_dir / f"{name}.{end}") for end in (_MADE, _FAILED))
        if made_at or failed_at:
            found[command] = Noted(made_at=made_at, failed_at=failed_at)
    return found


def _time_of(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError:
        return None
