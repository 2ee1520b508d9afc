"""`db encrypt`, `db rotate`, `db decrypt`: the encryption of the database."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from receiver.cli.common import exclusive, require_files
from receiver.cli.verify import show_progress
from receiver.config import load_settings
from receiver.core import SettingsError
from receiver.db import version
from receiver.db.encryption.ciphers import Keyring
from receiver.db.engine import Database
from receiver.maintenance import rekey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PATIENCE_SECONDS = 3600.0


@click.command()
def encrypt() -> None:
    """Encrypt a database's numbers and contents by the first of RECEIVER_ENCRYPTION_KEYS. Safe to interrupt and repeat.

    First set the keys on every node and restart it. Meanwhile pushes go to the spool, and other requests get 503. Keep
    a copy of the keys apart from the database's backups: without the keys the data is lost.

    \b
    Example:
      receiver db encrypt
    """
    with _open() as (database, ring, advance):
        print("encrypting: from now on pushes go to the spool", file=sys.stderr)
        count = rekey.encrypt(database, ring, advance)
        postgresql = database.postgresql
    print(f"{count:,} rows encrypted; the database takes pushes again")
    if postgresql:
        print("its files hold the old, plain rows until VACUUM FULL; so do its logs and older backups")
    else:
        print("older backups still hold the plain rows")


@click.command()
def rotate() -> None:
    """Encrypt again, by the first of RECEIVER_ENCRYPTION_KEYS, the rows of other keys, while the server runs.

    Put the new key first, leave the old one after it, and restart every node; then run this. Safe to interrupt and
    repeat. It prints when the old key is no longer needed.

    \b
    Example:
      receiver db rotate
    """
    with _open() as (database, ring, advance):
        count, late = rekey.rotate(database, ring, advance)
    print(f"{count + late:,} rows encrypted again, by the key {ring.newest}")
    if late:
        print(f"{late:,} of them were written meanwhile by another key: restart every node, then run this again")
        sys.exit(1)
    print("no row needs another key. Remove the others once no spool file is older than this, here or in a backup")


@click.command()
def decrypt() -> None:
    """Decrypt a database's numbers and contents for good. Safe to interrupt and repeat.

    Meanwhile pushes go to the spool, and other requests get 503. Keep the keys as long as a spool file or a backup
    needs them.

    \b
    Example:
      receiver db decrypt
    """
    with _open() as (database, ring, advance):
        print("decrypting: from now on pushes go to the spool", file=sys.stderr)
        count = rekey.decrypt(database, ring, advance)
    print(f"{count:,} rows decrypted; the database takes pushes again")


@contextmanager
def _open() -> Iterator[tuple[Database, Keyring, Callable[[int], None]]]:
    settings = load_settings()
    require_files(settings)
    if not settings.encryption_keys:
        raise SettingsError("RECEIVER_ENCRYPTION_KEYS: not set; create a key: echo k1:$(openssl rand -base64 32)")
    database = Database(settings.database_url, patience_seconds=_PATIENCE_SECONDS)
    try:
        with exclusive(settings.data_dir / "encryption.lock", "encryption change"), show_progress() as advance:
            version.require_schema(database)
            yield database, Keyring(settings.encryption_keys), advance
    finally:
        database.close()
