"""Free disk space, and the limit below which it is too little."""

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
    """The space of one file system."""

    free_bytes: int  # for this user
    total_bytes: int  # 0: the file system reports no size, or none can be asked

    @property
    def nearly_full(self) -> bool:
        """Return whether less than one gigabyte or five percent is free."""
        least = max(_FREE_MIN_BYTES, _FREE_MIN_SHARE * self.total_bytes)
        return self.total_bytes > 0 and self.free_bytes < least


def find_disk(directory: Path) -> Disk:
    """Return the space of the disk that holds a directory: what asks is the page and the alarm of a broken one too."""
    try:
        usage = shutil.disk_usage(directory)
    except OSError:
        return Disk(free_bytes=0, total_bytes=0)
    return Disk(free_bytes=usage.free, total_bytes=usage.total)
