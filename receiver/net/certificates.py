"""Certificates in files: read, and made ready for a server."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from receiver.core import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography import x509

_OPTIONS = (
    ssl.OP_NO_RENEGOTIATION
    | ssl.OP_NO_COMPRESSION
    # Requests carry their length, so a truncated one is noticed without TLS.
    | ssl.OP_IGNORE_UNEXPECTED_EOF
)


def load_pair(chain: Path, key: Path) -> tuple[ssl.SSLContext, datetime]:
    """Return a context with this certificate, and when it expires. Raises SettingsError, naming the fix."""
    certificate = _leaf(chain)
    now = datetime.now(UTC)
    if certificate.not_valid_after_utc <= now:
        ended = certificate.not_valid_after_utc
        raise SettingsError(f"RECEIVER_TLS_CERT: the certificate in {chain} ended on {ended:%Y-%m-%d}; renew it")
    if certificate.not_valid_before_utc > now:
        begins = certificate.not_valid_before_utc
        raise SettingsError(
            f"RECEIVER_TLS_CERT: the certificate in {chain} begins at {begins:%Y-%m-%dT%H:%M:%SZ} only; "
            "set this machine's clock, or wait until then"
        )

    def password() -> str:
        raise SettingsError(f"RECEIVER_TLS_KEY: {key} is encrypted; decrypt it: openssl pkey -in {key} -out NEW")

    # Python's own ciphers are the ones wanted: forward secrecy in all of them, and those of Java 7 still among them.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= _OPTIONS
    context.set_alpn_protocols(["http/1.1"])
    try:
        key.read_bytes()
        context.load_cert_chain(chain, key, password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise SettingsError(
                f"RECEIVER_TLS_KEY: {key} does not belong to the first certificate in {chain}; name its own key"
            ) from None
        if error.reason in (None, "NO_START_LINE", "PEM_LIB"):
            raise SettingsError(f"RECEIVER_TLS_KEY: {key} holds no private key that can be read; name a PEM") from None
        words = error.reason.replace("_", " ").lower()
        raise SettingsError(f"RECEIVER_TLS_CERT: OpenSSL rejects {chain} with {key}: {words}") from None
    except OSError as error:
        raise SettingsError(
            f"RECEIVER_TLS_KEY: {key}: {error.strerror}; name a PEM file that this user may read"
        ) from None
    return context, certificate.not_valid_after_utc


def _leaf(chain: Path) -> x509.Certificate:
    """Return the first certificate of a file, all of which can be read."""
    # A library that takes 8 MB, and a server behind a proxy has no certificate.
    from cryptography import x509  # noqa: PLC0415

    try:
        leaf, *others = x509.load_pem_x509_certificates(chain.read_bytes())
        for each in (leaf, *others):
            _ = each.not_valid_after_utc, each.subject
    except OSError as error:
        raise SettingsError(
            f"RECEIVER_TLS_CERT: {chain}: {error.strerror}; name a PEM file that this user may read"
        ) from None
    except ValueError:
        raise SettingsError(
            f"RECEIVER_TLS_CERT: {chain} holds no certificate that can be read; name the PEM file with the whole chain"
        ) from None
    return leaf
