"""Room on the disk for the index of SQLite's log (`-shm`), which its users map into memory.

A page of it that finds no block on a full disk ends the process with SIGBUS, and SQLite takes a block for each 4 KiB
alone: too few where blocks are smaller. So the master, which has no connection to the database, takes them all in
advance. A process with a connection must not: closing a second descriptor of the file drops SQLite's locks on it.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import TYPE_CHECKING, Any

from receiver.observability import get_logger

if TYPE_CHECKING:
    from pathlib import Path

_log = get_logger(__name__)

_LEAST_BYTES = 1024 * 1024  # of half a GiB of log
_NOT_HERE = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class WalIndex:
    """The file beside one database; it may be there or not."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(f"{database.name}-shm")
        self._allocate = _allocate_of_libc()
        self._told_full = False

    def take_room(self) -> None:
        """Let every block of it be there; to be called again and again, as SQLite makes it anew and lets it grow."""
        if self._allocate is None:
            return
        try:
            found = self._path.stat()
            if found.st_size >= _LEAST_BYTES and found.st_blocks * 512 >= found.st_size:
                return
            grown = found.st_size if found.st_size < _LEAST_BYTES else found.st_size + _LEAST_BYTES
            self._take(max(grown, _LEAST_BYTES))
            self._told_full = False
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno in _NOT_HERE:
                self._allocate = None
            if not self._told_full:
                self._told_full = True
                _log.warning("no room in advance for the index of the database's log", reason=error.strerror)

    def _take(self, size: int) -> None:
        file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if self._allocate(file, 0, 0, size) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        finally:
            os.close(file)


def _allocate_of_libc() -> Any:
    """Return fallocate(2), where there is one. Not posix_fallocate: where the file system cannot, that writes bytes."""
    libc = ctypes.CDLL(None, use_errno=True)
    allocate = getattr(libc, "fallocate64", None) or getattr(libc, "fallocate", None)
    if allocate is not None:
        allocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return allocate
