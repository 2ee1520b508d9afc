"""`db encrypt`, `db rotate`, `db decrypt`: what the database is sealed under."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from receiver.cli.common import alone, require_files
from receiver.cli.verify import show_progress
from receiver.config import load_settings
from receiver.core import SettingsError
from receiver.db import version
from receiver.db.encryption import Keyring
from receiver.db.engine import Database
from receiver.maintenance import rekey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PATIENCE_SECONDS = 3600.0


@click.command()
def encrypt() -> None:
    """Seal the numbers and contents of a database under the first of RECEIVER_ENCRYPTION_KEYS. Safe to break off and to
    run again.

    Give every node the keys and restart it first. While this runs, pushes wait in the spool, and questions are answered
    503. Keep a copy of the keys where no backup of the database is: without them nobody can read it.

    \b
    Example:
      receiver db encrypt
    """
    with _open() as (database, ring, tell):
        print("sealing: from now on pushes go to the spool", file=sys.stderr)
        count = rekey.encrypt(database, ring, tell)
        postgresql = database.postgresql
    print(f"{count:,} rows sealed; the database is encrypted, and takes pushes again")
    if postgresql:
        print("its files still hold what was there before until VACUUM FULL, and so do its logs and older backups")
    else:
        print("older backups still hold what was there before")


@click.command()
def rotate() -> None:
    """Seal under the first of RECEIVER_ENCRYPTION_KEYS what was sealed under others, while the server runs.

    Put the new key first, leave the old one behind it, and restart every node; then run this. Safe to break off and to
    run again. It says when the old key is not needed any more.

    \b
    Example:
      receiver db rotate
    """
    with _open() as (database, ring, tell):
        count, late = rekey.rotate(database, ring, tell)
    print(f"{count + late:,} rows sealed anew, under the key {ring.newest}")
    if late:
        print(f"{late:,} of them came under another key meanwhile: restart every node, then run this again")
        sys.exit(1)
    print("no row needs another key. Remove the others once no spool file is older than this, here or in a backup")


@click.command()
def decrypt() -> None:
    """Open a database's numbers and contents for good. Safe to break off and to run again.

    While this runs, pushes wait in the spool, and questions are answered 503. Leave the keys in place as long as a
    spool file, or a backup that may be needed, was written under them.

    \b
    Example:
      receiver db decrypt
    """
    with _open() as (database, ring, tell):
        print("opening: from now on pushes go to the spool", file=sys.stderr)
        count = rekey.decrypt(database, ring, tell)
    print(f"{count:,} rows opened; the database is plain, and takes pushes again")


@contextmanager
def _open() -> Iterator[tuple[Database, Keyring, Callable[[int], None]]]:
    settings = load_settings()
    require_files(settings)
    if not settings.encryption_keys:
        raise SettingsError("RECEIVER_ENCRYPTION_KEYS: not set; make a key: echo k1:$(openssl rand -base64 32)")
    database = Database(settings.database_url, patience_seconds=_PATIENCE_SECONDS)
    try:
        with alone(settings.data_dir / "encryption.lock", "change of the encryption"), show_progress() as tell:
            version.require_schema(database)
            yield database, Keyring(settings.encryption_keys), tell
    finally:
        database.close()
