"""What the serving processes of one master count, added up: by any of them, exactly, whichever of them have died.

Each process counts in files of its own, mapped into memory (prometheus_client's multiprocess mode), so that nothing has
to be handed in before it dies. The files belong to a slot, not to a process: whoever takes over the slot of a dead one
counts on from there. So nothing ever falls, nothing is to be merged, and there are only as many as processes at once.

The files are in memory (/dev/shm) where there is such a place. On a disk, marking a page as changed may wait for the
journal, and with it every push; and a page that finds no room on a full disk ends the process. So they take their room
at the start, too.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import values
from prometheus_client.multiprocess import mark_process_dead

from receiver.observability import get_logger, metrics

if TYPE_CHECKING:
    from collections.abc import Collection

_log = get_logger(__name__)

_PREFIX = "receiver-metrics-"
_MEMORY = Path("/dev/shm")  # noqa: S108  (made by mkdtemp, for this user alone)
_KINDS = ("counter", "histogram", "gauge_max", "gauge_livemin", "gauge_livesum")
_FILE_BYTES = 1 << 16  # as prometheus_client makes them; of a kind, everything fits into a quarter


class MultiprocessMetrics:
    """The place where the processes of one master count. Made by the master, before any fork."""

    def __init__(self, data_dir: Path) -> None:
        place = _MEMORY if os.access(_MEMORY, os.W_OK) else data_dir
        _remove_left_behind(place)
        self._owner = os.getpid()
        self.directory: Path | None = None  # None: there is no room, and each process counts for itself
        self._lock = -1
        try:
            self._make(place)
        except OSError as error:
            _log.warning("metrics are per process: no place to share them", reason=error.strerror)

    def take_slot(self, taken: Collection[int]) -> int | None:
        """Return a new process the lowest slot that no living one has; None: it counts for itself."""
        slot = next(number for number in range(len(taken) + 1) if number not in taken)
        if self.directory is None:
            return None
        self.leave_slot(slot)
        try:
            for kind in _KINDS:
                _take_room(self.directory / f"{kind}_{slot}.db")
        except OSError as error:
            _log.warning("metrics of one process are not counted with the others", reason=error.strerror)
            return None
        return slot

    def leave_slot(self, slot: int) -> None:
        """Forget what was true of a process only while it lived."""
        if self.directory is not None:
            mark_process_dead(slot, str(self.directory))

    def begin(self, slot: int | None) -> None:
        """Count in that slot from now on; called once, in the new process."""
        if slot is not None:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(self.directory)
            values.ValueClass = values.MultiProcessValue(lambda: slot)
            importlib.reload(metrics)
        metrics.PROCESS_STARTS.inc()
        metrics.PROCESSES.set(1)

    def close(self) -> None:
        """Remove the place, once its processes have ended; in any other process than its maker nothing happens."""
        if self.directory is not None and os.getpid() == self._owner:
            shutil.rmtree(self.directory, ignore_errors=True)
            os.close(self._lock)
            self.directory = None

    def _make(self, place: Path) -> None:
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
        # Held by the serving processes too: as long as one of them lives, nobody takes the place for left behind.
        self._lock = os.open(directory, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.directory = directory


def _take_room(path: Path) -> None:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if os.fstat(file).st_size == 0:
            os.posix_fallocate(file, 0, _FILE_BYTES)
    finally:
        os.close(file)


def _remove_left_behind(place: Path) -> None:
    """Remove the places of masters that were killed."""
    for directory in place.glob(f"{_PREFIX}*"):
        try:
            handle = os.open(directory, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            continue  # another user's
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle).st_uid == os.geteuid():
                shutil.rmtree(directory, ignore_errors=True)
        except BlockingIOError:
            pass  # in use
        finally:
            os.close(handle)
