"""Sends lines to a syslog server: RFC 5424, over a Unix socket, UDP, TCP or TLS (RFC 5425, 5426, 6587)."""

from __future__ import annotations

import fcntl
import socket
import ssl
import struct
import termios
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from typing import Self

    from receiver.core import SyslogAddress

_PATIENCE_SECONDS = 10.0
_NAME_MAX_CHARS = 32
_PRIORITY = 13 * 8 + 6  # log audit, informational
_ENTERPRISE = 32473  # the number for examples, RFC 5612


class SyslogError(Exception):
    """The server rejected a message, or cannot be reached; the text says why."""


def write_line(*, at: datetime, host: str, app: str, name: str, data: Mapping[str, object], message: str) -> bytes:
    """Return one message as a line; `data` becomes structured data, `message` must be ASCII."""
    fields = " ".join(f'{key}="{_escaped(str(value))}"' for key, value in data.items())
    header = f"<{_PRIORITY}>1 {at.isoformat(timespec='milliseconds')} {_name(host, 255)} {app} - {_name(name)}"
    return f"{header} [{app}@{_ENTERPRISE} {fields}] {message}".encode(errors="replace")


def _escaped(text: str) -> str:
    plain = "".join(character if character.isprintable() else "�" for character in text)
    return plain.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")


def _name(text: str, most: int = _NAME_MAX_CHARS) -> str:
    return "".join(character for character in text if "!" <= character <= "~")[:most] or "-"


class SyslogConnection:
    """A connection to a syslog server, open until closed or failed. Raises SyslogError."""

    def __init__(self, address: SyslogAddress, *, tls: ssl.SSLContext | None = None) -> None:
        self._address = address
        try:
            self._socket = _connect(address, tls)
        except OSError as error:
            raise SyslogError(f"{address}: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, lines: Sequence[bytes]) -> None:
        """Send lines in order; over TCP and TLS, return once the server's machine has confirmed all of them.

        Raises SyslogError.
        """
        try:
            if self._address.kind in ("unix", "udp"):
                for line in lines:
                    self._socket.send(line)
                return
            self._socket.sendall(b"".join(b"%d %s" % (len(line), line) for line in lines))
            self._await_confirmed()
        except OSError as error:
            raise SyslogError(f"{self._address}: {error}") from None

    def require_open(self) -> None:
        """Raise SyslogError if the server has closed."""
        if self._address.kind in ("unix", "udp"):
            return
        self._socket.settimeout(0)
        try:
            while self._socket.recv(4096):
                pass  # TLS's own records; a syslog server sends nothing
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError as error:
            raise SyslogError(f"{self._address}: {error}") from None
        finally:
            self._socket.settimeout(_PATIENCE_SECONDS)
        raise SyslogError(f"{self._address}: it closed the connection")

    def _await_confirmed(self) -> None:
        """Wait until the kernel has no unacknowledged bytes: syslog has no answer, and those may never have arrived."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while struct.unpack("i", fcntl.ioctl(self._socket, termios.TIOCOUTQ, b"\0" * 4))[0]:
            self.require_open()
            if time.monotonic() > deadline:
                raise SyslogError(f"{self._address}: it confirmed nothing within {_PATIENCE_SECONDS:.0f} s")
            time.sleep(0.005)
        self.require_open()


def _connect(address: SyslogAddress, tls: ssl.SSLContext | None) -> socket.socket:
    if address.kind in ("unix", "udp"):
        if address.kind == "unix":
            plain = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            target: object = address.path
        else:
            family, kind, _, _, target = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)[0]
            plain = socket.socket(family, kind)
        plain.settimeout(_PATIENCE_SECONDS)
        plain.connect(target)  # type: ignore[arg-type]
        return plain
    plain = socket.create_connection((address.host, address.port), timeout=_PATIENCE_SECONDS)
    if address.kind == "tcp":
        return plain
    try:
        return (tls or ssl.create_default_context()).wrap_socket(plain, server_hostname=address.host)
    except OSError:
        plain.close()
        raise
