"""The address of a syslog server, as its setting spells it."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

KINDS = {"unix": None, "udp": 514, "tcp": 601, "tls": 6514}  # with their default ports


@dataclass(frozen=True, kw_only=True, slots=True)
class SyslogAddress:
    """The address of a syslog server."""

    kind: str
    host: str = ""
    port: int = 0
    path: str = ""  # of a Unix socket

    def __str__(self) -> str:
        """Return the address as the setting spells it."""
        return f"unix:{self.path}" if self.kind == "unix" else f"{self.kind}://{self.host}:{self.port}"


def parse_address(text: str) -> SyslogAddress:
    """Return the address in `unix:/PATH`, `udp://HOST:514`, `tcp://HOST:601`, `tls://HOST:6514`. Raises ValueError."""
    kind, _, rest = text.partition(":")
    if kind == "unix" and rest.startswith("/"):
        return SyslogAddress(kind=kind, path=rest)
    parts = urlsplit(text)
    usual = KINDS.get(kind)
    if usual is None or not parts.hostname or parts.path or parts.query or parts.username:
        raise ValueError("not unix:/PATH, udp://HOST:PORT, tcp://HOST:PORT or tls://HOST:PORT")
    return SyslogAddress(kind=kind, host=parts.hostname, port=parts.port or usual)
