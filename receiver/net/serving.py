"""The running server of a data directory: its lock, and a file with its addresses for commands in another terminal."""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from receiver.core import SettingsError, try_lock
from receiver.observability import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from receiver.config import Settings

NOTE = "serving.json"
_PATIENCE_SECONDS = 1.0  # for a command that is just reading the file
_RETRY_SECONDS = 0.02
_log = get_logger(__name__)


@contextmanager
def serving_lock(data_dir: Path) -> Iterator[None]:
    """Hold the lock of `receiver serve`. Raises SettingsError if a server runs."""
    handle = take_serving_lock(data_dir)
    try:
        yield
    finally:
        os.close(handle)


def take_serving_lock(data_dir: Path) -> int:
    """Take the lock of the only server of an embedded database and return its open handle.

    The lock is on the directory: a lock file could be removed, and another server would create a new one.
    Raises SettingsError if another process has it.
    """
    handle = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY)
    if not try_lock(handle):
        os.close(handle)
        raise SettingsError(f"another `receiver serve` runs on {data_dir}; stop it, or set another RECEIVER_DATA_DIR")
    return handle


def is_served(data_dir: Path) -> bool:
    """Return whether a server holds the lock of this directory."""
    try:
        os.close(take_serving_lock(data_dir))
    except SettingsError:
        return True
    return False


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
