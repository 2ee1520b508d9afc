"""What can be reached from here: a server at all, for how long its certificate holds, and our own server."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from receiver.config import near

if TYPE_CHECKING:
    from receiver.config import Settings

_PATIENCE_SECONDS = 2.0
_OWN_SERVER_SECONDS = 5.0
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


def connection_here(settings: Settings, *, timeout_seconds: float) -> http.client.HTTPConnection:
    """Give a connection, yet to be opened, to the server of these settings on this machine."""
    host, port = near(settings.inside)
    if settings.tls_cert is None:
        return http.client.HTTPConnection(host, port, timeout=timeout_seconds)
    # Its certificate is for the name that others know it by; nobody stands between us and ourselves.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, port, timeout=timeout_seconds, context=context)


def ask_own_server(settings: Settings, path: str) -> tuple[int, bytes]:
    """Ask the server of these settings on this machine; give status and body. Raises OSError."""
    connection = connection_here(settings, timeout_seconds=_OWN_SERVER_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 443)
