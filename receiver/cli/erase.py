"""`forget`: everything of one number goes."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from receiver.cli.common import as_json, open_runtime, print_json, print_table
from receiver.cli.verify import show_progress
from receiver.core import ReceiverError, is_masked, parse_mobile
from receiver.db.engine import Database
from receiver.intake import spool_state
from receiver.maintenance.erase import NumberPatterns, NumberTraces, find, forget
from receiver.maintenance.vacuum import clean, log_states

if TYPE_CHECKING:
    from receiver.runtime import Runtime

_ACTOR = "cli"
_PATIENCE_SECONDS = 24 * 3600.0  # for all of it
_SPOOL_SECONDS = 20.0  # in which a server that runs saves what waits
_CLOCKS_APART = timedelta(minutes=10)  # of the nodes that give pushes their ids


@click.command("erase")
@click.argument("mobile", required=False)
@click.option("--yes", is_flag=True, help="Delete; without it nothing is changed.")
@click.option("--reason", metavar="TEXT", help="For the audit; without the number.")
@click.option("--rewrite", is_flag=True, help="PostgreSQL: write the tables anew; each is locked meanwhile.")
@click.option("--status", "shows_status", is_flag=True, help="List what was forgotten, and where it may be still.")
@as_json
def erase_(mobile: str | None, yes: bool, reason: str | None, rewrite: bool, shows_status: bool, as_json: bool) -> None:
    """Delete everything of one number: journal, spool, messages, receipts, replies, look-ups. - reads it from stdin.

    Without --yes it says what would go, and changes nothing. Reports keep their counts. Safe to break off and to run
    again. What comes for the number afterwards is new, and is kept. An argument can be seen in the list of processes,
    standard input cannot.

    \b
    Examples:
      echo 15080921090 | receiver erase -
      echo 15080921090 | receiver erase - --yes --reason "request 4711"
      receiver erase --status
    """
    if shows_status == (mobile is not None):
        raise click.UsageError("Give MOBILE, or --status.")
    with open_runtime() as runtime:
        if mobile is None:
            _show_status(runtime, as_json=as_json)
        else:
            number = _number(mobile, runtime, reason)
            _forget(runtime, number, yes=yes, reason=reason, rewrites=rewrite, as_json=as_json)


def _number(text: str, runtime: Runtime, reason: str | None) -> str:
    given = sys.stdin.readline().strip() if text == "-" else text
    number = parse_mobile(given)
    if number is None or is_masked(number):
        raise ReceiverError("MOBILE: not a whole phone number")
    if reason and NumberPatterns(number, (), runtime.admission.read_again).named_in(reason):
        raise ReceiverError("--reason: it names the number, and is kept; leave that out")
    return number


def _forget(runtime: Runtime, mobile: str, *, yes: bool, reason: str | None, rewrites: bool, as_json: bool) -> None:
    runtime.make_ready()  # the database is away: nothing can be forgotten now
    _empty_spool(runtime)
    database = Database(runtime.settings.database_url, patience_seconds=_PATIENCE_SECONDS, sealing=runtime.encryption)
    try:
        since = runtime.now() - _CLOCKS_APART
        with show_progress() as tell:
            found = find(database, mobile, runtime.admission.read_again, tell)
        rows = dict(found.rows)
        if yes:
            # Before it is done, and not with it: who holds the end of the audit's chain holds up everybody else.
            runtime.audit(_ACTOR, "erase", mobile=mobile, reason=reason, **rows)
            rows = forget(
                database,
                mobile,
                runtime.admission.read_again,
                found=found,
                since=since,
                now=runtime.now(),
                actor=_ACTOR,
                reason=reason,
                mobile_hmac=runtime.mobile_hmac(mobile),
            )
            clean(database, runtime.settings.database_url, now=runtime.now, rewrites=rewrites)
        _tell(rows, found, done=yes, embedded=not database.postgresql, as_json=as_json)
    finally:
        database.close()


def _empty_spool(runtime: Runtime) -> None:
    """Have what waits in this node's spool saved, since it may be the number's. Raises ReceiverError."""
    runtime.availability.mark_up()
    runtime.drain(runtime.spool.directory)
    deadline = time.monotonic() + _SPOOL_SECONDS
    while (state := spool_state(runtime.spool.directory)).records and time.monotonic() < deadline:
        time.sleep(0.1)  # a server that runs holds them, and saves them
    if state.records:
        raise ReceiverError(f"{state.records} records wait in the spool and may be the number's; run this again later")
    if state.damaged:
        names = ", ".join(state.damaged)
        raise ReceiverError(f"the spool has files that cannot be read, and may be the number's: {names}; remove them")


def _tell(rows: dict[str, int], found: NumberTraces, *, done: bool, embedded: bool, as_json: bool) -> None:
    if as_json:
        print_json({"done": done, "rows": rows, "mentions": found.mentions})
        return
    verb = "deleted" if done else "would go"
    print(f"{verb}: " + (", ".join(f"{count} {name}" for name, count in rows.items() if count) or "nothing"))
    named = ", ".join(f"{count} {name}" for name, count in found.mentions.items() if count)
    if named:
        print(f"named in what others wrote, which stays: {named}")
    if not done:
        print("nothing was changed; add --yes to delete it")
        return
    if embedded:
        print("the database's file and log were written anew")
    else:
        print("the database's own log has it until it turns over: receiver erase --status")
        print("on each other node, see that its spool is empty: receiver spool status")
    print("backups and archived logs made before have it until they are deleted")


def _show_status(runtime: Runtime, *, as_json: bool) -> None:
    found = log_states(runtime.database)
    if as_json:
        for row, state in found:
            print_json({**row, "log": state})
        return
    print_table(
        ["number", "forgotten", "by", "reason", "rows", "the database's log"],
        [
            [
                row["mobile_hmac"][:12],
                f"{row['forgotten_at']:%Y-%m-%d %H:%M}",
                row["actor"],
                row["reason"],
                sum(row["counts"].values()),
                state,
            ]
            for row, state in found
        ],
    )
