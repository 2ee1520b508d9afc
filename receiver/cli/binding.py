"""Whether `serve` can listen where it is to, found out before anybody is told that it does."""

from __future__ import annotations

import errno
import os
import socket
import time

from receiver.cli.listeners import find_listener
from receiver.config import Settings, address_text
from receiver.core import SettingsError

_BINDS = ("bind", "internal_bind", "send_proxy_bind")
_HANDED_OVER = ("LISTEN_FDS", "GUNICORN_FD")  # by systemd, or by the server before this one: nothing is bound anew
_PATIENCE_SECONDS = 2.0  # for a server that is just ending
_LOOK_SECONDS = 0.2
_FAULTS = {
    errno.EADDRNOTAVAIL: "is no address of this machine; 0.0.0.0 is every one of it, 127.0.0.1 this machine alone",
    errno.EACCES: "may not be listened on by this user; take a port from 1024 on, and a proxy in front",
}


def require_free(settings: Settings) -> None:
    """Raise SettingsError, naming every listener whose address cannot be had."""
    if any(name in os.environ for name in _HANDED_OVER):
        return
    until = time.monotonic() + _PATIENCE_SECONDS
    binds = {f"RECEIVER_{name.upper()}": bind for name in _BINDS if (bind := getattr(settings, name)) is not None}
    faults = [f"{name}: {fault}" for name, bind in binds.items() if (fault := _await(name, bind, until))]
    if faults:
        raise SettingsError("; ".join(faults))


def _await(name: str, bind: tuple[str, int], until: float) -> str | None:
    while True:
        try:
            _listen(bind)
        except socket.gaierror:
            return f"the name {bind[0]} is not known; write an address, such as 127.0.0.1 or 0.0.0.0"
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() >= until:
                if error.errno == errno.EADDRINUSE:
                    return _taken(name, bind)
                return f"{address_text(bind)} {_FAULTS.get(error.errno or 0, error.strerror)}"
            time.sleep(_LOOK_SECONDS)
        else:
            return None


def _taken(name: str, bind: tuple[str, int]) -> str:
    """Say who has an address, and how to take another."""
    host, port = socket.getaddrinfo(*bind, type=socket.SOCK_STREAM)[0][4][:2]
    found = find_listener(str(host), int(port))
    by = "another program (`ss -ltnp` names it)" if found is None else f"{found[1]} (pid {found[0]})"
    return f"{address_text(bind)} is taken by {by}; choose another port: {name}={address_text((bind[0], 0))[:-1]}PORT"


def _listen(bind: tuple[str, int]) -> None:
    """Listen for a moment, as gunicorn will. Raises OSError."""
    family = socket.AF_INET6 if ":" in bind[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(bind)
        probe.listen(1)  # two may be bound to one port with SO_REUSEADDR, and only one of them listens
