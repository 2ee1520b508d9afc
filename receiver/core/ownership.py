"""Ownership of the data directory: files that this process cannot write, or should not create."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from receiver.core.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable


def require_place(directory: Path) -> None:
    """Raise SettingsError if this process cannot store files in a directory, or should not."""
    state = directory.stat()
    owner = _name_of(state.st_uid)
    if os.geteuid() == 0 and state.st_uid != 0:
        way = f"runuser -u {owner} -- receiver …" if owner != str(state.st_uid) else f"as the user of id {owner}"
        raise SettingsError(
            f"RECEIVER_DATA_DIR: {directory} belongs to {owner}, who could not write files that root creates there; "
            f"run it as: {way}"
        )
    if (fault := find_fault([directory])) is not None:
        raise SettingsError(f"RECEIVER_DATA_DIR: {fault}")


def exposure(directory: Path) -> str | None:
    """Return that other users have access to a directory, and what to do; None: they have none."""
    return f"other users have access; run: chmod 700 {directory}" if directory.stat().st_mode & 0o077 else None


def find_fault(paths: Iterable[Path]) -> str | None:
    """Return the first of these paths that this process may not write, and its owner; None: it may write all."""
    for path in paths:
        try:
            state = path.stat()
        except FileNotFoundError:
            continue
        except OSError as error:
            return f"{path}: {error.strerror}; this process runs as {_name_of(os.geteuid())}"
        needed = os.R_OK | os.W_OK | (os.X_OK if stat.S_ISDIR(state.st_mode) else 0)
        if not os.access(path, needed, effective_ids=os.access in os.supports_effective_ids):
            return describe(path)
    return None


def describe(path: Path) -> str:
    """Return that this process may not write a path, the path's owner, and the process's user. Raises OSError."""
    state = path.stat()
    user = _name_of(os.geteuid())
    return (
        f"{path} belongs to {_name_of(state.st_uid)} (mode {stat.S_IMODE(state.st_mode):04o}), and this process, "
        f"which runs as {user}, may not write it"
    )


def explain(error: OSError) -> str:
    """Return in one line what this process was denied."""
    path = Path(os.fsdecode(error.filename))
    try:
        return describe(path if path.exists() else path.parent)
    except OSError:
        return f"{path}: {error.strerror}; this process runs as {_name_of(os.geteuid())}"


def _name_of(user_id: int) -> str:
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return str(user_id)
