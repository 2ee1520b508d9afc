"""Preallocates the index of SQLite's write-ahead log (`-shm`), which is memory-mapped.

On a full disk, a page without a block kills the process with SIGBUS. SQLite allocates only one block per 4 KiB, too few
if blocks are smaller. So the master, which has no database connection, allocates all of them. A process with a
connection must not: closing a second descriptor of the file drops SQLite's locks on it.
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

_MIN_BYTES = 1024 * 1024  # enough for half a GiB of log
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class WalIndex:
    """The `-shm` file of one database; it may not exist."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(f"{database.name}-shm")
        self._allocate = _allocate_of_libc()
        self._warned_full = False

    def preallocate(self) -> None:
        """Allocate every block of the file. Called periodically, since SQLite recreates and grows it."""
        if self._allocate is None:
            return
        try:
            found = self._path.stat()
            if found.st_size >= _MIN_BYTES and found.st_blocks * 512 >= found.st_size:
                return
            grown = found.st_size if found.st_size < _MIN_BYTES else found.st_size + _MIN_BYTES
            self._allocate_bytes(max(grown, _MIN_BYTES))
            self._warned_full = False
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                self._allocate = None
            if not self._warned_full:
                self._warned_full = True
                _log.warning("cannot preallocate the index of the database's log", reason=error.strerror)

    def _allocate_bytes(self, size: int) -> None:
        file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if self._allocate(file, 0, 0, size) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        finally:
            os.close(file)


def _allocate_of_libc() -> Any:
    """Return fallocate(2) or None. Not posix_fallocate, which writes bytes if the file system has no support."""
    libc = ctypes.CDLL(None, use_errno=True)
    allocate = getattr(libc, "fallocate64", None) or getattr(libc, "fallocate", None)
    if allocate is not None:
        allocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return allocate
