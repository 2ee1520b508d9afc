"""`audit`: who looked at what, and who changed what."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from receiver.audit import AuditFilter, AuditFormat, as_fields, iter_audit_file, iter_entries, list_entries
from receiver.cli.common import as_json, open_runtime, print_json, print_table
from receiver.core import SettingsError, parse_mobile
from receiver.messages import parse_filter_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from receiver.runtime import Runtime

_ACTOR = "cli"


def filters(command: Callable[..., None]) -> Callable[..., None]:
    """Add what entries can be narrowed to."""
    for option in (
        click.option("--until", metavar="TIME", help="Before then."),
        click.option("--since", metavar="TIME", help="Then or later."),
        click.option("--mobile", help="About this number."),
        click.option("--action", help="What: look_up, number.reveal, denied, …"),
        click.option("--actor", help="Who: user:NAME, key:NAME, cli, …"),
    ):
        command = option(command)
    return command


@click.group()
def audit() -> None:
    """Read who looked at what, and who changed what. `receiver verify` proves that nothing is missing."""


@audit.command("list")
@filters
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@as_json
def list_(limit: int, as_json: bool, **given: str | None) -> None:
    """List the newest entries first.

    \b
    Example:
      receiver audit list --mobile 15080921090 --since 2026-11-01
    """
    with open_runtime() as runtime:
        asked = _asked(runtime, given)
        runtime.audit(_ACTOR, "audit.read", mobile=_number(given["mobile"]))
        found = runtime.ask(lambda connection: list_entries(connection, asked, limit=limit))
    if as_json:
        for entry in found:
            print_json(as_fields(entry))
        return
    rows = [
        (f"{entry.at:%Y-%m-%d %H:%M:%S}Z", entry.actor, entry.action, _words(entry.detail or {})) for entry in found
    ]
    print_table(["when", "who", "what", "more"], rows)


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
        asked = _asked(runtime, given)
        runtime.audit(_ACTOR, "audit.export", mobile=_number(given["mobile"]), format=form)
        with runtime.exporting() as connection:
            for piece in iter_audit_file(iter_entries(connection, asked), AuditFormat(form)):
                sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


def _asked(runtime: Runtime, given: dict[str, str | None]) -> AuditFilter:
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


def _words(detail: Any) -> str:
    return " ".join(f"{name}={value}" for name, value in detail.items())
