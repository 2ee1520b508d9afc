"""`db`: the schema."""

from __future__ import annotations

import sys
from datetime import timedelta

import click

from receiver.cli.common import as_json, open_runtime, print_json
from receiver.store import rollup, schema
from receiver.store.reporting import make_reader

_PATIENCE_SECONDS = 3600.0


@click.group()
def db() -> None:
    """Look after the database's schema."""


@db.command()
def upgrade() -> None:
    """Bring the schema up to this program's version. Safe to repeat.

    \b
    Example:
      receiver db upgrade
    """
    with open_runtime() as runtime:
        schema.upgrade(runtime.database)
        print(f"schema {schema.current_revision(runtime.database)}")


@db.command()
@as_json
def current(as_json: bool) -> None:
    """Print the schema's version and this program's.

    \b
    Example:
      receiver db current
    """
    with open_runtime() as runtime:
        found, wanted = schema.current_revision(runtime.database), schema.head_revision()
    if as_json:
        print_json({"database": found, "program": wanted})
    else:
        print(f"database {found or 'empty'}, program {wanted}")


@db.command("rollup")
def rollup_() -> None:
    """Add up anew what the delivery report is made of, in the zone of RECEIVER_TIMEZONE. Needed after a change of it.

    Takes seconds for a million messages; pushes wait in the spool meanwhile.

    \b
    Example:
      receiver db rollup
    """
    with open_runtime() as runtime:
        offset = runtime.now().astimezone(runtime.settings.timezone).utcoffset() or timedelta(0)
        seconds = int(offset.total_seconds())
        runtime.database.write(
            lambda connection: rollup.rebuild(connection, offset_seconds=seconds), patience_seconds=_PATIENCE_SECONDS
        )
    print("done")


@db.command()
@click.argument("name")
def reader(name: str) -> None:
    """Make a PostgreSQL role that may read the views of the schema `reporting` and nothing else.

    Prints its password, once, as the last line. Again for the same NAME: a new password. Needs the right to make roles.

    \b
    Example:
      receiver db reader nightly_jobs
    """
    with open_runtime() as runtime:
        password = runtime.database.write(lambda connection: make_reader(connection, name))
        runtime.audit("cli", "reader.make", name=name)
    print(
        f"{name} may read reporting.messages, reporting.receipts and reporting.replies. Its password:", file=sys.stderr
    )
    print(password)
