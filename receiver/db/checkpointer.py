"""Moves the embedded database's log into its file: by one connection alone, while there are no writers.

SQLite would let every connection do it after its commits. Versions before 3.51.3 may then lose committed rows if two do
it at once, or if one restarts the log meanwhile (the WAL-reset bug). So connections here never do it themselves. One
thread of one process, the holder of the lock, does it. It holds SQLite's write lock meanwhile, so that no process can
restart the log.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import deque
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from receiver.core import DatabaseUnavailable, try_lock
from receiver.db.sqlite import connect, identity, log_of, open_files, sqlite3
from receiver.observability import get_logger

if TYPE_CHECKING:
    from pathlib import Path

_log = get_logger(__name__)

_CHECK_SECONDS = 0.25
_EAGER_SECONDS = 0.02  # while a truncation is requested
_BUSY_SECONDS = 2.0  # for another process's transaction to end; else tried again at the next check
_TRUNCATE_SECONDS = 60.0
_LOG_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24


class WriteTurns:
    """A lock that is granted in the order of the requests: first come, first served."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._held = False
        self._waiting: deque[threading.Lock] = deque()

    def acquire(self, timeout: float) -> bool:
        """Acquire the lock; return False after that many seconds without it."""
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
            return True  # granted just now

    def release(self) -> None:
        """Pass the lock to the next in the queue."""
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
    """Checks four times a second whether the log has grown, and moves it into the file. Safe for many threads.

    Nothing is opened and no thread starts before `serve`, so it may be created before a fork.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock_path = path.with_name(f"{path.name}-checkpoint")
        # Any process that needs the log emptied creates this file; it is removed once that is done.
        self._request = path.with_name(f"{path.name}-truncate")
        self._changing = threading.Lock()
        self._users: set[int] = set()
        self._pid: int | None = None  # of the process whose thread runs
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._fault: str | None = None  # of the last check

    def serve(self, user: object) -> None:
        """Start the thread for `user`; no effect if it has started."""
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
        """Stop the thread if `user` was the last one."""
        with self._changing:
            self._users.discard(id(user))
            if self._users or self._pid != os.getpid() or self._thread is None:
                return
            thread, self._thread = self._thread, None
            self._stopping.set()
        thread.join()

    def truncate(self) -> None:
        """Have all of the log moved and the log emptied, by the process that holds the lock.

        Raises DatabaseUnavailable if a reader uses an old state of the database for too long.
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
                    why = self._fault or "a reader uses an old state of the database"
                    raise DatabaseUnavailable(f"the database's log was not emptied: {why}; run this again")
                time.sleep(0.02)
        finally:
            self.leave(user)

    def _run(self, stopping: threading.Event) -> None:
        work: _Work | None = None
        while not stopping.wait(_EAGER_SECONDS if self._request.exists() else _CHECK_SECONDS):
            try:
                work = work or _Work(self._path, self._lock_path, self._request)
                work.check()
                self._fault = None
            except Exception as error:  # noqa: BLE001  (the edge of the thread: after any error, the next check starts again)
                reason = error.strerror if isinstance(error, OSError) else str(error)
                if reason != self._fault:
                    _log.warning("the write-ahead log was not moved into the database", reason=reason)
                self._fault = reason
                if work is not None and not isinstance(error, FileNotFoundError):
                    work.close()
                    work = None
                stopping.wait(_CHECK_SECONDS)
        if work is not None:
            work.close()


class _Work:
    """The open files and connections of a checkpointer's thread. Raises OSError and the library's `Error`."""

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
        self._opened: tuple[int, int] | None = None  # the identity of the open file

    def check(self) -> None:
        """Move the log if it has grown since the last time, and if this process holds the lock."""
        if not self._holds:
            self._holds = try_lock(self._handle)
            if not self._holds:
                return
        requested = self._request.exists()
        written = self._log_written()
        if written is None:  # the last connection was closed, which moved and removed it
            self._request.unlink(missing_ok=True)
            return
        if written == self._seen and not requested:
            return
        if not self._turns.acquire(timeout=_BUSY_SECONDS):
            return
        try:
            self._open()
            self._move()
            if requested and self._restart_log():
                self._request.unlink(missing_ok=True)
        finally:
            self._turns.release()

    def close(self) -> None:
        """Let another process take over."""
        self._leave()
        os.close(self._handle)

    def _log_written(self) -> int | None:
        try:
            return self._log.stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def _open(self) -> None:
        """Open two connections to the file. Raises FileNotFoundError if it is not the file that was opened."""
        current = identity(self._path)
        if current is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if self._opened is not None:
            if self._opened != current:  # the log belongs to the other file
                raise FileNotFoundError(errno.ENOENT, "the database's file was replaced")
            return
        self._files.require_same()
        self._guard = connect(self._path, timeout_seconds=_BUSY_SECONDS)
        self._files.note_opened(self)
        self._mover = connect(self._path, timeout_seconds=_BUSY_SECONDS)
        self._opened = current

    def _leave(self) -> None:
        self._opened = self._seen = None
        self._files.note_closing(self)
        for connection in (self._mover, self._guard):
            if connection is not None:
                with suppress(sqlite3.Error):
                    connection.close()
        self._mover = self._guard = None

    def _move(self) -> None:
        """Move every frame that no reader blocks."""
        self._guard.execute("BEGIN IMMEDIATE")
        try:
            seen = self._log_written()
            _, frames, moved = self._mover.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        finally:
            self._guard.execute("ROLLBACK")
        # If a reader blocked some, the next check moves the rest, even if nothing is written meanwhile.
        self._seen = seen if frames == moved else None

    def _restart_log(self) -> bool:
        """Restart and truncate the log; False: a reader blocks it, or another process has written again."""
        self._guard.execute("PRAGMA journal_size_limit=0")
        self._guard.execute("BEGIN IMMEDIATE")
        self._guard.execute("PRAGMA user_version=0")  # writes one page: only a writer restarts the log
        self._guard.execute("COMMIT")
        self._move()
        (page_bytes,) = self._guard.execute("PRAGMA page_size").fetchone()
        return (
            self._seen is not None and self._log.stat().st_size <= _LOG_HEADER_BYTES + _FRAME_HEADER_BYTES + page_bytes
        )
