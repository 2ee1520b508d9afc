"""`erase`: delete everything about one number."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from receiver.cli.common import ACTOR, as_json, open_for_long, open_runtime, print_json, print_list
from receiver.cli.verify import show_progress
from receiver.core import CLOCKS_APART, ReceiverError, is_masked, parse_mobile
from receiver.intake.spool import spool_state
from receiver.maintenance.erase import NumberPatterns, NumberTraces, erase_number, find_traces
from receiver.maintenance.vacuum import clean, log_states

if TYPE_CHECKING:
    from receiver.runtime import Runtime

_SPOOL_SECONDS = 20.0  # in which a running server saves its spool


@click.command("erase")
@click.argument("mobile", required=False)
@click.option("--yes", is_flag=True, help="Delete; without it nothing is changed.")
@click.option("--reason", metavar="TEXT", help="For the audit log; without the number.")
@click.option("--rewrite", is_flag=True, help="PostgreSQL: rewrite the tables; each is locked meanwhile.")
@click.option("--status", "shows_status", is_flag=True, help="List past erasures, and where copies may remain.")
@as_json
def erase_(mobile: str | None, yes: bool, reason: str | None, rewrite: bool, shows_status: bool, as_json: bool) -> None:
    """Erase everything about one number: journal, spool, messages, receipts, replies, look-ups. - reads it from stdin.

    Without --yes it prints what it would erase and changes nothing. Reports keep their counts. Safe to interrupt and
    repeat. Later pushes for the number are stored as new. The process list shows an argument, but not standard input.

    \b
    Examples:
      echo 15080921090 | receiver erase -
      echo 15080921090 | receiver erase - --yes --reason "request 4711"
      receiver erase --status
    """
    if shows_status == (mobile is not None):
        raise click.UsageError("Pass MOBILE, or --status.")
    with open_runtime() as runtime:
        if mobile is None:
            _show_status(runtime, as_json=as_json)
        else:
            number = _number(mobile, runtime, reason)
            _erase(runtime, number, yes=yes, reason=reason, rewrites=rewrite, as_json=as_json)


def _number(text: str, runtime: Runtime, reason: str | None) -> str:
    given = sys.stdin.readline().strip() if text == "-" else text
    number = parse_mobile(given)
    if number is None or is_masked(number):
        raise ReceiverError("MOBILE: not a complete phone number")
    if reason and NumberPatterns(number, (), runtime.admission.read_again).named_in(reason):
        raise ReceiverError("--reason must not contain the phone number; it is stored in the audit log")
    return number


def _erase(runtime: Runtime, mobile: str, *, yes: bool, reason: str | None, rewrites: bool, as_json: bool) -> None:
    runtime.make_ready(patient=True)  # raises if the database is unavailable
    _empty_spool(runtime)
    with open_for_long(runtime) as database:
        since = runtime.now() - 2 * CLOCKS_APART  # the clocks of all nodes make the ids of pushes
        with show_progress() as advance:
            traces = find_traces(database, mobile, runtime.admission.read_again, advance)
        rows = dict(traces.rows)
        if yes:
            # Before the erasure, not in its transaction: that would block every other audit entry until its end.
            runtime.audit(ACTOR, "erase", mobile=mobile, reason=reason, **rows)
            rows = erase_number(
                database,
                mobile,
                runtime.admission.read_again,
                found=traces,
                since=since,
                now=runtime.now(),
                actor=ACTOR,
                reason=reason,
                mobile_hmac=runtime.mobile_hmac(mobile),
            )
            clean(database, now=runtime.now, rewrites=rewrites)
        _print_result(rows, traces, done=yes, embedded=not database.postgresql, as_json=as_json)


def _empty_spool(runtime: Runtime) -> None:
    """Save this node's spool to the database, since it may hold the number. Raises ReceiverError."""
    runtime.availability.mark_up()
    runtime.drain(runtime.spool.directory)
    deadline = time.monotonic() + _SPOOL_SECONDS
    while (state := spool_state(runtime.spool.directory)).records and time.monotonic() < deadline:
        time.sleep(0.1)  # a running server holds them, and saves them
    if state.records:
        raise ReceiverError(f"{state.records} records in the spool may hold the number; run this again later")
    if state.damaged:
        names = ", ".join(state.damaged)
        raise ReceiverError(f"unreadable files in the spool may hold the number: {names}; remove them")


def _print_result(rows: dict[str, int], traces: NumberTraces, *, done: bool, embedded: bool, as_json: bool) -> None:
    if as_json:
        print_json({"done": done, "rows": rows, "mentions": traces.mentions})
        return
    verb = "erased" if done else "would be erased"
    print(f"{verb}: " + (", ".join(f"{count} {name}" for name, count in rows.items() if count) or "nothing"))
    mentions = ", ".join(f"{count} {name}" for name, count in traces.mentions.items() if count)
    if mentions:
        print(f"mentioned in texts about other numbers, which stay: {mentions}")
    if not done:
        print("nothing was changed; add --yes to erase it")
        return
    if embedded:
        print("the database's file and log were rewritten")
    else:
        print("the database's log holds it until it is recycled; see: receiver erase --status")
        print("check that the spool of every other node is empty: receiver spool status")
    print("older backups and archived logs hold it until you delete them")


def _show_status(runtime: Runtime, *, as_json: bool) -> None:
    erasures = log_states(runtime.database)
    print_list(
        erasures,
        {
            "number": lambda row: row[0]["mobile_hmac"][:12],
            "erased": lambda row: f"{row[0]['forgotten_at']:%Y-%m-%d %H:%M}",
            "by": lambda row: row[0]["actor"],
            "reason": lambda row: row[0]["reason"],
            "rows": lambda row: sum(row[0]["counts"].values()),
            "the database's log": lambda row: row[1],
        },
        as_json=as_json,
        fields=lambda row: {**row[0], "log": row[1]},
        by_line=True,
    )
