"""The certificate that `receiver serve` shows: made ready before the fork, taken up anew whenever it is renewed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from receiver.core import SettingsError
from receiver.net.certificates import load_pair
from receiver.observability import get_logger, metrics

if TYPE_CHECKING:
    import socket
    import ssl
    from pathlib import Path

_log = get_logger(__name__)

# Of a file: what changes with it.
_Stat = tuple[int, int, int, int]


class ServedCertificate:
    """A pair of PEM files, certificate chain and key, and the TLS that is spoken with them.

    All sessions begin in one context, whose ticket keys are made before the fork and never change: so a session is
    resumed by any worker, and after a renewal too. Each renewal is a context of its own that takes over by name
    (loading it into the first would keep the old certificate beside it where the kind of its key has changed).
    """

    def __init__(self, chain: Path, key: Path) -> None:
        """Load both. Raises SettingsError, saying what to do."""
        self._files = (chain, key)
        self._served = self._seen = self._stat()
        self._told: tuple[_Stat | None, ...] | None = None
        self._first, self.not_after = load_pair(chain, key)
        self._now = self._first
        self._first.sni_callback = self._choose

    def wrap(self, connection: socket.socket) -> ssl.SSLSocket:
        """Put TLS on a connection; the handshake is yet to come. Raises OSError where the peer has gone."""
        return self._first.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)

    def look(self, *, at_once: bool = False) -> None:
        """Take up a pair that has changed and come to rest between two looks; to be called again and again.

        One that is half-written or does not fit is told once and left alone until it fits; `at_once`: no rest needed.
        """
        found = self._stat()
        if found == self._served:
            return
        if found != self._seen and not at_once:
            self._seen = found
            return
        self._seen = found
        try:
            context, not_after = load_pair(*self._files)
        except SettingsError as error:
            if self._told != found:
                self._told = found
                _log.warning("new certificate is not fit, the old one serves on", reason=str(error))
            return
        if self._stat() != found:
            return  # it was written meanwhile
        self._now, self._served, self.not_after = context, found, not_after
        _log.info("new certificate taken up", not_after=not_after.isoformat())
        self.tell()

    def tell(self) -> None:
        """Set the metric, in the process that serves."""
        metrics.CERTIFICATE_NOT_AFTER.set(self.not_after.timestamp())

    def _choose(self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """Called by OpenSSL once it has read a ClientHello, with a server name or without."""
        connection.context = self._now

    def _stat(self) -> tuple[_Stat | None, ...]:
        return tuple(_stat(path) for path in self._files)


def _stat(path: Path) -> _Stat | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
