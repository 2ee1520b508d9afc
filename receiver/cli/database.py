"""`db`: the schema, and where the database is."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import click

from receiver.audit import verify_audit
from receiver.cli import encryption
from receiver.cli.common import alone, as_json, open_runtime, print_json, require_files
from receiver.cli.verify import show_progress
from receiver.config import Settings, database_url, load_settings
from receiver.core import ReceiverError, SettingsError
from receiver.db import migrate, version
from receiver.db.encryption import ColumnEncryption
from receiver.db.engine import Connection, Database
from receiver.intake import Admission
from receiver.maintenance.horizons import Ahead, reopen
from receiver.maintenance.move_to_postgres import Copy, place_of, undo
from receiver.maintenance.verify import verify
from receiver.reporting import rollup
from receiver.reporting.sql_views import make_reader

if TYPE_CHECKING:
    from collections.abc import Callable


_PATIENCE_SECONDS = 3600.0
_COPY_PATIENCE_SECONDS = 24 * 3600.0


@click.group()
def db() -> None:
    """Look after the database: its schema, its place, its encryption."""


for _command in (encryption.encrypt, encryption.rotate, encryption.decrypt):
    db.add_command(_command)


@db.command()
def upgrade() -> None:
    """Bring the schema up to this program's version, while others are at work with it. Safe to repeat.

    Waits for no lock so long that a push would notice, tries again for ten minutes, and says who holds it.

    \b
    Example:
      receiver db upgrade
    """
    with open_runtime() as runtime:
        migrate.upgrade(runtime.database, say=partial(print, file=sys.stderr))
        print(f"schema {version.current_revision(runtime.database)}")


@db.command()
@as_json
def current(as_json: bool) -> None:
    """Print the schema's version and this program's.

    \b
    Example:
      receiver db current
    """
    with open_runtime() as runtime:
        found, wanted = version.current_revision(runtime.database), version.VERSION
    if as_json:
        print_json({"database": found, "program": wanted})
    else:
        print(f"database {found or 'empty'}, program {wanted}")


@db.command("rebuild-rollups")
@click.option(
    "--reopen",
    "reopens",
    is_flag=True,
    help="First set back what a prune with a clock that was ahead has left in the future.",
)
def rollup_(reopens: bool) -> None:
    """Add up anew what the delivery report is made of, in the zone of RECEIVER_TIMEZONE. Needed after a change of it.

    Takes seconds for a million messages; pushes wait in the spool meanwhile. With --reopen, horizons in the future go
    back to where rows begin, and what came since then counts in the report again.

    \b
    Examples:
      receiver db rebuild-rollups
      receiver db rebuild-rollups --reopen
    """
    with open_runtime() as runtime:
        now = runtime.now()
        offset = now.astimezone(runtime.settings.timezone).utcoffset() or timedelta(0)
        seconds = int(offset.total_seconds())

        def work(connection: Connection) -> list[Ahead]:
            ahead = reopen(connection, now) if reopens else []
            rollup.rebuild(connection, offset_seconds=seconds)
            return ahead

        ahead = runtime.database.write(work, patience_seconds=_PATIENCE_SECONDS)
        if ahead:
            runtime.audit("cli", "report.reopen", was={each.name: each.at.isoformat() for each in ahead})
    if reopens:
        print(f"set back: {', '.join(map(str, ahead))}" if ahead else "nothing lies in the future")
    print("done")


@db.command()
@click.argument("name")
def create_report_role(name: str) -> None:
    """Make a PostgreSQL role that may read the views of the schema `reporting` and nothing else.

    Prints its password, once, as the last line. Again for the same NAME: a new password. Needs the right to make roles.

    \b
    Example:
      receiver db create-report-role nightly_jobs
    """
    with open_runtime() as runtime:
        password = runtime.audited(lambda connection: make_reader(connection, name), "cli", "reader.make", name=name)
    print(
        f"{name} may read reporting.messages, reporting.receipts and reporting.replies. Its password:", file=sys.stderr
    )
    print(password)


@db.command("copy")
@click.option("--to", "url", metavar="URL", help="postgresql://… of an empty database.")
@click.option("--no-verify", is_flag=True, help="Do without the proof that `receiver verify` gives of the copy.")
@click.option("--undo", "go_back", is_flag=True, help="Take writes into the embedded database again.")
def copy_(url: str | None, no_verify: bool, go_back: bool) -> None:
    """Move the embedded database into PostgreSQL while the server runs. Safe to break off and to run again.

    It copies while pushes come in. Then it holds the embedded database for the rest: pushes go to the spool, questions
    are answered 503. Once all is proved to be there, the embedded database takes no more writes, and pushes wait in the
    spool until the server is started with RECEIVER_DATABASE_URL set. Broken off before, nothing has changed.

    The password may come from PGPASSWORD or ~/.pgpass, so that nobody sees it in the list of processes.

    \b
    Example:
      receiver db copy --to postgresql://receiver@db/receiver
    """
    settings = load_settings()
    require_files(settings)
    if not settings.embedded:
        raise SettingsError("RECEIVER_DATABASE_URL: it is what an embedded database is moved to; unset it for the copy")
    source = Database(settings.database_url, patience_seconds=_COPY_PATIENCE_SECONDS)
    try:
        with alone(settings.data_dir / "copy.lock", "`receiver db copy` of this database"):
            if go_back:
                _tell_undone(undone=undo(source))
            else:
                _copy(settings, source, _postgresql_url(url), proves=not no_verify)
    finally:
        source.close()


def _copy(settings: Settings, source: Database, url: str, *, proves: bool) -> None:
    target = Database(url, patience_seconds=_COPY_PATIENCE_SECONDS)
    try:
        with show_progress() as tell:
            copy = Copy(source, target, place_of(url), tell)
            if copy.moved_before():
                _tell_moved(settings, copy)
                return
            copy.prepare()
            print("copying, while pushes come in", file=sys.stderr)
            copy.catch_up()
            print("copying the rest: from now on pushes go to the spool", file=sys.stderr)
            since = datetime.now(UTC)
            rows = copy.finish(lambda: _prove(settings, url, tell) if proves else None)
    finally:
        target.close()
    print(", ".join(f"{count:,} {name}" for name, count in rows.items() if count))
    if copy.nul_texts:
        print(f"{copy.nul_texts} texts held NUL, which PostgreSQL does not take; they hold its picture now")
    print(
        f"all of it is in PostgreSQL{', verified' if proves else ''}; pushes go to the spool since {since:%H:%M:%S} UTC"
    )
    _tell_moved(settings, copy)


def _prove(settings: Settings, url: str, tell: Callable[[int], None]) -> None:
    target = Database(url, patience_seconds=_COPY_PATIENCE_SECONDS, sealing=ColumnEncryption(settings.encryption_keys))
    try:
        found = (*verify(target, Admission(settings).read_again, tell), verify_audit(target, tell=tell))
    finally:
        target.close()
    wrong = [finding for finding in found if not finding.ok]
    if wrong:
        details = [detail for finding in wrong for detail in (finding.name, *finding.details[:3])]
        raise ReceiverError(
            f"the copy does not agree: {'; '.join(details)}. Nothing was moved; does `receiver verify` say the same of "
            "the embedded database? Then mend that, or add --no-verify"
        )


def _tell_moved(settings: Settings, copy: Copy) -> None:
    print(f"the database is {copy.place} now, and {settings.data_dir} takes no more writes but to the spool. Next:")
    print("  1. set RECEIVER_DATABASE_URL to it; leave RECEIVER_DATA_DIR as it is")
    print("  2. restart `receiver serve`: it saves by itself what waits in the spool")
    print("back, as long as no server has run on it: receiver db copy --undo")


def _tell_undone(*, undone: bool) -> None:
    if not undone:
        raise ReceiverError("the embedded database was not moved; there is nothing to undo")
    print("the embedded database takes writes again, and a server that runs saves what waits in the spool")
    print("what PostgreSQL has taken since is only there; drop it before another copy")


def _postgresql_url(value: str | None) -> str:
    try:
        url = database_url(value or "")
    except ValueError as error:
        raise SettingsError(f"--to: {error}") from None
    if not url.startswith("postgresql"):
        raise SettingsError("--to: give the postgresql://… to move to")
    return url
