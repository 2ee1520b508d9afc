"""Ports of this machine that nobody listens on.

They are below those that the system gives to outgoing connections, and each worker of a run has a range of its own:
between choosing one and listening on it, nothing else takes it.
"""

from __future__ import annotations

import itertools
import os
import random
import socket
from contextlib import ExitStack

_FIRST, _AFTER = 10_000, 32_768  # ip_local_port_range begins there
_RANGES = 8
_OWN = (_AFTER - _FIRST) // _RANGES

_begin = _FIRST + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _RANGES * _OWN
_next = itertools.count(random.randrange(_OWN))  # another run beside this one has the same ranges


def free_port() -> int:
    """Return one."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Return so many, each another."""
    found: list[int] = []
    with ExitStack() as stack:
        while len(found) < count:
            port = _begin + next(_next) % _OWN
            probe = stack.enter_context(socket.socket())
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue  # in use
            found.append(port)
    return found
