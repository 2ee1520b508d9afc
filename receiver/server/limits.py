"""Connection limits of a process, derived from its open-file limit."""

from __future__ import annotations

import resource
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

_CONNECTIONS_MAX = 4096
_ENDED_MAX = 1024
_OWN_FILES = 256  # database, spool, logs, metrics, outgoing HTTP; a soak test used 66


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The limits of one process."""

    connections: int  # in use
    internal: int  # of these, reserved for the internal listener if it is separate
    send_proxy: int  # … and for the send proxy
    ended: int  # shut-down connections of each kind: leaving, or sending the last response

    @classmethod
    def within(cls, files: int) -> Self:
        """Return the limits for this number of open files."""
        ended = min(_ENDED_MAX, files // 10)
        connections = min(_CONNECTIONS_MAX, files - min(_OWN_FILES, files // 2) - 2 * ended)
        return cls(connections=connections, internal=connections // 8, send_proxy=connections // 8, ended=ended)


def raise_open_files() -> None:
    """Raise the open-file limit of this process and its children to the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # not permitted: keep the present limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def open_files() -> int:
    """Return the open-file limit of this process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _CONNECTIONS_MAX * 4 if soft == resource.RLIM_INFINITY else soft
