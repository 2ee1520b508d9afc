"""`audit`: the log of reads and changes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from receiver.audit import AuditFilter, AuditFormat, as_fields, iter_audit_file, iter_entries, list_entries
from receiver.cli.common import ACTOR, as_json, open_runtime, print_list
from receiver.cli.groups import CommandGroup
from receiver.core import SettingsError, parse_mobile
from receiver.messages.send_records import parse_filter_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from receiver.runtime import Runtime


def filters(command: Callable[..., None]) -> Callable[..., None]:
    """Add the filter options to a command."""
    for option in (
        click.option("--until", metavar="TIME", help="Entries before this time."),
        click.option("--since", metavar="TIME", help="Entries at or after this time."),
        click.option("--mobile", help="Entries about this number."),
        click.option("--action", help="Entries of this action: look_up, number.reveal, denied, …"),
        click.option("--actor", help="Entries of this actor: user:NAME, key:NAME, cli, …"),
    ):
        command = option(command)
    return command


@click.group(cls=CommandGroup)
def audit() -> None:
    """Read the audit log: who viewed or changed what. `receiver verify` checks that it is complete."""


@audit.command("list")
@filters
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@as_json
def list_(limit: int, as_json: bool, **given: str | None) -> None:
    """List the entries, newest first.

    \b
    Example:
      receiver audit list --mobile 15080921090 --since 2026-11-01
    """
    with open_runtime() as runtime:
        wanted = _filter(runtime, given)
        runtime.audit(ACTOR, "audit.read", mobile=_number(given["mobile"]))
        entries = runtime.ask(lambda connection: list_entries(connection, wanted, limit=limit))
    print_list(
        entries,
        {
            "time": lambda entry: f"{entry.at:%Y-%m-%d %H:%M:%S}Z",
            "actor": lambda entry: entry.actor,
            "action": lambda entry: entry.action,
            "detail": lambda entry: " ".join(f"{name}={value}" for name, value in (entry.detail or {}).items()),
        },
        as_json=as_json,
        fields=as_fields,
        by_line=True,
    )


@audit.command()
@filters
@click.option("--format", "form", type=click.Choice([form.value for form in AuditFormat]), default="ndjson")
def export(form: str, **given: str | None) -> None:
    """Write every entry to standard output, oldest first.

    \b
    Example:
      receiver audit export --format csv --since 2026-07-01 --until 2026-10-01 > audit-q3.csv
    """
    with open_runtime() as runtime:
        wanted = _filter(runtime, given)
        runtime.audit(ACTOR, "audit.export", mobile=_number(given["mobile"]), format=form)
        with runtime.exporting() as connection:
            for piece in iter_audit_file(iter_entries(connection, wanted), AuditFormat(form)):
                sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


def _filter(runtime: Runtime, given: dict[str, str | None]) -> AuditFilter:
    times: dict[str, Any] = {}
    for name in ("since", "until"):
        text = given[name]
        try:
            times[name] = None if text is None else parse_filter_time(text, runtime.settings.timezone)
        except ValueError as error:
            raise SettingsError(f"--{name}: {error}") from None
    number = _number(given["mobile"])
    hashed = None if number is None else runtime.mobile_hmac(number)
    return AuditFilter(actor=given["actor"], action=given["action"], mobile_hmac=hashed, **times)


def _number(text: str | None) -> str | None:
    if text is None:
        return None
    number = parse_mobile(text)
    if number is None:
        raise SettingsError("--mobile: not a phone number")
    return number
