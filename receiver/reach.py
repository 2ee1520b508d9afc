"""What can be reached from here: a server at all, and for how long its certificate holds."""

from __future__ import annotations

import socket
import ssl
import time
from urllib.parse import urlsplit

_PATIENCE_SECONDS = 2.0
_DAY_SECONDS = 86400
_PORTS = {"http": 80, "https": 443}


def can_connect(url: str) -> bool:
    """Whether the server of a URL takes a connection within two seconds."""
    try:
        socket.create_connection(_address(url), timeout=_PATIENCE_SECONDS).close()
    except OSError:
        return False
    return True


def certificate_days_left(url: str, *, tls: ssl.SSLContext | None = None) -> float | None:
    """Give for how many days the certificate of an https URL holds; 0: it does not. None: there is none to be seen."""
    if urlsplit(url).scheme != "https":
        return None
    context = tls or ssl.create_default_context()
    try:
        with (
            socket.create_connection(_address(url), timeout=_PATIENCE_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=urlsplit(url).hostname) as connection,
        ):
            certificate = connection.getpeercert() or {}
    except ssl.SSLCertVerificationError:
        return 0
    except OSError:
        return None
    ends = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    return max(0.0, (ends - time.time()) / _DAY_SECONDS)


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 443)
