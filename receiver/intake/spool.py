"""Files that keep what the database cannot take at the moment: appended, fsynced, and saved from here later.

A file is a row of frames: a mark, the length and the CRC-32 of what follows, then one record as JSON in ASCII, sealed
where there are keys for it. The process that writes a file holds a lock on it; a file without a holder is an orphan of
a dead process and is taken over by any other. What in a file cannot be read costs nothing that can: reading goes on at
the next mark, and the file is then kept, as `*.damaged`, instead of removed. A file whose key is missing waits for it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import struct
import threading
import time
import zlib
from base64 import b64decode, b64encode
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from receiver.domain import UNREAD, Kind, MessageStatus, Push, SendAttempt, SendResult, SentMessage
from receiver.durable import sync_directory
from receiver.errors import SpoolUnavailable
from receiver.logs import get_logger
from receiver.platform.push import CLOCK_FLAG
from receiver.sealing import NotOpened

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from receiver.sealing import KeyRing

_log = get_logger(__name__)

SPOOL_DIR = "spool"
_SUFFIX = ".spool"
_DAMAGED = ".damaged"
_MARK = b"\xf5RSP"  # begins with a byte that no record has
_HEADER = struct.Struct(">4sII")  # mark, length in bytes, CRC-32
_SEALED = b"sealed:"  # begins a record that is sealed; JSON does not
_PLACE = b"spool"
_FILE_MAX_BYTES = 16 * 1024 * 1024
_RECOUNT_SECONDS = 1.0
_OPEN_TRIES = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class SpooledSends:
    """Records of sends, as they came in together."""

    sends: tuple[SentMessage, ...]
    recorded_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class SpooledAttempt:
    """A request to send: its beginning, or (with a result) what became of it."""

    attempt: SendAttempt
    result: SendResult | None
    recorded_at: datetime


Record = Push | SpooledSends | SpooledAttempt


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

    def __init__(self, directory: Path, *, max_bytes: int, ring: KeyRing | None = None) -> None:
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
        data = b"".join(_frame(record, self._ring) for record in records)
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
        """Give what `read_file` does. Raises NotOpened where a record's key is missing."""
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
        """Whether no file waits, as far as the directory tells."""
        return not self._size and not self._sealed and not _files(self.directory)

    def close(self) -> None:
        """Let go of every file; the next process takes over what waits."""
        with self._lock:
            self._seal()
            for handle in self._sealed.values():
                os.close(handle)
            self._sealed.clear()

    def _write(self, data: bytes) -> None:
        if self._path is not None and not self._in_place(self._path):
            _log.error("the spool was moved or removed, with pushes that were acknowledged", file=str(self._path))
            self._seal()
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
        """Whether the file that is written to is still the one at its path."""
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
    _forget_counts_of_gone(files)
    records = sum(map(count_frames, files))
    oldest = [int(path.name.partition("-")[0]) / 1e9 for path in files if _size(path)]
    damaged = tuple(path.name for path in _files(directory, _DAMAGED))
    return SpoolState(
        records=records,
        bytes=sum(map(_size, files)),
        oldest_at=min(oldest, default=None),
        damaged=damaged,
    )


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
            file.write(data if path.suffix == _DAMAGED else _without_torn_end(data))
            file.flush()
            os.fsync(file.fileno())
        copies.append(copy)
    sync_directory(to)
    return copies


def _without_torn_end(data: bytes) -> bytes:
    """Cut off a last record of which the end is not there; leave any other damage for a person to see."""
    offset = 0
    while offset < len(data):
        if (end := _frame_end(data, offset)) is not None:
            offset = end
            continue
        next_mark = data.find(_MARK, offset + 1)
        if next_mark < 0:
            torn = data[offset : offset + len(_MARK)] == _MARK[: len(data) - offset]
            return data[:offset] if torn else data
        offset = next_mark
    return data


def _frame_end(data: bytes, offset: int) -> int | None:
    begin = offset + _HEADER.size
    if begin > len(data):
        return None
    mark, length, _ = _HEADER.unpack_from(data, offset)
    return begin + length if mark == _MARK and begin + length <= len(data) else None


_counted: dict[Path, tuple[int, int]] = {}  # how far a file was counted, and to how many: files only grow


def count_frames(path: Path) -> int:
    """Count the records of a file, as far as it is whole, without looking into them."""
    offset, count = _counted.get(path, (0, 0))
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            while offset + _HEADER.size <= size:
                mark, length, _ = _HEADER.unpack(os.pread(file.fileno(), _HEADER.size, offset))
                if mark != _MARK or offset + _HEADER.size + length > size:
                    break  # damaged from here on, or just being written
                offset += _HEADER.size + length
                count += 1
    except (OSError, struct.error):
        return count
    _counted[path] = (offset, count)
    return count


def _forget_counts_of_gone(files: Sequence[Path]) -> None:
    for path in [path for path in _counted if path not in files]:
        _counted.pop(path, None)


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


# --- Frames -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Damage:
    """A part of a file that is no record: what a process wrote of one when it died, or a fault of the disk."""

    offset: int
    bytes: int


def read_file(path: Path, ring: KeyRing | None = None) -> Iterator[Record | Damage]:
    """Give the records of a file in the order written, and what between them cannot be read.

    Raises NotOpened where a record is sealed under a key that is not there: that is no damage.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return  # saved and removed meanwhile
    offset = 0
    while offset < len(data):
        record, end = _read_frame(data, offset, ring)
        if record is not None:
            yield record
        else:
            next_mark = data.find(_MARK, offset + 1)
            end = next_mark if next_mark >= 0 else len(data)
            yield Damage(offset, end - offset)
        offset = end


def _read_frame(data: bytes, offset: int, ring: KeyRing | None) -> tuple[Record | None, int]:
    begin = offset + _HEADER.size
    if begin > len(data):
        return None, offset
    mark, length, checksum = _HEADER.unpack_from(data, offset)
    end = begin + length
    if mark != _MARK or end > len(data) or zlib.crc32(data[begin:end]) != checksum:
        return None, offset
    try:
        return _decode(json.loads(_opened(data[begin:end], ring))), end
    except (ValueError, KeyError, TypeError):
        return None, offset


def _opened(payload: bytes, ring: KeyRing | None) -> bytes:
    if not payload.startswith(_SEALED):
        return payload
    if ring is None:
        raise NotOpened("a spool file is encrypted; set RECEIVER_ENCRYPTION_KEYS to the keys that it was written with")
    return ring.open(b64decode(payload.removeprefix(_SEALED)), _PLACE)


def _frame(record: Record, ring: KeyRing | None) -> bytes:
    payload = json.dumps(_encode(record)).encode("ascii")
    if ring is not None:  # in letters, so that no record has what begins a mark
        payload = _SEALED + b64encode(ring.seal(payload, _PLACE))
    return _HEADER.pack(_MARK, len(payload), zlib.crc32(payload)) + payload


def _encode(record: Record) -> dict[str, Any]:
    if isinstance(record, Push):
        return {
            "id": str(record.id),
            "account": record.account,
            "endpoint": record.endpoint,
            "method": record.method,
            "query": record.query.decode("latin-1"),
            "body": record.body.decode("latin-1"),
            "content_type": record.content_type,
            "remote_addr": record.remote_addr,
            "received_at": record.received_at.isoformat(),
            **({"clock": True} if CLOCK_FLAG in record.flags else {}),
        }
    at = {"recorded_at": record.recorded_at.isoformat()}
    if isinstance(record, SpooledSends):
        return at | {"sends": [_fields(send) for send in record.sends]}
    return at | {"attempt": _fields(record.attempt), "result": record.result and _fields(record.result)}


def _fields(value: SentMessage | SendAttempt | SendResult) -> dict[str, Any]:
    given = {name: getattr(value, name) for name in value.__slots__}
    return {name: _plain(part) for name, part in given.items() if part is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    return value.isoformat() if isinstance(value, datetime) else value


def _decode(fields: dict[str, Any]) -> Record:
    if "sends" in fields:
        return SpooledSends(
            sends=tuple(_decode_send(send) for send in fields["sends"]),
            recorded_at=datetime.fromisoformat(fields["recorded_at"]),
        )
    if "attempt" in fields:
        return SpooledAttempt(
            attempt=_decode_attempt(fields["attempt"]),
            result=_decode_result(fields["result"]) if fields["result"] else None,
            recorded_at=datetime.fromisoformat(fields["recorded_at"]),
        )
    endpoint = fields["endpoint"]
    return Push(
        id=UUID(fields["id"]),
        account=fields["account"],
        endpoint=None if endpoint is None else Kind(endpoint),
        method=fields["method"],
        query=fields["query"].encode("latin-1"),
        body=fields["body"].encode("latin-1"),
        content_type=fields["content_type"],
        remote_addr=fields["remote_addr"],
        received_at=datetime.fromisoformat(fields["received_at"]),
        reading=UNREAD,
        flags=(CLOCK_FLAG,) if fields.get("clock") else (),
    )


def _decode_send(fields: dict[str, Any]) -> SentMessage:
    values = {"task_id": None, **fields}
    if "sent_at" in values:
        values["sent_at"] = datetime.fromisoformat(values["sent_at"])
    return SentMessage(**values)


def _decode_attempt(fields: dict[str, Any]) -> SendAttempt:
    values = {"template_id": None, "reference": None, **fields}
    values |= {"id": UUID(fields["id"]), "sent_at": datetime.fromisoformat(fields["sent_at"])}
    return SendAttempt(**values)


def _decode_result(fields: dict[str, Any]) -> SendResult:
    state = fields.get("state")
    values = fields | {
        "state": None if state is None else MessageStatus(state),
        "answered_at": datetime.fromisoformat(fields["answered_at"]),
    }
    return SendResult(**values)
