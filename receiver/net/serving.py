"""Where the server of a data directory listens: it notes it there, for commands in another terminal."""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from receiver.observability import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from receiver.config import Settings

NOTE = "serving.json"
_PATIENCE_SECONDS = 1.0  # for a command that looks just now
_LOOK_SECONDS = 0.02
_log = get_logger(__name__)


@contextmanager
def noted(settings: Settings) -> Iterator[None]:
    """Note where a server listens, for as long as it runs: the note counts while its lock is held, by whoever wrote it.

    Where it cannot be written, or another server on the same directory has it, there is none; the server serves.
    """
    handle = _open(settings.data_dir / NOTE)
    try:
        if handle is not None:
            os.ftruncate(handle, 0)
            os.write(handle, json.dumps(_written(settings)).encode())
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _open(path: Path) -> int | None:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        _log.warning("where this server listens is not noted", reason=error.strerror)
        return None
    until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < until:
                time.sleep(_LOOK_SECONDS)
                continue
            os.close(handle)
            return None
        return handle


def _written(settings: Settings) -> dict[str, Any]:
    certificate = settings.tls_cert, settings.tls_key
    return {
        "bind": settings.bind,
        "internal_bind": settings.internal_bind,
        "tls": [str(path) for path in certificate] if all(certificate) else None,
    }


def as_served(settings: Settings) -> Settings:
    """Return settings with the addresses at which the server of their data directory listens; as they are without."""
    try:
        found = _read(settings.data_dir / NOTE)
        if found is None:
            return settings
        tls_cert, tls_key = map(Path, found["tls"]) if found["tls"] else (None, None)
        inside = found["internal_bind"]
        return replace(
            settings,
            bind=tuple(found["bind"]),
            internal_bind=tuple(inside) if inside else None,
            tls_cert=tls_cert,
            tls_key=tls_key,
        )
    except (OSError, ValueError, LookupError, TypeError):  # of another version, or half written
        return settings


def _read(path: Path) -> Any:
    """Return what a note says; None: there is none, or whoever wrote it runs no more."""
    if not path.exists():
        return None
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return json.loads(path.read_text())
    else:
        return None
    finally:
        os.close(handle)
