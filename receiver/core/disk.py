"""How much room a disk has, and whether that is too little."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_FREE_MIN_BYTES = 1024**3
_FREE_MIN_SHARE = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Disk:
    """The room of one file system."""

    free_bytes: int  # for this user
    total_bytes: int  # 0: it tells no size

    @property
    def nearly_full(self) -> bool:
        """Return whether somebody has to make room: less than a gigabyte, or than five percent, is free."""
        least = max(_FREE_MIN_BYTES, _FREE_MIN_SHARE * self.total_bytes)
        return self.total_bytes > 0 and self.free_bytes < least


def find_disk(directory: Path) -> Disk:
    """Return the room of the disk that holds a directory. Raises OSError."""
    found = shutil.disk_usage(directory)
    return Disk(free_bytes=found.free, total_bytes=found.total)
