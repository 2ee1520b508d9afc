"""The only access to the embedded database's file: which SQLite is used, and how a connection is set up.

Two SQLite libraries on one file in one process drop each other's locks, so no other module imports one. Older versions
have the WAL-reset bug: see `checkpointer` and `shortcoming`.
"""

from __future__ import annotations

import json
import os
import sqlite3 as _of_python
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakSet

import sqlalchemy as sa
from sqlalchemy import event

from receiver.core import DatabaseUnavailable, mask_inside, texts_in_json

try:
    from pysqlite3 import dbapi2 as _of_wheel
except ImportError:  # few systems have a wheel
    _of_wheel = _of_python

LOG_MAX_BYTES = 32 * 1024 * 1024  # the log shrinks to this once it restarts
CACHE_KIB = 4096  # of each connection, of which there may be thirty; the kernel has the file as well
# WAL-reset bug: fixed in 3.51.3, and in these releases of older lines.
_MENDED = (3, 51, 3)
_MENDED_LINES = ((3, 50, 7), (3, 44, 6))


# A wheel that was built here may have the system's library, as Python has.
sqlite3: Any = _of_wheel if _of_wheel.sqlite_version_info > _of_python.sqlite_version_info else _of_python
VERSION: tuple[int, int, int] = sqlite3.sqlite_version_info


def is_fixed(version: tuple[int, int, int]) -> bool:
    """Return whether a version of SQLite has no WAL-reset bug."""
    return version >= _MENDED or any(version >= line and version[:2] == line[:2] for line in _MENDED_LINES)


def describe() -> str:
    """Return which SQLite serves, for a person."""
    return f"SQLite {'.'.join(map(str, VERSION))} ({'pysqlite3' if sqlite3 is not _of_python else 'of this Python'})"


def shortcoming() -> str | None:
    """Return what the SQLite in use cannot guarantee, and what to do; None: nothing."""
    if is_fixed(VERSION):
        return None
    return (
        "it has the WAL-reset bug, by which a program that is not receiver and writes to the database's file beside it"
        " can lose committed rows; install pysqlite3 0.6.1 or newer, or a Python with SQLite 3.51.3 or newer"
    )


def said() -> str:
    """Return the SQLite in use and what it cannot guarantee, for people."""
    missing = shortcoming()
    return describe() if missing is None else f"{describe()}: {missing}"


def path_of(url: str | sa.URL) -> Path:
    """Return the file of an SQLite database, as its URL names it."""
    return Path(sa.make_url(url).database or "")


def log_of(path: Path) -> Path:
    """Return the write-ahead log of a database's file."""
    return path.with_name(f"{path.name}-wal")


def log_bytes(path: Path) -> int:
    """Return the size of a database's log; 0: there is none."""
    try:
        return log_of(path).stat().st_size
    except OSError:
        return 0


def set_up(connection: Any, *, cache_kib: int = CACHE_KIB) -> None:
    """Prepare a new connection of this module's library.

    Commits are durable and checkpoints are left to `checkpointer`. Deleted rows are overwritten (secure_delete):
    erasure promises it, and not every build has it on.
    """
    connection.isolation_level = None  # transactions are begun where they are meant, not guessed by the driver
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "wal_autocheckpoint=0",
        f"journal_size_limit={LOG_MAX_BYTES}",
        "secure_delete=ON",
        f"cache_size=-{cache_kib}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _texts_in_json(stored: str | None, in_full: int) -> str | int:
    """Write `core.texts_in_json` of a column. 0, which is no text: the value is damaged, and its row is left out."""
    try:
        return texts_in_json(json.loads(stored or "{}"), in_full=bool(in_full))
    except (ValueError, TypeError, AttributeError):
        return 0


def connect(path: Path, *, timeout_seconds: float) -> Any:
    """Open a connection to write to a database's file without SQLAlchemy. Raises the library's `Error`."""
    connection = sqlite3.connect(path, timeout=timeout_seconds, isolation_level=None, check_same_thread=False)
    set_up(connection)
    return connection


def connect_to_read(path: Path) -> Any:
    """Open a read-only connection. Raises the library's `Error`."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def connect_unchanging(path: Path) -> Any:
    """Open a file without writers, so that no other file is created beside it. Raises the library's `Error`."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)


class OpenFiles:
    """The database's file and its log, as they were when opened. Safe for many threads.

    SQLite continues with a file that was moved, removed or replaced, and its commits are lost with its last connection.
    A connection to a new file at the same path would use the log of the old one. So no connection is made then: all
    pushes go to the spool until a restart.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log = log_of(path)
        self._known: tuple[int, int] | None = None
        self._known_log: tuple[int, int] | None = None
        # Weak: an engine that is dropped without being closed takes its connections with it.
        self._holders: WeakSet[object] = WeakSet()
        self._lock = threading.Lock()

    def note_opened(self, holder: object) -> None:
        """Record what the connections of `holder` have opened."""
        with self._lock:
            self._forget_log()
            self._holders.add(holder)
            self._known = self._known or identity(self._path)
            self._known_log = self._known_log or identity(self._log)

    def note_closing(self, holder: object) -> None:
        """Record that `holder` is about to close. Takes no lock: it may run during garbage collection."""
        self._holders.discard(holder)

    def forget(self) -> None:
        """Start again, once every connection is closed."""
        with self._lock:
            if not self._holders:
                self._known = None

    def require_same(self) -> None:
        """Raise DatabaseUnavailable where the files at their paths are not those that are open."""
        with self._lock:
            self._forget_log()
            files = ((self._path, self._known), (self._log, self._known_log))
        for path, known in files:
            if known is not None and identity(path) != known:
                raise DatabaseUnavailable(
                    f"{path} was moved, removed or replaced while it was open; restore it, and restart the receiver"
                )

    def _forget_log(self) -> None:
        """Without a connection the log may rightly go, and come again."""
        if not self._holders:
            self._known_log = None


@cache
def open_files(path: Path) -> OpenFiles:
    """Return the open files of a database in this process, shared by its engines."""
    return OpenFiles(path)


def identity(path: Path) -> tuple[int, int] | None:
    """Return the identity of the file at this path, unique over time; None: there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _make_private(path: Path) -> None:
    """Make a missing file of a database for this user alone, whatever its directory's mode; its log takes the same."""
    with suppress(OSError):  # it is there; or SQLite will say what is wrong
        # None that is there is opened: closing it would drop the locks that this process has on it.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def sqlite_engine(url: str, patience_seconds: float, cache_kib: int, files: OpenFiles | None) -> sa.Engine:
    """Return the engine of an embedded database, whose files are those that `files` knows."""
    engine = sa.create_engine(
        url,
        module=sqlite3,
        hide_parameters=True,
        connect_args={"timeout": patience_seconds, "check_same_thread": False},
        pool_size=20,
    )

    @event.listens_for(engine, "do_connect")
    def _require_the_files_that_are_open(*_args: Any) -> None:
        if files is not None:
            files.require_same()
            _make_private(path_of(url))

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, record: Any) -> None:
        if files is None:
            connection.isolation_level = None
            return
        set_up(connection, cache_kib=cache_kib)
        connection.create_function("mask_inside", 1, mask_inside, deterministic=True)
        connection.create_function("texts_in_json", 2, _texts_in_json, deterministic=True)
        files.note_opened(record)

    @event.listens_for(engine, "close")
    def _note_closing(_connection: Any, record: Any) -> None:
        if files is not None:
            files.note_closing(record)

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # A transaction that begins as a reader and then writes can fail without waiting: so writers begin as writers.
        connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))

    return engine
