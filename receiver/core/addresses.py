"""Where a syslog server listens, as it is set."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

KINDS = {"unix": None, "udp": 514, "tcp": 601, "tls": 6514}  # and their usual ports


@dataclass(frozen=True, kw_only=True, slots=True)
class SyslogAddress:
    """Where a server listens."""

    kind: str
    host: str = ""
    port: int = 0
    path: str = ""  # of a Unix socket

    def __str__(self) -> str:
        """As it is set."""
        return f"unix:{self.path}" if self.kind == "unix" else f"{self.kind}://{self.host}:{self.port}"


def parse_address(text: str) -> SyslogAddress:
    """Read `unix:/dev/log`, `udp://host:514`, `tcp://host:601` or `tls://host:6514`. Raises ValueError."""
    kind, _, rest = text.partition(":")
    if kind == "unix" and rest.startswith("/"):
        return SyslogAddress(kind=kind, path=rest)
    parts = urlsplit(text)
    usual = KINDS.get(kind)
    if usual is None or not parts.hostname or parts.path or parts.query or parts.username:
        raise ValueError("not unix:/PATH, udp://HOST:PORT, tcp://HOST:PORT or tls://HOST:PORT")
    return SyslogAddress(kind=kind, host=parts.hostname, port=parts.port or usual)
