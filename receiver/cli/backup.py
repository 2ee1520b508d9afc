"""`backup` and `restore`: copies of the data directory."""

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
from receiver.intake.admission import Admission
from receiver.maintenance.backup import (
    DATABASE_FILE,
    Backup,
    Manifest,
    make_backup,
    read_manifest,
    restore,
)
from receiver.maintenance.backup_notes import note_backup
from receiver.maintenance.snapshot import open_unchanging
from receiver.maintenance.verify import verify
from receiver.net.serving import serving_lock
from receiver.observability import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator


_log = get_logger(__name__)

_DIRECTORY = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("directory", type=_DIRECTORY)
@click.option("--keep", type=click.IntRange(1), metavar="N", help="Keep the N newest backups there, remove the others.")
@click.option("--no-verify", is_flag=True, help="Skip the checks of `receiver verify`, for a large database.")
@as_json
def backup(directory: Path, keep: int | None, no_verify: bool, as_json: bool) -> None:
    """Back up database, spool and generated secret into a new directory in DIRECTORY, while the server runs.

    Checks every page and index of the copied database, then runs `receiver verify` on it. With PostgreSQL it backs up
    spool and secret only; use deploy/postgresql/backup.sh for the database.

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
        print(f"  contains every push acknowledged before {_time(manifest.begun_at)}")
        if settings.embedded:
            print(f"  copied by {said()}")
        for name in made.removed:
            print(f"  removed: {name}")
    if not settings.embedded:
        print("receiver: spool and secret only; back up the database by deploy/postgresql/backup.sh", file=sys.stderr)
    for problem in made.problems:
        print(f"receiver: the copy is exact, but its data is inconsistent: {problem}", file=sys.stderr)
    if made.problems:
        sys.exit(1)


def _make_and_note(settings: Settings, directory: Path, *, verify: bool, keep: int | None) -> Backup:
    """Make a backup, and record its success or failure for the alarms."""
    try:
        require_files(settings)
        check = (lambda path: list(_problems(settings, path / DATABASE_FILE))) if verify else None
        made = make_backup(settings, directory, verify=check, keep=keep)
    except Exception:  # any failure; Ctrl-C is none
        _note(settings, made=False)
        raise
    _note(settings, made=not made.problems)
    return made


def _note(settings: Settings, *, made: bool) -> None:
    try:
        note_backup(settings.data_dir, made=made)
    except OSError as error:
        _log.warning("cannot record the backup for the alarms", made=made, reason=error.strerror)


@click.command("restore")
@click.argument("backup", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--to", "data_dir", type=_DIRECTORY, help="The data directory (RECEIVER_DATA_DIR).")
@click.option("--force", is_flag=True, help="Move an existing database and spool aside.")
@as_json
def restore_(backup: Path, data_dir: Path | None, force: bool, as_json: bool) -> None:
    """Restore a backup into a data directory that no server uses, and print what may be missing.

    Removes nothing: existing files move into a directory beside it. `receiver serve` then upgrades the schema and
    saves the spool to the database.

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
        print(f"the previous files are in {restored.aside}")
    if manifest.schema is not None and not version.is_known(manifest.schema):
        print(f"its schema {manifest.schema} is newer than this program's {version.VERSION}; update receiver")
    _print_gap(manifest, gap_seconds)


def _print_gap(manifest: Manifest, gap_seconds: int) -> None:
    since = _time(manifest.begun_at)
    newest = "none" if manifest.newest_push is None else f"{manifest.newest_push}, {_time(manifest.newest_push_at)}"
    print(f"newest push: {newest}")
    print(f"pushes acknowledged after {since} ({_span(gap_seconds)} ago) may be missing; the platform does not resend:")
    print("  - if the old data directory still exists, save its spool: `receiver spool drain --from OLD`")
    print(f"  - ask the platform for the receipts and replies since {since}")
    print("  - record the sends since then again (`receiver messages import`): those without a receipt lost theirs,")
    print("    and GET /api/v1/reports/billing compares them with the balance")
    print("next: `receiver verify`, then `receiver serve`")


def _problems(settings: Settings, copy: Path) -> Iterator[str]:
    database = open_unchanging(copy, ColumnEncryption(settings.encryption_keys))
    try:
        revision = version.current_revision(database)
        if revision != version.VERSION:
            yield f"schema {revision} is not this program's; verify it with the version that wrote it"
            return
        with show_progress() as advance:
            reparse = Admission(settings).read_again
            for finding in (*verify(database, reparse, advance), verify_audit(database, tell=advance)):
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
