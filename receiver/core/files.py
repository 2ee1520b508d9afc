"""Files that last through a power failure, with their names in the directory above; and locks on files."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import IO, Any, BinaryIO


# A disk with less free space counts as full: a few pages may still fit into an existing file, but a push does not.
_ROOM_BYTES = 1024 * 1024


def require_room(directory: Path) -> None:
    """Raise OSError where the disk of a directory is full."""
    found = os.statvfs(directory)
    blocks = found.f_bfree if os.geteuid() == 0 else found.f_bavail
    if found.f_blocks and blocks * found.f_frsize < _ROOM_BYTES:  # some file systems report no size
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def try_lock(handle: int | IO[Any], *, shared: bool = False) -> bool:
    """Lock an open file or directory until it is closed. Return False if another process has the lock.

    Raises OSError if it cannot be locked for any other reason; a retry would not help.
    """
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock(handle: int) -> None:
    """Lock an open file or directory until it is closed, once no other process has the lock."""
    fcntl.flock(handle, fcntl.LOCK_EX)


def sync_file(file: int | IO[Any]) -> None:
    """Make the content of an open file durable, its size and times as well."""
    if not isinstance(file, int):
        file.flush()
        file = file.fileno()
    os.fsync(file)


def write_new_file(path: Path, data: bytes) -> None:
    """Make a file of this user alone, which must not exist. Raises OSError."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        sync_file(file)


def sync_directory(directory: Path) -> None:
    """Make durable which files a directory holds."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_directory(directory: Path) -> None:
    """Create a directory for this user alone, and its parents, if missing. Raises OSError."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in reversed(missing):
        with suppress(PermissionError):  # a directory that we may write but not read
            sync_directory(path.parent)


@contextmanager
def replacing_file(path: Path, mode: int = 0o600) -> Iterator[BinaryIO]:
    """Open a draft, which takes the place of a file at the end of the block, whole or not at all. Raises OSError.

    Not for two that write the same path at once in one process.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            yield file
            sync_file(file)
        draft.replace(path)
        sync_directory(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def write_file(path: Path, text: str) -> None:
    """Make or replace a file of this user alone, as `replacing_file` does. Raises OSError."""
    with replacing_file(path) as file:
        file.write(text.encode())
