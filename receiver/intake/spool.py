"""Files that keep what the database cannot take at the moment: appended, fsynced, and saved from here later.

What stands in a file: `spool_records`. The process that writes a file holds a lock on it; a file without a holder is an
orphan of a dead process and is taken over by any other. One of which a part cannot be read is kept, as `*.damaged`,
instead of removed. One whose key is missing waits for it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

from receiver.core import Disk, SpoolUnavailable, require_room, sync_directory
from receiver.intake.spool_records import (
    Damage,
    Record,
    count_frames,
    forget_counts_of_gone,
    frame,
    read_file,
    without_torn_end,
)
from receiver.observability import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from receiver.db.encryption import Keyring

_log = get_logger(__name__)

SPOOL_DIR = "spool"
_SUFFIX = ".spool"
_DAMAGED = ".damaged"
_FILE_MAX_BYTES = 16 * 1024 * 1024
_RECOUNT_SECONDS = 1.0
_OPEN_TRIES = 10
_RATE_KNOWN_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class SpoolState:
    """What waits in a spool directory, all processes together."""

    records: int
    bytes: int
    oldest_at: float | None  # Unix time of the oldest file that waits
    damaged: tuple[str, ...]  # names of files with unreadable parts, kept for a person


class Spool:
    """The spool of one process, in a directory that several may share. Safe for many threads.

    Nothing is opened before the first record, so it may be made before a fork.
    """

    def __init__(self, directory: Path, *, max_bytes: int, ring: Keyring | None = None) -> None:
        self.directory = directory
        self._max_bytes = max_bytes
        self._ring = ring  # what its records are sealed with, if they are
        self._lock = threading.Lock()
        self._file: int | None = None
        self._path: Path | None = None
        self._size = 0
        self._sealed: dict[Path, int] = {}  # files of ours that are no longer written to, with their locks
        self._untaken: set[Path] = set()  # files that cannot be locked, of which the log has told
        self._others_bytes = 0
        self._others_counted = float("-inf")

    def append(self, records: Sequence[Record]) -> None:
        """Make records durable, all of them or none. Raises SpoolUnavailable where that cannot be."""
        data = b"".join(frame(record, self._ring) for record in records)
        with self._lock:
            if self._bytes_used() + len(data) > self._max_bytes:
                raise SpoolUnavailable("the database is away and the spool is full (RECEIVER_SPOOL_MAX_BYTES)")
            try:
                self._write(data)
            except OSError as error:
                self._give_up_file()
                raise SpoolUnavailable(
                    f"the database is away and the spool cannot be written ({error.strerror})"
                ) from error
            if self._size >= _FILE_MAX_BYTES:
                self._seal()

    def check(self) -> None:
        """Raise SpoolUnavailable where a record could not be kept now."""
        with self._lock:
            if self._bytes_used() >= self._max_bytes:
                raise SpoolUnavailable("the spool is full (RECEIVER_SPOOL_MAX_BYTES)")
        place = self.directory if self.directory.exists() else self.directory.parent
        probe = place / f"probe-{uuid4().hex[:8]}"
        try:
            _list_files(self.directory)
            require_room(place)
            with probe.open("wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.write(bytes(4096))
                os.fdatasync(file.fileno())
        except OSError as error:
            raise SpoolUnavailable(f"{place} cannot be written ({error.strerror})") from error
        finally:
            with suppress(OSError):
                probe.unlink()

    def list_waiting(self) -> list[Path]:
        """List the files that can be saved now, oldest first: our own, closed first, and those of dead processes."""
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
            if path not in self._untaken:
                self._untaken.add(path)
                _log.error("spool file cannot be taken over", file=path.name, reason=error.strerror)
            return
        if handle is not None:
            _log.info("spool file of an ended process taken over", file=path.name)
            self._sealed[path] = handle

    def read(self, path: Path) -> Iterator[Record | Damage]:
        """Return what `read_file` does. Raises NotOpened where a record's key is missing."""
        return read_file(path, self._ring)

    def remove(self, path: Path, *, damaged: bool) -> None:
        """Let go of a file of which every readable record is saved; keep it aside where not all could be read."""
        with self._lock:
            handle = self._sealed.pop(path)
            with suppress(FileNotFoundError):
                if damaged:
                    path.rename(path.with_suffix(_DAMAGED))
                else:
                    path.unlink()
            os.close(handle)
            self._others_counted = float("-inf")

    @property
    def empty(self) -> bool:
        """Return whether no file waits, as far as the directory tells."""
        return not self._size and not self._sealed and not _files(self.directory)

    def close(self) -> None:
        """Let go of every file; the next process takes over what waits."""
        with self._lock:
            self._seal()
            for handle in self._sealed.values():
                os.close(handle)
            self._sealed.clear()

    def _write(self, data: bytes) -> None:
        if self._path is not None and self._file is not None and not self._in_place(self._path):
            # What it has was acknowledged; it goes with what comes, into a file that will be found.
            _log.error("the spool was moved or removed; it begins anew with what it had", file=str(self._path))
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
            # Nobody was told that these are kept. Half a record must not stand before the next one.
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
            # Another process has taken the file for an orphan, before it was locked.
        raise BlockingIOError(errno.EAGAIN, "every new file is locked by others")

    def _in_place(self, path: Path) -> bool:
        """Return whether the file that is written to is still the one at its path."""
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
        """After an error nobody knows what the file's cached pages will become: go on in another one."""
        if self._size:
            self._seal()
        elif self._file is not None and self._path is not None:
            with suppress(OSError):
                self._path.unlink()
            os.close(self._file)
            self._file = self._path = None

    def _bytes_used(self) -> int:
        now = time.monotonic()
        if now - self._others_counted > _RECOUNT_SECONDS:
            self._others_counted = now
            self._others_bytes = sum(_size(path) for path in _files(self.directory) if path != self._path)
        return self._others_bytes + self._size


def spool_state(directory: Path) -> SpoolState:
    """Tell what waits in a directory, whoever wrote it."""
    files = _files(directory)
    forget_counts_of_gone(files)
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
    """Return for how many seconds there is room, where as much comes as since the oldest file was begun.

    `now`: Unix time. None: nothing waits, or for too short a time to know the rate.
    """
    if state.oldest_at is None or not state.bytes or now - state.oldest_at < _RATE_KNOWN_SECONDS:
        return None
    room = max(0, max_bytes - state.bytes)
    if disk.total_bytes:
        room = min(room, disk.free_bytes)
    return room * (now - state.oldest_at) / state.bytes


def copy_spool(directory: Path, to: Path) -> list[Path]:
    """Copy what waits in a directory into a new one, whoever writes meanwhile; give the copies.

    Every record that was acknowledged before is in them, unless it has been saved in the database since. A record that
    was just being written is left out: nobody was told that it is kept. Raises OSError.
    """
    to.mkdir(mode=0o700)
    copies = []
    for path in [*_list_files(directory), *_list_files(directory, _DAMAGED)]:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue  # saved and removed meanwhile
        copy = to / path.name
        with os.fdopen(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data if path.suffix == _DAMAGED else without_torn_end(data))
            file.flush()
            os.fsync(file.fileno())
        copies.append(copy)
    sync_directory(to)
    return copies


# --- Files --------------------------------------------------------------------------------------------


def _list_files(directory: Path, suffix: str = _SUFFIX) -> list[Path]:
    """List the files of a directory, oldest first; none where it does not exist. Raises OSError."""
    try:
        return sorted(path for path in directory.iterdir() if path.suffix == suffix)
    except FileNotFoundError:
        return []


def _files(directory: Path, suffix: str = _SUFFIX) -> list[Path]:
    """List what can be listed: none where the directory cannot be read."""
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
    """Open a file and hold its lock. None: another process holds it, or it is gone.

    Raises OSError where it cannot be opened or locked for any other reason: there, another try is of no use.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_APPEND)
    except FileNotFoundError:
        return None
    held = False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = os.fstat(handle).st_nlink > 0
    except BlockingIOError:
        pass
    finally:
        if not held:
            os.close(handle)
    return handle if held else None
