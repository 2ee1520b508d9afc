"""`db`: the schema, its rollups, and the move to PostgreSQL."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import click

from receiver.audit import verify_audit
from receiver.cli import encryption
from receiver.cli.common import ACTOR, as_json, exclusive, open_runtime, print_json, require_files
from receiver.cli.groups import CommandGroup
from receiver.cli.verify import show_progress
from receiver.config import Settings, database_url, load_settings
from receiver.core import ReceiverError, SettingsError
from receiver.db import migrate, version
from receiver.db.encryption import ColumnEncryption
from receiver.db.engine import Connection, Database
from receiver.intake.admission import Admission
from receiver.maintenance.horizons import Ahead, reopen
from receiver.maintenance.move_to_postgres import move, moved_before, place_of, prepare, undo
from receiver.maintenance.rebuild import rebuild
from receiver.maintenance.verify import verify
from receiver.reporting import rollup
from receiver.reporting.sql_views import READER_CONNECTIONS, make_reader

if TYPE_CHECKING:
    from collections.abc import Callable


_PATIENCE_SECONDS = 3600.0
_COPY_PATIENCE_SECONDS = 24 * 3600.0


@click.group(cls=CommandGroup)
def db() -> None:
    """Manage the database: schema, encryption, move to PostgreSQL."""


for _command in (encryption.encrypt, encryption.rotate, encryption.decrypt):
    db.add_command(_command)


@db.command()
def upgrade() -> None:
    """Upgrade the schema to this program's version, while servers run. Safe to repeat.

    Never waits for a lock long enough to delay a push. Retries for ten minutes, and prints who holds the lock.

    \b
    Example:
      receiver db upgrade
    """
    with open_runtime() as runtime:
        migrate.upgrade(runtime.database, say=partial(print, file=sys.stderr))
        runtime.keep_ages()
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
        revision = version.current_revision(runtime.database)
    if as_json:
        print_json({"database": revision, "program": version.VERSION})
    else:
        print(f"database {revision or 'empty'}, program {version.VERSION}")


@db.command("rebuild-rollups")
@click.option(
    "--reopen",
    "reopens",
    is_flag=True,
    help="First reset retention horizons in the future, left by a prune while the clock was ahead.",
)
def rebuild_rollups(reopens: bool) -> None:
    """Rebuild the rollups of the delivery report, in the zone of RECEIVER_TIMEZONE. Required after changing it.

    Takes seconds for a million messages; meanwhile pushes go to the spool. With --reopen, horizons in the future move
    back to the oldest row, and the rows since then count in the report again.

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
            runtime.audit(ACTOR, "report.reopen", was={each.name: each.at.isoformat() for each in ahead})
    if reopens:
        print(f"reset: {', '.join(map(str, ahead))}" if ahead else "no horizon is in the future")
    print("done")


@db.command("rebuild")
def rebuild_rows() -> None:
    """Recompute messages, receipts and replies from the journal, in place, and print how many rows were wrong.

    Use it if `receiver verify` finds differences. Rows that are right keep their ids and stay untouched; no webhook is
    sent. Meanwhile pushes are stored, and lists show them afterwards.

    \b
    Example:
      receiver db rebuild
    """
    with open_runtime() as runtime:
        runtime.require_database()
        found = rebuild(runtime.database, patience_seconds=_PATIENCE_SECONDS)
        runtime.audit(ACTOR, "db.rebuild", **{name: count for name, count in asdict(found).items() if count})
    if found.nothing:
        print("every row follows from the journal")
    for name, count in asdict(found).items():
        if count:
            print(f"{_REBUILT[name]}: {count}")


_REBUILT = {
    "deleted": "receipts and replies deleted that no push has brought",
    "inserted": "missing rows inserted",
    "corrected": "receipts and replies with a wrong number of copies corrected",
    "states": "message states corrected",
    "report": "hours and days of the delivery report counted again",
}


@db.command()
@click.argument("name")
@click.option(
    "--connections",
    type=click.IntRange(1, 1000),
    default=READER_CONNECTIONS,
    show_default=True,
    help="How many connections the role may have at once.",
)
def create_report_role(name: str, connections: int) -> None:
    """Create a PostgreSQL role that may only read the views of the schema `reporting`.

    Prints its password once, as the last line. Repeat it with the same NAME for a new password or another number of
    connections. Requires CREATEROLE.

    \b
    Examples:
      receiver db create-report-role nightly_jobs
      receiver db create-report-role dbt --connections 20
    """
    with open_runtime() as runtime:
        password = runtime.audited(
            lambda connection: make_reader(connection, name, connections=connections), ACTOR, "reader.make", name=name
        )
    for line in (
        f"{name} may read reporting.messages, reporting.receipts and reporting.replies, and no other table.",
        f"Limit: {connections} connections at once (--connections).",
        "Defaults, which a session may change by SET: read only, ten minutes a statement, one minute idle.",
        "Like every role it may make temporary tables, unless you take that from all but the database's owner:",
        "  REVOKE TEMPORARY ON DATABASE … FROM PUBLIC",
        "Its password:",
    ):
        print(line, file=sys.stderr)
    print(password)


@db.command("copy")
@click.option("--to", "url", metavar="URL", help="postgresql://… of an empty database.")
@click.option("--no-verify", is_flag=True, help="Skip the checks of `receiver verify` on the copy.")
@click.option("--undo", "go_back", is_flag=True, help="Reopen the embedded database for writes.")
def copy_(url: str | None, no_verify: bool, go_back: bool) -> None:
    """Move the embedded database to PostgreSQL while the server runs. Safe to interrupt and to repeat.

    The embedded database is locked meanwhile: pushes go to the spool, and other requests get 503. After the copy is
    verified, the embedded database stays closed to writes, and pushes stay in the spool until you restart the server
    with RECEIVER_DATABASE_URL set. If interrupted earlier, nothing has changed.

    Put the password into PGPASSWORD or ~/.pgpass to keep it out of the process list.

    \b
    Example:
      receiver db copy --to postgresql://receiver@db/receiver
    """
    settings = load_settings()
    require_files(settings)
    if not settings.embedded:
        raise SettingsError("RECEIVER_DATABASE_URL: unset it for the copy; only the embedded database can be moved")
    source = Database(settings.database_url, patience_seconds=_COPY_PATIENCE_SECONDS)
    try:
        with exclusive(settings.data_dir / "copy.lock", "`receiver db copy` of this database"):
            if go_back:
                _print_undone(undone=undo(source))
            else:
                _copy(settings, source, _postgresql_url(url), proves=not no_verify)
    finally:
        source.close()


def _copy(settings: Settings, source: Database, url: str, *, proves: bool) -> None:
    target, place = Database(url, patience_seconds=_COPY_PATIENCE_SECONDS), place_of(url)
    try:
        if moved_before(source, target, place):
            _print_next_steps(settings, place)
            return
        prepare(source, target)
        since = datetime.now(UTC)
        with show_progress() as advance:

            def verify_copy() -> None:
                if proves:
                    print("verifying the copy", file=sys.stderr)
                    _verify_copy(settings, url, advance)

            print("copying: from now on pushes go to the spool", file=sys.stderr)
            moved = move(source, target, place, verify_copy, advance)
    finally:
        target.close()
    print(", ".join(f"{count:,} {name}" for name, count in moved.rows.items() if count))
    if moved.nul_texts:
        print(f"{moved.nul_texts} texts contained NUL, which PostgreSQL cannot store; it is replaced by \u2400")
    verified = ", verified" if proves else ""
    print(f"all rows are in PostgreSQL{verified}; pushes have gone to the spool since {since:%H:%M:%S} UTC")
    _print_next_steps(settings, place)


def _verify_copy(settings: Settings, url: str, advance: Callable[[int], None]) -> None:
    target = Database(
        url, patience_seconds=_COPY_PATIENCE_SECONDS, encryption=ColumnEncryption(settings.encryption_keys)
    )
    try:
        results = (*verify(target, Admission(settings).read_again, advance), verify_audit(target, tell=advance))
    finally:
        target.close()
    failed = [result for result in results if not result.ok]
    if failed:
        details = [detail for result in failed for detail in (result.name, *result.details[:3])]
        raise ReceiverError(
            f"the copy is inconsistent: {'; '.join(details)}. Nothing was moved. If `receiver verify` finds the same "
            "in the embedded database, repair that or add --no-verify"
        )


def _print_next_steps(settings: Settings, place: str) -> None:
    print(f"the database is now {place}; {settings.data_dir} takes writes to the spool only. Next:")
    print("  1. set RECEIVER_DATABASE_URL to it; keep RECEIVER_DATA_DIR")
    print("  2. restart `receiver serve`: it saves the spool to the database")
    print("to go back, before any server has used it: receiver db copy --undo")


def _print_undone(*, undone: bool) -> None:
    if not undone:
        raise ReceiverError("the embedded database was not moved; there is nothing to undo")
    print("the embedded database takes writes again; a running server saves the spool to it")
    print("rows written to PostgreSQL since the copy are only there; drop that database before another copy")


def _postgresql_url(value: str | None) -> str:
    try:
        url = database_url(value or "")
    except ValueError as error:
        raise SettingsError(f"--to: {error}") from None
    if not url.startswith("postgresql"):
        raise SettingsError("--to: required, as postgresql://…")
    return url
