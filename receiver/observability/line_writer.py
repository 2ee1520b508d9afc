"""Writes log lines to a file descriptor from its own thread, so that no caller ever waits."""

from __future__ import annotations

import os
import select
import stat
import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_WAITING_MAX_BYTES = 4 * 1024 * 1024  # some ten thousand lines
_GATHER_SECONDS = 0.05  # lines that arrive meanwhile are written together
_POLL_SECONDS = 0.005
FLUSH_SECONDS = 2.0  # for the last lines, if nothing reads the descriptor
_PIPE_MAX_BYTES = select.PIPE_BUF  # written to a pipe in one piece, even if other processes write to it


class LineWriter:
    """Writes lines in order. Safe for many threads, signal handlers and forks.

    Lines that are not read fast enough are dropped and counted: `render_dropped` returns the line that reports them,
    written with the next ones. So an unread pipe, a full disk or a closed descriptor does not slow the callers.

    The thread starts with the first line, in whichever process that is; a forked child starts with no pending lines.
    """

    def __init__(self, fd: int, render_dropped: Callable[[int], str], *, max_bytes: int = _WAITING_MAX_BYTES) -> None:
        self._fd = fd
        self._max_bytes = max_bytes
        self._render_dropped = render_dropped
        self._torn = False  # half a line stands there already
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        # A thread of the parent may have held either lock; the parent writes the pending lines.
        self._lock = threading.RLock()  # a signal's handler may write while its thread does
        self._waiting: SimpleQueue[bytes] = SimpleQueue()
        self._waiting_bytes = 0
        self._dropped = self._uncounted = 0
        self._thread: threading.Thread | None = None

    def write(self, lines: str) -> None:
        """Queue whole lines; they are written a moment later, or dropped."""
        data = lines.encode(errors="backslashreplace")
        with self._lock:
            if self._waiting_bytes + len(data) > self._max_bytes:
                self._drop(data)
                return
            self._waiting_bytes += len(data)
            self._waiting.put(data)
            if self._thread is None:
                self._start()

    def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Wait until all lines are written, or that many seconds."""
        deadline = time.monotonic() + seconds
        while self._waiting_bytes and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)

    def take_dropped(self) -> int:
        """Return how many lines were dropped since this was last asked."""
        if not self._uncounted:
            return 0
        with self._lock:
            count, self._uncounted = self._uncounted, 0
        return count

    def _drop(self, data: bytes) -> None:
        count = data.count(b"\n")
        with self._lock:
            self._dropped += count
            self._uncounted += count

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name=f"writer of {self._fd}", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no thread can be had now: the next line tries again
            self._thread = None

    def _run(self) -> None:
        while True:
            taken = [self._waiting.get()]
            time.sleep(_GATHER_SECONDS)
            while not self._waiting.empty():
                taken.append(self._waiting.get())
            self._write_dropped()
            for block in _blocks(taken, pipe=_is_pipe(self._fd)):
                try:
                    self._write_whole(block)
                except OSError:
                    self._drop(block)
                with self._lock:
                    self._waiting_bytes -= len(block)

    def _write_dropped(self) -> None:
        with self._lock:
            count, self._dropped = self._dropped, 0
        if not count:
            return
        try:
            self._write_whole(self._render_dropped(count).encode())
        except OSError:
            with self._lock:
                self._dropped += count

    def _write_whole(self, block: bytes) -> None:
        left = b"\n" + block if self._torn else block
        while left:
            try:
                written = os.write(self._fd, left)
            except BlockingIOError:  # another process that shares it set it so
                waits = select.poll()
                waits.register(self._fd, select.POLLOUT)
                waits.poll()
                continue
            if written:
                self._torn = not left[:written].endswith(b"\n")
            left = left[written:]


def _is_pipe(fd: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(fd).st_mode)
    except OSError:
        return False


def _blocks(pieces: Sequence[bytes], *, pipe: bool) -> Iterator[bytes]:
    """Return the lines in blocks cut at line ends, so that no other process's line comes between."""
    data = b"".join(pieces)
    begin = 0
    while begin < len(data):
        end = len(data)
        if pipe and end - begin > _PIPE_MAX_BYTES:
            end = data.rfind(b"\n", begin, begin + _PIPE_MAX_BYTES) + 1 or data.find(b"\n", begin) + 1 or end
        yield data[begin:end]
        begin = end
