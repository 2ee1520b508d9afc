"""Moves the embedded database's log into its file: by one connection alone, while nobody writes.

SQLite would let every connection do it after its commits. Versions before 3.51.3 may then pass over committed rows
where two do it at once, or one begins the log anew meanwhile (the WAL-reset bug). So here connections never do it by
themselves; one thread of one process does, whichever holds the lock, and holds SQLite's write lock meanwhile: nobody
else can begin the log anew then, in whichever process.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections import deque
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from receiver.core import DatabaseUnavailable
from receiver.db.sqlite import connect, identity, log_of, open_files, sqlite3
from receiver.observability import get_logger

if TYPE_CHECKING:
    from pathlib import Path

_log = get_logger(__name__)

_LOOK_SECONDS = 0.25
_EAGER_SECONDS = 0.02  # where the log is to be emptied
_BUSY_SECONDS = 2.0  # for another process's transaction to end; then it is tried again at the next look
_TRUNCATE_SECONDS = 60.0
_LOG_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24


class WriteTurns:
    """A lock that is handed over in the order in which it was asked for: nobody waits longer than those before."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._held = False
        self._waiting: deque[threading.Lock] = deque()

    def acquire(self, timeout: float) -> bool:
        """Take it, and return True; False: not in that many seconds."""
        with self._changing:
            if not self._held:
                self._held = True
                return True
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        if turn.acquire(timeout=timeout):
            return True
        with self._changing:
            if turn in self._waiting:
                self._waiting.remove(turn)
                return False
            return True  # it came just now

    def release(self) -> None:
        """Hand it over."""
        with self._changing:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._held = False


@cache
def write_turns(_path: Path) -> WriteTurns:
    """Return whose turn it is to write to a file, for all of this process.

    SQLite has one writer at a time and lets the others poll with growing pauses; a lock hands over at once.
    """
    return WriteTurns()


@cache
def checkpointer(path: Path) -> Checkpointer:
    """Return the checkpointer of a database's file, one for all of this process."""
    return Checkpointer(path)


class Checkpointer:
    """Looks four times a second whether the log has grown, and moves it into the file. Safe for many threads.

    Nothing is opened and no thread starts before `serve`, so that it may be made before a fork.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock_path = path.with_name(f"{path.name}-checkpoint")
        # Who wants the log emptied, in whichever process, makes this; it is removed once that is done.
        self._request = path.with_name(f"{path.name}-truncate")
        self._changing = threading.Lock()
        self._users: set[int] = set()
        self._pid: int | None = None  # of the process whose thread runs
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._fault: str | None = None  # of the last look

    def serve(self, user: object) -> None:
        """Begin to look after the log for `user`; nothing happens where it has begun."""
        if self._pid == os.getpid() and id(user) in self._users:
            return
        with self._changing:
            if self._pid != os.getpid():
                self._users = set()
                self._pid = os.getpid()
                self._thread = None
            self._users.add(id(user))
            if self._thread is None:
                self._stopping = threading.Event()
                self._thread = threading.Thread(
                    target=self._run, args=(self._stopping,), name="checkpointer", daemon=True
                )
                self._thread.start()

    def leave(self, user: object) -> None:
        """End the thread with the last of those that it serves."""
        with self._changing:
            self._users.discard(id(user))
            if self._users or self._pid != os.getpid() or self._thread is None:
                return
            thread, self._thread = self._thread, None
            self._stopping.set()
        thread.join()

    def truncate(self) -> None:
        """Have all of the log moved and the log emptied, by whoever does that.

        Raises StoreUnavailable where somebody reads an old state of the database for too long.
        """
        user = object()
        try:
            self._request.touch(mode=0o600)
        except OSError as error:
            raise DatabaseUnavailable(f"{self._request} cannot be made ({error.strerror})") from error
        self.serve(user)
        try:
            deadline = time.monotonic() + _TRUNCATE_SECONDS
            while self._request.exists():
                if time.monotonic() > deadline:
                    self._request.unlink(missing_ok=True)
                    why = self._fault or "an old state of the database is being read"
                    raise DatabaseUnavailable(f"the database's log was not emptied: {why}; run this again")
                time.sleep(0.02)
        finally:
            self.leave(user)

    def _run(self, stopping: threading.Event) -> None:
        work: _Work | None = None
        while not stopping.wait(_EAGER_SECONDS if self._request.exists() else _LOOK_SECONDS):
            try:
                work = work or _Work(self._path, self._lock_path, self._request)
                work.look()
                self._fault = None
            except Exception as error:  # noqa: BLE001  (the edge of the thread: whatever it was, the next look begins anew)
                reason = error.strerror if isinstance(error, OSError) else str(error)
                if reason != self._fault:
                    _log.warning("the log was not moved into the database", reason=reason)
                self._fault = reason
                if work is not None and not isinstance(error, FileNotFoundError):
                    work.close()
                    work = None
                stopping.wait(_LOOK_SECONDS)
        if work is not None:
            work.close()


class _Work:
    """What a checkpointer's thread has open. Raises OSError and the library's `Error`."""

    def __init__(self, path: Path, lock_path: Path, request: Path) -> None:
        self._path = path
        self._log = log_of(path)
        self._request = request
        self._turns = write_turns(path)
        self._files = open_files(path)
        self._handle = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._holds = False
        self._guard: Any = None
        self._mover: Any = None
        self._seen: int | None = None
        self._opened: tuple[int, int] | None = None  # the file that they are open on

    def look(self) -> None:
        """Move the log where it has grown since it was moved, and where this process is the one that does."""
        if not self._holds:
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            self._holds = True
        wanted = self._request.exists()
        written = self._log_written()
        if written is None:  # the last connection was closed, which moved and removed it
            self._request.unlink(missing_ok=True)
            return
        if written == self._seen and not wanted:
            return
        if not self._turns.acquire(timeout=_BUSY_SECONDS):
            return
        try:
            self._open()
            self._move()
            if wanted and self._begin_anew():
                self._request.unlink(missing_ok=True)
        finally:
            self._turns.release()

    def close(self) -> None:
        """Let another process do it."""
        self._leave()
        os.close(self._handle)

    def _log_written(self) -> int | None:
        try:
            return self._log.stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def _open(self) -> None:
        """Have two connections to the file. Raises FileNotFoundError where it is not the one that was opened."""
        found = identity(self._path)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if self._opened is not None:
            if self._opened != found:  # its log belongs to the other
                raise FileNotFoundError(errno.ENOENT, "the database's file was replaced")
            return
        self._files.require_same()
        self._guard = connect(self._path, timeout_seconds=_BUSY_SECONDS)
        self._files.note_opened(self)
        self._mover = connect(self._path, timeout_seconds=_BUSY_SECONDS)
        self._opened = found

    def _leave(self) -> None:
        self._opened = self._seen = None
        self._files.note_closing(self)
        for connection in (self._mover, self._guard):
            if connection is not None:
                with suppress(sqlite3.Error):
                    connection.close()
        self._mover = self._guard = None

    def _move(self) -> None:
        """Move what no reader is in the way of."""
        self._guard.execute("BEGIN IMMEDIATE")
        try:
            seen = self._log_written()
            _, frames, moved = self._mover.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        finally:
            self._guard.execute("ROLLBACK")
        # Where a reader was in the way, the rest is for the next look, whether or not anything is written meanwhile.
        self._seen = seen if frames == moved else None

    def _begin_anew(self) -> bool:
        """Begin the log anew and cut it; False: a reader is in the way, or another process has written again."""
        self._guard.execute("PRAGMA journal_size_limit=0")
        self._guard.execute("BEGIN IMMEDIATE")
        self._guard.execute("PRAGMA user_version=0")  # writes one page: only a writer begins a log anew
        self._guard.execute("COMMIT")
        self._move()
        (page_bytes,) = self._guard.execute("PRAGMA page_size").fetchone()
        return (
            self._seen is not None and self._log.stat().st_size <= _LOG_HEADER_BYTES + _FRAME_HEADER_BYTES + page_bytes
        )
