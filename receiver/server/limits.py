"""How many connections a process may hold: what the system leaves of open files, shared out."""

from __future__ import annotations

import resource
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

_CONNECTIONS_MAX = 4096
_ENDED_MAX = 1024
_OWN_FILES = 256  # database, spool, logs, metrics, calls to others; a soak of all of them held 66


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Shares of one process."""

    connections: int  # in use
    inside: int  # of these, kept free for the house's own listener where it is apart
    door: int  # … and for the senders'
    ended: int  # of each kind of ended one: told, or its last answer under way

    @classmethod
    def within(cls, files: int) -> Self:
        """Share out so many open files."""
        ended = min(_ENDED_MAX, files // 10)
        connections = min(_CONNECTIONS_MAX, files - min(_OWN_FILES, files // 2) - 2 * ended)
        return cls(connections=connections, inside=connections // 8, door=connections // 8, ended=ended)


def raise_open_files() -> None:
    """Let this process and its children open as many files as they may: a shell's soft limit is for its users."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # where it may not be asked for, what there is has to do
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def open_files() -> int:
    """Return how many files this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _CONNECTIONS_MAX * 4 if soft == resource.RLIM_INFINITY else soft
