"""TLS handshakes: which version a server speaks, and the certificates that it shows."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass

from cryptography import x509


@dataclass(frozen=True, kw_only=True, slots=True)
class Handshake:
    """The result of a TLS handshake."""

    version: str
    chain: tuple[x509.Certificate, ...]  # as it was sent: the server's own first


def shake_hands(
    address: tuple[str, int], *, tls: ssl.SSLContext, name: str | None, timeout_seconds: float
) -> Handshake:
    """Return the result of a TLS handshake; `name` None: without SNI. Raises OSError."""
    with (
        socket.create_connection(address, timeout=timeout_seconds) as plain,
        tls.wrap_socket(plain, server_hostname=name) as connection,
    ):
        return Handshake(version=connection.version() or "", chain=_chain(connection))


def _chain(connection: ssl.SSLSocket) -> tuple[x509.Certificate, ...]:
    # Public from Python 3.13 on; before that in the inner object alone.
    found = getattr(connection, "get_unverified_chain", None) or connection._sslobj.get_unverified_chain  # type: ignore[attr-defined]  # noqa: SLF001
    encoded = [each if isinstance(each, bytes) else ssl.PEM_cert_to_DER_cert(each.public_bytes()) for each in found()]
    return tuple(x509.load_der_x509_certificate(each) for each in encoded)
