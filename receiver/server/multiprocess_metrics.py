"""Metrics summed over the serving processes of one master, including dead ones.

Each process counts in its own memory-mapped files (prometheus_client's multiprocess mode), so a crash loses nothing. A
file belongs to a slot, not to a process: the successor of a dead process continues with its counts. So no counter ever
falls, and there are only as many files as processes at once.

The files are in /dev/shm if it exists. On a disk, writing a page may wait for the file system's journal, and every push
with it; and a page without room on a full disk kills the process. So the files are preallocated.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client.multiprocess import mark_process_dead

from receiver.core import lock, try_lock
from receiver.observability import get_logger, metrics, processes

if TYPE_CHECKING:
    from collections.abc import Collection

_log = get_logger(__name__)

_PREFIX = "receiver-metrics-"
_MEMORY = Path("/dev/shm")  # noqa: S108  (created by mkdtemp, for this user only)
# At most half of each is filled, even if every route is requested in every way. A file that is too small would grow
# without being preallocated.
_KINDS = {
    "counter": 1 << 19,
    "histogram": 1 << 20,
    "gauge_max": 1 << 16,
    "gauge_livemin": 1 << 16,
    "gauge_livesum": 1 << 16,
}


class MultiprocessMetrics:
    """The metric files of one master's processes. Created by the master, before any fork."""

    def __init__(self, data_dir: Path) -> None:
        place = _MEMORY if os.access(_MEMORY, os.W_OK) else data_dir
        _remove_left_behind(place)
        self._owner = os.getpid()
        self.directory: Path | None = None  # None: no room, each process counts separately
        self._lock = -1
        try:
            self._make(place)
        except OSError as error:
            _log.warning("metrics are per process: no shared directory", reason=error.strerror)

    def assign_slot(self, used: Collection[int]) -> int | None:
        """Return the lowest unused slot for a new process; None: it counts separately."""
        slot = next(number for number in range(len(used) + 1) if number not in used)
        if self.directory is None:
            return None
        self.release_slot(slot)
        try:
            for kind, size in _KINDS.items():
                _preallocate(self.directory / f"{kind}_{slot}.db", size)
        except OSError as error:
            _log.warning("metrics of one process are not summed with the others", reason=error.strerror)
            return None
        return slot

    def release_slot(self, slot: int) -> None:
        """Remove the gauges of a dead process, and the note of it."""
        if self.directory is not None:
            mark_process_dead(slot, str(self.directory))
            processes.drop_process(self.directory, str(slot))

    def start_counting(self, slot: int | None) -> None:
        """Use that slot from now on; called once, in the new process."""
        if slot is not None and self.directory is not None:
            metrics.start_in_files(self.directory, slot)
            processes.note_process(self.directory, str(slot))
        metrics.PROCESS_STARTS.inc()
        metrics.PROCESSES.set(1)

    def close(self) -> None:
        """Remove the directory after its processes have ended; does nothing in a worker."""
        if self.directory is not None and os.getpid() == self._owner:
            shutil.rmtree(self.directory, ignore_errors=True)
            os.close(self._lock)
            self.directory = None

    def _make(self, place: Path) -> None:
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
        # Workers inherit the lock: while one lives, the directory is not removed as left behind.
        self._lock = os.open(directory, os.O_RDONLY)
        lock(self._lock)
        self.directory = directory
        processes.note_process(directory, processes.MASTER)


def _preallocate(path: Path, size: int) -> None:
    if path.exists():
        return
    # Under another name until it has its size: a scrape meanwhile could not read an empty file, and would fail.
    empty = path.with_suffix(".new")
    file = os.open(empty, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(file, 0, size)
    finally:
        os.close(file)
    empty.rename(path)


def _remove_left_behind(place: Path) -> None:
    """Remove the directories of killed masters."""
    for directory in place.glob(f"{_PREFIX}*"):
        try:
            handle = os.open(directory, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            continue  # another user's
        try:
            if try_lock(handle) and os.fstat(handle).st_uid == os.geteuid():
                shutil.rmtree(directory, ignore_errors=True)
        finally:
            os.close(handle)
