"""Network probes: is a server reachable, how long is its certificate valid; our own server."""

from __future__ import annotations

import socket
import ssl
import time
import warnings
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from receiver.config import Settings, near
from receiver.net.egress import open_client
from receiver.net.egress_policy import TargetUrl

if TYPE_CHECKING:
    from receiver.net.egress_client import EgressClient

_PATIENCE_SECONDS = 2.0
_OWN_SERVER_SECONDS = 5.0
_OWN_ANSWER_MAX_BYTES = 16 * 1024 * 1024
_DAY_SECONDS = 86400
_PORTS = {"http": 80, "https": 443}


def can_connect(url: str) -> bool:
    """Return whether the server of a URL accepts a connection within two seconds."""
    try:
        socket.create_connection(_address(url), timeout=_PATIENCE_SECONDS).close()
    except OSError:
        return False
    return True


@dataclass(frozen=True, kw_only=True, slots=True)
class Certificate:
    """A server's certificate, as a client sees it."""

    days_left: float  # 0: it does not hold
    fault: str | None = None  # OpenSSL's reason why it does not


def find_certificate(url: str, *, tls: ssl.SSLContext | None = None) -> Certificate | None:
    """Return the certificate of an https URL, checked as a client does; None: the server shows none."""
    if urlsplit(url).scheme != "https":
        return None
    context = tls or ssl.create_default_context()
    try:
        with (
            socket.create_connection(_address(url), timeout=_PATIENCE_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=urlsplit(url).hostname) as connection,
        ):
            certificate = connection.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        return Certificate(days_left=0, fault=error.verify_message)
    except OSError:
        return None
    ends = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    return Certificate(days_left=max(0.0, (ends - time.time()) / _DAY_SECONDS))


def is_listening(settings: Settings) -> bool:
    """Return whether anything accepts a connection where the server of these settings listens on this machine."""
    try:
        socket.create_connection(near(settings.inside), timeout=_PATIENCE_SECONDS).close()
    except OSError:
        return False
    return True


def own_server(settings: Settings) -> EgressClient:
    """Return a client of the server of these settings on this machine, to be closed."""
    host, port = near(settings.inside)
    scheme = "http" if settings.tls_cert is None else "https"
    # The certificate carries the public name; a local connection has no man in the middle.
    return open_client(TargetUrl(scheme=scheme, host=host, port=port), tls=unverified_context())


def unverified_context(version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """Return a context that accepts every certificate, to inspect it; `version`: the only TLS version offered."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # otherwise old versions would not be offered
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = version or ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = version or ssl.TLSVersion.MAXIMUM_SUPPORTED
    return context


def ask_own_server(settings: Settings, path: str, *, seconds: float = _OWN_SERVER_SECONDS) -> tuple[int, bytes]:
    """Return status and body of the server of these settings on this machine. Raises EgressError."""
    with closing(own_server(settings)) as client:
        answer = client.send("GET", path.encode(), (), seconds=seconds, answer_max_bytes=_OWN_ANSWER_MAX_BYTES)
        return answer.status, answer.body


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 443)
