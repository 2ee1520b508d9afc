"""Backups of one data directory: embedded database, spool and generated secret.

Each backup is a directory. It is written under a name with a leading dot, fsynced and renamed, so every `receiver-…Z`
is complete. Its manifest has the SHA-256 of each file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from receiver import __version__
from receiver.config import CHECKPOINTS_FILE, PUSH_SECRET_FILE, SPOOL_DIR, Settings, make_data_dir
from receiver.core import (
    Push,
    ReceiverError,
    make_directory,
    sync_directory,
    sync_file,
    try_lock,
    write_new_file,
)
from receiver.db.encryption import ColumnEncryption, DecryptionError
from receiver.db.sqlite import path_of
from receiver.intake.spool import copy_spool
from receiver.intake.spool_records import Damage, count_frames, read_file
from receiver.maintenance.snapshot import copy_database, require_integrity, skip_ids, summarize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path


DATABASE_FILE = "receiver.db"
_MANIFEST = "manifest.json"
_NAME = re.compile(r"receiver-\d{8}T\d{6}Z", re.ASCII)
_DRAFT_SUFFIX = ".partial"
_OF_SQLITE = ("", "-wal", "-shm")  # the database's file and its log


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The description of a backup."""

    version: str  # version of the program that made it
    schema: str | None  # None: no database in it (PostgreSQL)
    begun_at: datetime  # it contains everything acknowledged before
    ended_at: datetime
    verified: bool
    rows: Mapping[str, int]
    spool_records: int
    newest_push: str | None  # its id
    newest_push_at: datetime | None
    files: Mapping[str, str]  # path inside the backup: SHA-256

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Backup:
    """A finished backup and its path."""

    path: Path
    manifest: Manifest
    problems: tuple[str, ...] = ()  # faults found by `verify`; it is still an exact copy
    removed: tuple[str, ...] = ()  # names of older backups removed by --keep


@dataclass(frozen=True, kw_only=True, slots=True)
class Restored:
    """The restored backup, and where the replaced files are."""

    manifest: Manifest
    aside: Path | None


def make_backup(
    settings: Settings, directory: Path, *, verify: Callable[[Path], Sequence[str]] | None, keep: int | None = None
) -> Backup:
    """Back up the data directory into a new directory in `directory`; a server may run meanwhile.

    `verify` returns the faults of the copy; None: no verification. `keep`: number of newest backups to keep; older ones
    are removed if this one has no faults. Raises ReceiverError, and leaves no files then.
    """
    begun_at = datetime.now(UTC)
    final = directory / f"receiver-{begun_at:%Y%m%dT%H%M%SZ}"
    source = path_of(settings.database_url) if settings.embedded else None
    if source is not None and not source.is_file():
        raise ReceiverError(f"there is no database to back up: {source}; does RECEIVER_DATA_DIR name the right place?")
    try:
        with _draft(directory, final) as draft:
            manifest = _fill(settings, draft, begun_at)
            problems = tuple(verify(draft) if verify is not None and source is not None else ())
            manifest = replace(manifest, verified=verify is not None and not problems, ended_at=datetime.now(UTC))
            _write_manifest(draft, manifest)
        removed = _remove_older(directory, final.name, keep) if keep is not None and not problems else ()
    except OSError as error:
        raise ReceiverError(f"no backup was made: {directory}: {error.strerror}") from error
    return Backup(path=final, manifest=manifest, problems=problems, removed=removed)


def read_manifest(path: Path) -> Manifest:
    """Return a backup's manifest after checking every file against it. Raises ReceiverError."""
    manifest = _read_manifest(path)
    if manifest is None:
        raise ReceiverError(f"{path} is no backup of receiver: it has no readable {_MANIFEST}")
    for name, digest in manifest.files.items():
        if not _is_kept(name):
            raise ReceiverError(f"{path} is no backup of receiver: it names an unexpected file; use another backup")
        try:
            found = _digest(path / name)
        except OSError as error:
            raise ReceiverError(f"this backup is damaged: {name}: {error.strerror}; use another backup") from error
        if found != digest:
            raise ReceiverError(f"this backup is damaged: {name} has changed; use another backup")
    return manifest


def restore(path: Path, data_dir: Path, *, force: bool) -> Restored:
    """Restore a backup into a data directory without a running server. Existing files are moved aside, never removed.

    Raises ReceiverError and changes nothing, also if a database or spool exists and `force` is not set.
    """
    manifest = read_manifest(path)
    make_data_dir(data_dir)
    present = _present(data_dir, manifest)
    if any(name != PUSH_SECRET_FILE for name in present) and not force:
        raise ReceiverError(
            f"{data_dir} already has {', '.join(present)}; --force moves them aside, into a subdirectory"
        )
    token = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    draft = data_dir / f".restoring-{token}"
    try:
        _copy_files(path, draft, manifest)
        aside = _move_aside(data_dir, present, data_dir / f"before-restore-{token}")
        # The database last: without it, the data directory is recognizably incomplete.
        for name in (SPOOL_DIR, PUSH_SECRET_FILE, DATABASE_FILE):
            if (draft / name).exists():
                (draft / name).rename(data_dir / name)
        draft.rmdir()
        sync_directory(data_dir)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise ReceiverError(f"{data_dir}: {error.strerror}; fix this and restore again") from error
    return Restored(manifest=manifest, aside=aside)


# --- Backup ---------------------------------------------------------------------------------------


@contextmanager
def _draft(directory: Path, final: Path) -> Iterator[Path]:
    """Yield a directory to fill; it is renamed to `final` on success and removed on failure."""
    make_directory(directory)
    _remove_drafts_of_the_dead(directory)
    if final.exists():
        raise ReceiverError(f"{final} exists already; try again in a second")
    draft = directory / f".{final.name}.{secrets.token_hex(4)}{_DRAFT_SUFFIX}"
    draft.mkdir(mode=0o700)
    handle = os.open(draft, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not try_lock(handle):
            raise ReceiverError("another backup took this one's draft for one left behind; try again")
        yield draft
        sync_directory(draft)
        draft.rename(final)
        sync_directory(directory)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    finally:
        os.close(handle)


def _remove_drafts_of_the_dead(directory: Path) -> None:
    for path in directory.glob(f".receiver-*{_DRAFT_SUFFIX}"):
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        if try_lock(handle):  # else another backup is writing it
            shutil.rmtree(path)
        os.close(handle)


def _fill(settings: Settings, draft: Path, begun_at: datetime) -> Manifest:
    # Copy the spool before the database. A record leaves the spool only once the database has it, so a record missing
    # from the spool copy is in the later database copy. In the other order, a record saved between the two copies
    # would be in neither.
    spooled = copy_spool(settings.data_dir / SPOOL_DIR, draft / SPOOL_DIR)
    secret = settings.data_dir / PUSH_SECRET_FILE
    if secret.exists():
        _copy_file(secret, draft / PUSH_SECRET_FILE)
    manifest = Manifest(
        version=__version__,
        schema=None,
        begun_at=begun_at,
        ended_at=begun_at,
        verified=False,
        rows={},
        spool_records=0,
        newest_push=None,
        newest_push_at=None,
        files={},
    )
    if settings.embedded:
        copy = draft / DATABASE_FILE
        os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        copy_database(settings.database_url, copy)
        _sync_file(copy)
        require_integrity(copy)
        contents = summarize(copy)
        manifest = replace(manifest, schema=contents.schema, rows=contents.rows)
        if contents.newest_push is not None:
            newest_id, newest_at = contents.newest_push
            manifest = replace(manifest, newest_push=str(newest_id), newest_push_at=newest_at)
    ring = ColumnEncryption(settings.encryption_keys).ring
    for path in spooled:
        try:
            records = [record for record in read_file(path, ring) if not isinstance(record, Damage)]
        except DecryptionError:  # the copy is valid without its key
            manifest = replace(manifest, spool_records=manifest.spool_records + count_frames(path))
            continue
        manifest = replace(manifest, spool_records=manifest.spool_records + len(records))
        for record in records:
            if isinstance(record, Push) and str(record.id) > (manifest.newest_push or ""):
                manifest = replace(manifest, newest_push=str(record.id), newest_push_at=record.received_at)
    return manifest


def _write_manifest(draft: Path, manifest: Manifest) -> None:
    paths = sorted(path for path in draft.rglob("*") if path.is_file())
    files = {path.relative_to(draft).as_posix(): _digest(path) for path in paths}
    text = json.dumps(replace(manifest, files=files).as_json(), indent=1)
    write_new_file(draft / _MANIFEST, text.encode())


def _remove_older(directory: Path, newest: str, keep: int) -> tuple[str, ...]:
    """Keep the newest `keep` backups, remove older ones and return their names. Other directories stay.

    A backup dated after `newest` was made by a clock that was ahead: it is ignored, or every new one would be removed.
    """
    names = sorted(path.name for path in directory.iterdir() if _NAME.fullmatch(path.name) and path.is_dir())
    names = [name for name in names if name <= newest]
    older = [name for name in names if _read_manifest(directory / name) is not None][:-keep]
    for name in older:
        # Rename first: no incomplete directory ever has a backup's name.
        gone = directory / f".{name}.{secrets.token_hex(4)}{_DRAFT_SUFFIX}"
        (directory / name).rename(gone)
        shutil.rmtree(gone)
    return tuple(older)


# --- Restore ---------------------------------------------------------------------------------


def _present(data_dir: Path, manifest: Manifest) -> list[str]:
    """Return the names of existing files that the backup would replace."""
    names = [SPOOL_DIR] if any((data_dir / SPOOL_DIR).glob("*")) else []
    if PUSH_SECRET_FILE in manifest.files and (data_dir / PUSH_SECRET_FILE).exists():
        names.append(PUSH_SECRET_FILE)
    if DATABASE_FILE in manifest.files:
        names += [DATABASE_FILE + suffix for suffix in _OF_SQLITE if (data_dir / (DATABASE_FILE + suffix)).exists()]
        if (data_dir / CHECKPOINTS_FILE).exists():
            names.append(CHECKPOINTS_FILE)  # of an audit chain that continued after the backup
    return names


def _move_aside(data_dir: Path, names: Sequence[str], aside: Path) -> Path | None:
    with suppress(OSError):
        (data_dir / SPOOL_DIR).rmdir()  # an empty one
    if not names:
        return None
    aside.mkdir(mode=0o700)
    for name in names:
        (data_dir / name).rename(aside / name)
    sync_directory(aside)
    return aside


def _copy_files(path: Path, to: Path, manifest: Manifest) -> None:
    to.mkdir(mode=0o700)
    (to / SPOOL_DIR).mkdir(mode=0o700)
    for name in manifest.files:
        _copy_file(path / name, to / name)
    if (to / DATABASE_FILE).exists():
        skip_ids(to / DATABASE_FILE)
    sync_directory(to / SPOOL_DIR)
    sync_directory(to)


# --- Files and manifests ------------------------------------------------------------------------------


def _is_kept(name: str) -> bool:
    """Return whether a backup may contain that file; no path may lead out of the two directories."""
    if name in (PUSH_SECRET_FILE, DATABASE_FILE):
        return True
    directory, _, file = name.partition("/")
    return directory == SPOOL_DIR and file not in ("", ".", "..") and "/" not in file


def _copy_file(source: Path, to: Path) -> None:
    with source.open("rb") as read, os.fdopen(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as write:
        shutil.copyfileobj(read, write, 1 << 20)
        sync_file(write)


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        sync_file(file)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_manifest(path: Path) -> Manifest | None:
    try:
        values = json.loads((path / _MANIFEST).read_bytes())
        for name in ("begun_at", "ended_at", "newest_push_at"):
            values[name] = values[name] and datetime.fromisoformat(values[name])
        return Manifest(**values)
    except (OSError, ValueError, TypeError, KeyError):
        return None
