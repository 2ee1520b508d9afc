"""Check that `serve` can listen on its addresses, before it announces them."""

from __future__ import annotations

import errno
import os
import socket
import time

from receiver.cli.listeners import find_listener
from receiver.config import Settings, address_text
from receiver.core import SettingsError

_BINDS = ("bind", "internal_bind", "send_proxy_bind")
_HANDED_OVER = ("LISTEN_FDS", "GUNICORN_FD")  # sockets of systemd or of the previous server: nothing to bind
_PATIENCE_SECONDS = 2.0  # for a server that is still stopping
_RETRY_SECONDS = 0.2
_FAULTS = {
    errno.EADDRNOTAVAIL: "is not on this machine; use 0.0.0.0 for all its addresses, 127.0.0.1 for local access only",
    errno.EACCES: "is not allowed for this user; use a port from 1024 on, with a proxy in front",
}


def require_free(settings: Settings) -> None:
    """Raise SettingsError naming every listener whose address is not available."""
    if any(name in os.environ for name in _HANDED_OVER):
        return
    until = time.monotonic() + _PATIENCE_SECONDS
    binds = {f"RECEIVER_{name.upper()}": bind for name in _BINDS if (bind := getattr(settings, name)) is not None}
    faults = [f"{name}: {fault}" for name, bind in binds.items() if (fault := _find_fault(name, bind, until))]
    if faults:
        raise SettingsError("; ".join(faults))


def _find_fault(name: str, bind: tuple[str, int], until: float) -> str | None:
    while True:
        try:
            _listen(bind)
        except socket.gaierror:
            return f"the host {bind[0]} does not resolve; use an address, such as 127.0.0.1 or 0.0.0.0"
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() >= until:
                if error.errno == errno.EADDRINUSE:
                    return _in_use(name, bind)
                return f"{address_text(bind)} {_FAULTS.get(error.errno or 0, error.strerror)}"
            time.sleep(_RETRY_SECONDS)
        else:
            return None


def _in_use(name: str, bind: tuple[str, int]) -> str:
    """Return which process uses an address, and how to choose another."""
    host, port = socket.getaddrinfo(*bind, type=socket.SOCK_STREAM)[0][4][:2]
    listener = find_listener(str(host), int(port))
    by = "another program (`ss -ltnp` names it)" if listener is None else f"{listener[1]} (pid {listener[0]})"
    return f"{address_text(bind)} is in use by {by}; choose another port: {name}={address_text((bind[0], 0))[:-1]}PORT"


def _listen(bind: tuple[str, int]) -> None:
    """Listen briefly, with gunicorn's options. Raises OSError."""
    family = socket.AF_INET6 if ":" in bind[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(bind)
        probe.listen(1)  # SO_REUSEADDR lets two sockets bind to one port, but only one listen
