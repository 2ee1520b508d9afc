"""The spool: fsynced append-only files for records that the database cannot take now; they are saved later.

File format: `spool_records`. The writing process holds a lock on its file; an unlocked file belonged to a dead process
and any other takes it over. A file with unreadable parts is renamed to `*.damaged` instead of removed. A file whose
encryption key is missing stays until the key is there.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

from receiver.core import Disk, SpoolUnavailable, require_room, sync_directory, try_lock, write_new_file
from receiver.intake.spool_records import (
    Damage,
    Record,
    count_frames,
    drop_stale_counts,
    frame,
    read_file,
    without_torn_end,
)
from receiver.observability import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from receiver.db.encryption.ciphers import Keyring


_log = get_logger(__name__)

_SUFFIX = ".spool"
_DAMAGED = ".damaged"
_FILE_MAX_BYTES = 16 * 1024 * 1024
_RECOUNT_SECONDS = 1.0
_OPEN_TRIES = 10
_RATE_KNOWN_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class SpoolState:
    """Pending records in a spool directory, over all processes."""

    records: int
    bytes: int
    oldest_at: float | None  # Unix time of the oldest pending file
    damaged: tuple[str, ...]  # names of files with unreadable parts, left for the operator


class Spool:
    """The spool of one process, in a directory that several may share. Thread-safe.

    Opens nothing before the first record, so it can be created before a fork.
    """

    def __init__(self, directory: Path, *, max_bytes: int, ring: Keyring | None = None) -> None:
        self.directory = directory
        self._max_bytes = max_bytes
        self._ring = ring  # encrypts the records; None: plain
        self._lock = threading.Lock()
        self._file: int | None = None
        self._path: Path | None = None
        self._size = 0
        self._sealed: dict[Path, int] = {}  # closed files of ours, with their locks
        self._unlockable: set[Path] = set()  # files that cannot be locked, already logged
        self._others_bytes = 0
        self._others_counted_at = float("-inf")

    def append(self, records: Sequence[Record]) -> None:
        """Make records durable, all or none. Raises SpoolUnavailable."""
        data = b"".join(frame(record, self._ring) for record in records)
        with self._lock:
            if self._bytes_used() + len(data) > self._max_bytes:
                raise SpoolUnavailable("the database is unavailable and the spool is full (RECEIVER_SPOOL_MAX_BYTES)")
            try:
                self._write(data)
            except OSError as error:
                self._give_up_file()
                raise SpoolUnavailable(
                    f"the database is unavailable and the spool cannot be written ({error.strerror})"
                ) from error
            if self._size >= _FILE_MAX_BYTES:
                self._seal()

    def check(self) -> None:
        """Raise SpoolUnavailable if no record could be written now."""
        with self._lock:
            if self._bytes_used() >= self._max_bytes:
                raise SpoolUnavailable("the spool is full (RECEIVER_SPOOL_MAX_BYTES)")
        place = self.directory if self.directory.exists() else self.directory.parent
        probe = place / f"probe-{uuid4().hex[:8]}"
        try:
            _list_files(self.directory)
            require_room(place)
            with probe.open("wb") as file:
                try_lock(file)
                file.write(bytes(4096))
                os.fdatasync(file.fileno())
        except OSError as error:
            raise SpoolUnavailable(f"{place} cannot be written ({error.strerror})") from error
        finally:
            with suppress(OSError):
                probe.unlink()

    def list_waiting(self) -> list[Path]:
        """Return the files to save, oldest first: our own, which are closed, and those of dead processes."""
        with self._lock:
            self._seal()
            for path in _files(self.directory):
                if path not in self._sealed:
                    self._take_over(path)
            return sorted(self._sealed)

    def _take_over(self, path: Path) -> None:
        try:
            handle = _lock_file(path)
        except OSError as error:
            if path not in self._unlockable:
                self._unlockable.add(path)
                _log.error("spool file cannot be taken over", file=path.name, reason=error.strerror)
            return
        if handle is not None:
            _log.info("took over the spool file of a dead process", file=path.name)
            self._sealed[path] = handle

    def read(self, path: Path) -> Iterator[Record | Damage]:
        """Yield what `read_file` yields. Raises DecryptionError if a record's key is missing."""
        return read_file(path, self._ring)

    def remove(self, path: Path, *, damaged: bool) -> None:
        """Remove a file whose readable records are saved; rename it to `*.damaged` if part of it is unreadable."""
        with self._lock:
            handle = self._sealed.pop(path)
            with suppress(FileNotFoundError):
                if damaged:
                    path.rename(path.with_suffix(_DAMAGED))
                else:
                    path.unlink()
            os.close(handle)
            self._others_counted_at = float("-inf")

    @property
    def empty(self) -> bool:
        """Return whether no file is pending."""
        return not self._size and not self._sealed and not _files(self.directory)

    def close(self) -> None:
        """Release every file; the next process takes over the pending ones."""
        with self._lock:
            self._seal()
            for handle in self._sealed.values():
                os.close(handle)
            self._sealed.clear()

    def _write(self, data: bytes) -> None:
        if self._path is not None and self._file is not None and not self._in_place(self._path):
            # Its records are acknowledged: write them again, with the new ones, into a file that will be found.
            _log.error(
                "the spool file was moved or removed; its records are written to a new one", file=str(self._path)
            )
            data = os.pread(self._file, self._size, 0) + data
            os.close(self._file)
            self._file = self._path = None
            self._size = 0
        if self._file is None:
            self._open()
        assert self._file is not None  # noqa: S101
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
            os.fdatasync(self._file)
        except OSError:
            # These are not acknowledged. Half a record must not precede the next one.
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(data)

    def _open(self) -> None:
        self.directory.mkdir(mode=0o700, exist_ok=True)
        for _ in range(_OPEN_TRIES):
            path = self.directory / f"{time.time_ns():020d}-{os.getpid()}-{uuid4().hex[:8]}{_SUFFIX}"
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            try:
                self._file = _lock_file(path)
            except OSError:
                path.unlink()
                raise
            if self._file is not None:
                self._path = path
                self._size = 0
                for directory in (self.directory, self.directory.parent):
                    sync_directory(directory)
                return
            # Another process took the file for an orphan before we locked it.
        raise BlockingIOError(errno.EAGAIN, "other processes locked every new file")

    def _in_place(self, path: Path) -> bool:
        """Return whether the open file is still the one at its path."""
        assert self._file is not None  # noqa: S101
        try:
            return os.path.samestat(os.fstat(self._file), path.stat())
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _seal(self) -> None:
        if self._file is None or self._path is None:
            return
        self._sealed[self._path] = self._file
        self._file = self._path = None
        self._size = 0

    def _give_up_file(self) -> None:
        """Continue in another file: after a write error, the state of the cached pages is unknown."""
        if self._size:
            self._seal()
        elif self._file is not None and self._path is not None:
            with suppress(OSError):
                self._path.unlink()
            os.close(self._file)
            self._file = self._path = None

    def _bytes_used(self) -> int:
        now = time.monotonic()
        if now - self._others_counted_at > _RECOUNT_SECONDS:
            self._others_counted_at = now
            self._others_bytes = sum(_size(path) for path in _files(self.directory) if path != self._path)
        return self._others_bytes + self._size


def spool_state(directory: Path) -> SpoolState:
    """Return what is pending in a directory, of all processes."""
    files = _files(directory)
    drop_stale_counts(files)
    records = sum(map(count_frames, files))
    oldest = [int(path.name.partition("-")[0]) / 1e9 for path in files if _size(path)]
    damaged = tuple(path.name for path in _files(directory, _DAMAGED))
    return SpoolState(
        records=records,
        bytes=sum(map(_size, files)),
        oldest_at=min(oldest, default=None),
        damaged=damaged,
    )


def seconds_left(state: SpoolState, *, max_bytes: int, disk: Disk, now: float) -> float | None:
    """Return the seconds until the spool is full, at the rate since its oldest file began.

    `now`: Unix time. None: nothing is pending, or the time is too short to know the rate.
    """
    if state.oldest_at is None or not state.bytes or now - state.oldest_at < _RATE_KNOWN_SECONDS:
        return None
    room = max(0, max_bytes - state.bytes)
    if disk.total_bytes:
        room = min(room, disk.free_bytes)
    return room * (now - state.oldest_at) / state.bytes


def copy_spool(directory: Path, to: Path) -> list[Path]:
    """Copy the pending files into a new directory while others write, and return the copies.

    They contain every record acknowledged before, unless it has been saved in the database since. A half-written record
    is left out: it is not acknowledged. Raises OSError.
    """
    to.mkdir(mode=0o700)
    copies = []
    for path in [*_list_files(directory), *_list_files(directory, _DAMAGED)]:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue  # saved and removed meanwhile
        copy = to / path.name
        write_new_file(copy, data if path.suffix == _DAMAGED else without_torn_end(data))
        copies.append(copy)
    sync_directory(to)
    return copies


# --- Files --------------------------------------------------------------------------------------------


def _list_files(directory: Path, suffix: str = _SUFFIX) -> list[Path]:
    """Return the files of a directory, oldest first; none if it does not exist. Raises OSError."""
    try:
        return sorted(path for path in directory.iterdir() if path.suffix == suffix)
    except FileNotFoundError:
        return []


def _files(directory: Path, suffix: str = _SUFFIX) -> list[Path]:
    """Return the files, none if the directory cannot be read."""
    try:
        return _list_files(directory, suffix)
    except OSError:
        return []


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _lock_file(path: Path) -> int | None:
    """Open a file, lock it and return its handle. None: another process holds the lock, or the file is gone.

    Raises OSError if it cannot be opened or locked for any other reason; a retry would not help.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_APPEND)
    except FileNotFoundError:
        return None
    held = False
    try:
        held = try_lock(handle) and os.fstat(handle).st_nlink > 0
    finally:
        if not held:
            os.close(handle)
    return handle if held else None
