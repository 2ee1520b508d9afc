"""Certificates as files, for servers that tests start."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Files:
    """A certificate chain and its key in a directory, renewed as a client of an authority does it."""

    def __init__(self, directory: Path, authority: trustme.CA | None = None) -> None:
        self.authority = authority or trustme.CA()
        self.chain = directory / "fullchain.pem"
        self.key = directory / "privkey.pem"
        self.write(self.issue())

    @property
    def environment(self) -> Mapping[str, str]:
        """The settings that name them."""
        return {"RECEIVER_TLS_CERT": str(self.chain), "RECEIVER_TLS_KEY": str(self.key)}

    def issue(self, *, rsa: bool = False) -> trustme.LeafCert:
        """Make a certificate for this machine."""
        kind = trustme.KeyType.RSA if rsa else trustme.KeyType.ECDSA
        return self.authority.issue_cert("localhost", "127.0.0.1", key_type=kind)

    def write(self, certificate: trustme.LeafCert) -> None:
        """Put a certificate and its key into the files, each at once, one after the other."""
        for path, text in ((self.chain, chain_of(certificate)), (self.key, certificate.private_key_pem.bytes())):
            draft = path.with_suffix(".new")
            draft.write_bytes(text)
            draft.replace(path)

    def serving(self) -> ssl.SSLContext:
        """Make a server's context of them."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain, self.key)
        return context

    def trusting(self, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """Make a client's context that knows the authority alone."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.authority.configure_trust(context)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        return context


def chain_of(certificate: trustme.LeafCert) -> bytes:
    """Give its chain as PEM."""
    return b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
