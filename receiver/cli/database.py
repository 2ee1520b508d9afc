"""`db`: the schema."""

from __future__ import annotations

import click

from receiver.cli.common import as_json, open_runtime, print_json
from receiver.store import schema


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
