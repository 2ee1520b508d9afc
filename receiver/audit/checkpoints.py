"""Checkpoints of the audit's chain, in a file of the node's data directory: outside the database.

An attacker who rewrites or truncates the chain can make one that is consistent in itself, but it does not match the
checkpoints. Each process that writes entries adds its own.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from receiver.config import CHECKPOINTS_FILE
from receiver.core import lock, sync_directory, sync_file, write_file
from receiver.observability import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_log = get_logger(__name__)

_NEWEST = 1000  # are all kept; of older ones, one an hour
_MOST = 20_000  # over two years, by the hour


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A position of the chain, recorded when its entry was written."""

    position: int
    at: datetime
    hash: bytes

    @property
    def line(self) -> str:
        """Return its line in the file."""
        return f"{self.position} {self.at.astimezone(UTC).isoformat(timespec='microseconds')} {self.hash.hex()}\n"


class Checkpoints:
    """The file of one node, shared by its processes. Nothing stays open between calls."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / CHECKPOINTS_FILE

    def add(self, checkpoint: Checkpoint) -> None:
        """Add a checkpoint, fsynced. A failure is only logged: the entry itself is durable already."""
        try:
            with self._held() as handle:
                line = checkpoint.line.encode()
                os.write(handle, line)
                sync_file(handle)
                if os.fstat(handle).st_size == len(line):
                    sync_directory(self.path.parent)  # the file is new
                if checkpoint.position % _NEWEST == 0:
                    self._thin()
        except OSError as error:
            _log.error("the audit checkpoint cannot be written", file=str(self.path), reason=error.strerror)

    def read(self) -> tuple[list[Checkpoint], list[str]]:
        """Return every checkpoint in the order of the file, and its unreadable lines."""
        try:
            lines = self.path.read_text(errors="replace").splitlines(keepends=True)
        except FileNotFoundError:
            return [], []
        except OSError as error:
            return [], [f"{self.path}: {error.strerror}"]
        checkpoints, faults = [], []
        for number, line in enumerate(lines, 1):
            try:
                position, at, digest = line.split()
                checkpoints.append(
                    Checkpoint(position=int(position), at=datetime.fromisoformat(at), hash=bytes.fromhex(digest))
                )
            except ValueError:
                if number < len(lines) or line.endswith("\n"):  # else the machine stopped during the write
                    faults.append(f"{self.path}: line {number} cannot be read")
        return checkpoints, faults

    @contextmanager
    def _held(self) -> Iterator[int]:
        """Open the file for appending, locked; if it was replaced meanwhile, open the new one."""
        while True:
            handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                lock(handle)
                if os.path.samestat(os.fstat(handle), self.path.stat()):
                    _end_line(handle)
                    yield handle
                    return
            finally:
                os.close(handle)

    def _thin(self) -> None:
        checkpoints, faults = self.read()
        if faults:
            return  # leave a damaged file for review
        write_file(self.path, "".join(checkpoint.line for checkpoint in thinned(checkpoints)))


def thinned(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Return the newest thousand, and of older ones the first of each hour."""
    hours: dict[datetime, Checkpoint] = {}
    for checkpoint in checkpoints[:-_NEWEST]:
        hours.setdefault(checkpoint.at.replace(minute=0, second=0, microsecond=0), checkpoint)
    return [*hours.values(), *checkpoints[-_NEWEST:]][-_MOST:]


def _end_line(handle: int) -> None:
    """Remove an incomplete last line, left by a crash."""
    size = os.fstat(handle).st_size
    if size and os.pread(handle, 1, size - 1) != b"\n":
        os.ftruncate(handle, os.pread(handle, size, 0).rfind(b"\n") + 1)
