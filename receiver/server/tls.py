"""The TLS certificate of `receiver serve`: loaded before the fork, reloaded when it is renewed."""

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

# Inode, size, mtime, ctime of a file.
_Stat = tuple[int, int, int, int]


class ServedCertificate:
    """A certificate chain and its key as PEM files, and the TLS contexts that serve them.

    Every session starts in one context whose ticket keys are created before the fork and never change. So any worker
    can resume a session, also after a renewal. Each renewal gets its own context, selected by the SNI callback: loading
    it into the first one would keep the old certificate too if the key type has changed.
    """

    def __init__(self, chain: Path, key: Path) -> None:
        """Load both files. Raises SettingsError."""
        self._files = (chain, key)
        self._served = self._seen = self._stat()
        self._warned_of: tuple[_Stat | None, ...] | None = None
        self._initial, self.not_after = load_pair(chain, key)
        self._current = self._initial
        self._initial.sni_callback = self._choose

    def wrap(self, connection: socket.socket) -> ssl.SSLSocket:
        """Return the connection with TLS, before its handshake. Raises OSError if the client is gone."""
        return self._initial.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)

    def reload_if_changed(self, *, at_once: bool = False) -> None:
        """Load a changed pair once it is unchanged between two calls. Called periodically.

        An invalid pair is logged once and ignored. `at_once`: load a changed pair at the first call.
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
            if self._warned_of != found:
                self._warned_of = found
                _log.warning("the new certificate is invalid, still serving the old one", reason=str(error))
            return
        if self._stat() != found:
            return  # it changed while loading
        self._current, self._served, self.not_after = context, found, not_after
        _log.info("new certificate loaded", not_after=not_after.isoformat())
        self.publish_expiry()

    def publish_expiry(self) -> None:
        """Set the metric of the serving process."""
        metrics.CERTIFICATE_NOT_AFTER.set(self.not_after.timestamp())

    def _choose(self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """Select the current context; OpenSSL calls it after the ClientHello."""
        connection.context = self._current

    def _stat(self) -> tuple[_Stat | None, ...]:
        return tuple(_stat(path) for path in self._files)


def _stat(path: Path) -> _Stat | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
