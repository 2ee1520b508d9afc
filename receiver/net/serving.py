"""A file in the data directory with the addresses of its running server, for commands in another terminal."""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from receiver.core import try_lock
from receiver.observability import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from receiver.config import Settings

NOTE = "serving.json"
_PATIENCE_SECONDS = 1.0  # for a command that is just reading the file
_RETRY_SECONDS = 0.02
_log = get_logger(__name__)


@contextmanager
def addresses_published(settings: Settings) -> Iterator[None]:
    """Publish the server's addresses while it runs. The file is valid only while the server holds its lock.

    If it cannot be written, or another server of the directory holds it, the server runs without.
    """
    handle = _open(settings.data_dir / NOTE)
    try:
        if handle is not None:
            os.ftruncate(handle, 0)
            os.write(handle, json.dumps(_addresses(settings)).encode())
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _open(path: Path) -> int | None:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        _log.warning("cannot publish this server's addresses", reason=error.strerror)
        return None
    until = time.monotonic() + _PATIENCE_SECONDS
    while not try_lock(handle):
        if time.monotonic() >= until:
            os.close(handle)
            return None
        time.sleep(_RETRY_SECONDS)
    return handle


def _addresses(settings: Settings) -> dict[str, Any]:
    certificate = settings.tls_cert, settings.tls_key
    return {
        "bind": settings.bind,
        "internal_bind": settings.internal_bind,
        "tls": [str(path) for path in certificate] if all(certificate) else None,
    }


def as_served(settings: Settings) -> Settings:
    """Return settings with the addresses of the running server of their data directory; unchanged if none runs."""
    try:
        addresses = _read(settings.data_dir / NOTE)
        if addresses is None:
            return settings
        tls_cert, tls_key = map(Path, addresses["tls"]) if addresses["tls"] else (None, None)
        internal_bind = addresses["internal_bind"]
        return replace(
            settings,
            bind=tuple(addresses["bind"]),
            internal_bind=tuple(internal_bind) if internal_bind else None,
            tls_cert=tls_cert,
            tls_key=tls_key,
        )
    except (OSError, ValueError, LookupError, TypeError):  # written by another version, or incomplete
        return settings


def _read(path: Path) -> Any:
    """Return the content of the file; None if there is no file, or its server has stopped."""
    if not path.exists():
        return None
    handle = os.open(path, os.O_RDONLY)
    try:
        return None if try_lock(handle, shared=True) else json.loads(path.read_text())
    finally:
        os.close(handle)
