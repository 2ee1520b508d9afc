"""`backup` and `restore`: the data directory, whole."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from receiver.audit import verify_audit
from receiver.cli.common import as_json, print_json, require_files
from receiver.cli.verify import show_progress
from receiver.config import Settings, load_data_dir, load_settings, make_data_dir
from receiver.db import version
from receiver.db.encryption import ColumnEncryption
from receiver.db.sqlite import said
from receiver.intake import Admission
from receiver.maintenance.backup import (
    DATABASE_FILE,
    Backup,
    Manifest,
    make_backup,
    read_manifest,
    restore,
    serving_lock,
)
from receiver.maintenance.backup_notes import note_backup
from receiver.maintenance.snapshot import open_unchanging
from receiver.maintenance.verify import verify
from receiver.observability import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator


_log = get_logger(__name__)

_DIRECTORY = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("directory", type=_DIRECTORY)
@click.option("--keep", type=click.IntRange(1), metavar="N", help="Remove older backups there, all but N.")
@click.option("--no-verify", is_flag=True, help="Do without the proof that `receiver verify` gives, for a large one.")
@as_json
def backup(directory: Path, keep: int | None, no_verify: bool, as_json: bool) -> None:
    """Back up database, spool and generated secret into a new directory in DIRECTORY, while the server runs.

    It is checked before it is called a backup: every page and index of the database, and that all in it agrees. With
    PostgreSQL, spool and secret alone: deploy/postgresql/backup.sh does the database.

    \b
    Example:
      receiver backup /srv/backup --keep 14
    """
    settings = load_settings()
    made = _make_and_note(settings, directory, verify=not no_verify, keep=keep)
    manifest = made.manifest
    if as_json:
        print_json(
            {"path": str(made.path), "sqlite": said(), "problems": made.problems, "removed": made.removed}
            | manifest.as_json()
        )
    else:
        print(made.path)
        print(f"  {_counts(manifest)}, {'verified' if manifest.verified else 'not verified'}")
        print(f"  all that was acknowledged before {_time(manifest.begun_at)} is in it")
        if settings.embedded:
            print(f"  read by {said()}")
        for name in made.removed:
            print(f"  removed: {name}")
    if not settings.embedded:
        print("receiver: spool and secret only; the database: deploy/postgresql/backup.sh", file=sys.stderr)
    for problem in made.problems:
        print(f"receiver: the copy is true, and not all in it agrees: {problem}", file=sys.stderr)
    if made.problems:
        sys.exit(1)


def _make_and_note(settings: Settings, directory: Path, *, verify: bool, keep: int | None) -> Backup:
    """Make a backup, and note for the alarms whether that went well."""
    try:
        require_files(settings)
        check = (lambda path: list(_problems(settings, path / DATABASE_FILE))) if verify else None
        made = make_backup(settings, directory, verify=check, keep=keep)
    except Exception:  # whatever it is; not Ctrl-C, with which somebody has thought better of it
        _note(settings, made=False)
        raise
    _note(settings, made=not made.problems)
    return made


def _note(settings: Settings, *, made: bool) -> None:
    try:
        note_backup(settings.data_dir, made=made)
    except OSError as error:
        _log.warning("the alarms do not hear of this backup", made=made, reason=error.strerror)


@click.command("restore")
@click.argument("backup", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--to", "data_dir", type=_DIRECTORY, help="The data directory (RECEIVER_DATA_DIR).")
@click.option("--force", is_flag=True, help="Move a database and a spool that are there aside.")
@as_json
def restore_(backup: Path, data_dir: Path | None, force: bool, as_json: bool) -> None:
    """Put a backup back into a data directory that no server uses, and say what it cannot hold.

    Nothing is removed: what is in its place is moved into a directory beside it. `receiver serve` then brings the
    schema up to date and saves what waited in the spool.

    \b
    Example:
      receiver restore /srv/backup/receiver-20261126T030000Z
    """
    place = (data_dir or load_data_dir()).absolute()
    read_manifest(backup)  # before anything is made
    make_data_dir(place)
    with serving_lock(place):
        restored = restore(backup, place, force=force)
    manifest = restored.manifest
    gap_seconds = round((datetime.now(UTC) - manifest.begun_at).total_seconds())
    if as_json:
        aside = restored.aside and str(restored.aside)
        print_json({"data_dir": str(place), "aside": aside, "gap_seconds": gap_seconds} | manifest.as_json())
        return
    print(f"{place} is as of {_time(manifest.begun_at)}: {_counts(manifest)}")
    if restored.aside is not None:
        print(f"what was there before: {restored.aside}")
    if manifest.schema is not None and not version.is_known(manifest.schema):
        print(f"its schema, {manifest.schema}, is newer than this program's, {version.VERSION}: update receiver")
    _tell_gap(manifest, gap_seconds)


def _tell_gap(manifest: Manifest, gap_seconds: int) -> None:
    since = _time(manifest.begun_at)
    newest = "none" if manifest.newest_push is None else f"{manifest.newest_push}, {_time(manifest.newest_push_at)}"
    print(f"newest push kept: {newest}")
    print(
        f"pushes acknowledged after {since}, {_span(gap_seconds)} ago, may not be in it; the platform sends none twice:"
    )
    print("  - is the old data directory still there? `receiver spool drain --from OLD` saves what waited in it")
    print(f"  - ask the platform for the receipts and replies from {since} on")
    print(
        "  - record the sends of that time again (`receiver messages import`): what stays without a receipt was lost,"
    )
    print("    and GET /api/v1/reports/billing holds what was sent against the balance")
    print("next: `receiver verify`, then `receiver serve`")


def _problems(settings: Settings, copy: Path) -> Iterator[str]:
    database = open_unchanging(copy, ColumnEncryption(settings.encryption_keys))
    try:
        found = version.current_revision(database)
        if found != version.VERSION:
            yield f"schema {found} is not this program's: verify it with the receiver that wrote it"
            return
        with show_progress() as tell:
            for finding in (*verify(database, Admission(settings).read_again, tell), verify_audit(database, tell=tell)):
                if not finding.ok:
                    yield "; ".join([finding.name, *finding.details])
    finally:
        database.close()


def _counts(manifest: Manifest) -> str:
    rows = [f"{count:,} {name}" for name, count in manifest.rows.items()]
    return ", ".join([*rows, f"{manifest.spool_records:,} records in the spool"])


def _time(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _span(seconds: int) -> str:
    days, rest = divmod(max(0, seconds), 86400)
    hours, minutes = divmod(rest // 60, 60)
    return f"{days} d {hours} h {minutes} min" if days else f"{hours} h {minutes} min"
