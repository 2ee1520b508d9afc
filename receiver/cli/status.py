"""`status`: prints the state."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from receiver import __version__
from receiver.cli.common import as_json, open_store, print_json, require_files
from receiver.cli.state import ask_server, backup_line, find_platform, find_room, room_text, secret_line, time_text
from receiver.config import SPOOL_DIR, within
from receiver.core import ReceiverError
from receiver.intake.secret_usage import find_uses
from receiver.intake.sources import find_sources
from receiver.intake.spool import spool_state
from receiver.maintenance.backup_notes import find_backups
from receiver.maintenance.retention import list_horizons
from receiver.messages.journal import find_newest_push_at, find_oldest_pending
from receiver.support.arrivals import count_quarantined

if TYPE_CHECKING:
    from datetime import datetime

    from receiver.intake.secret_usage import SecretUse
    from receiver.store import Store

_SOURCES_SHOWN = 20
_COUNTED_MAX = 1000


@click.command()
@as_json
def status(as_json: bool) -> None:
    """Print the state of server, database, spool and pushes. Works without the database.

    \b
    Example:
      receiver status
    """
    with open_store(check_files=False) as store:
        server = ask_server(store.settings)
        state: dict[str, Any] = {"version": __version__, "server": server["text"]}
        waiting = spool_state(store.settings.data_dir / SPOOL_DIR)
        if backups := find_backups(store.settings.data_dir):
            state["backup"] = "; ".join(backup_line(command, backup) for command, backup in backups.items())
        room = room_text(find_room(store.settings, waiting))
        state["spool"] = f"{waiting.records} records, {waiting.bytes} bytes{room}" if waiting.bytes else "empty"
        try:
            require_files(store.settings)
            state |= {"database": "ok"} | store.ask(lambda connection: _journal(store, connection))
            state["platform"] = find_platform(store)[1]
            uses = store.ask(lambda connection: find_uses(connection, store.settings.push_tokens))
            state["push_secrets"] = [_use_row(use, store.now()) for use in uses]
            if not store.settings.push_allow_enforced:
                state["would_refuse"] = store.ask(lambda connection: _would_refuse(store, connection))
        except ReceiverError as error:
            state["database"] = str(error)
    if as_json:
        print_json(state)
    else:
        for name, value in state.items():
            for line in [value] if isinstance(value, str) else (row["text"] for row in value):
                print(f"{name.replace('_', ' ')}: {line}")
    if server["status"] != "ok" or state["database"] != "ok":
        sys.exit(1)


def _journal(store: Store, connection: Any) -> dict[str, Any]:
    newest_at, behind = find_newest_push_at(connection), find_oldest_pending(connection)
    count = count_quarantined(connection, since=store.now() - timedelta(days=1), at_most=_COUNTED_MAX)
    horizons = list_horizons(connection)
    pruned = {f"{kind}_whole_since": time_text(state.horizon) for kind, state in horizons.items()}
    return {
        **pruned,
        "projection": "up to date" if behind is None else f"{behind:.1f} s behind",
        "last_push": time_text(newest_at) if newest_at else "none yet; see `receiver push-url`",
        "quarantined_last_day": f"{count}{'+' if count == _COUNTED_MAX else ''}",
    }


def _use_row(use: SecretUse, now: datetime) -> dict[str, Any]:
    return {
        "account": use.account,
        "secret": use.name,
        "last_push": time_text(use.last_used_at) if use.last_used_at else None,
        "pushes": use.pushes,
        "can_be_removed": use.can_go(now),
        "text": f"{use.account}: {secret_line(use, now)}",
    }


def _would_refuse(store: Store, connection: Any) -> list[dict[str, Any]]:
    """Return which addresses of the last day RECEIVER_PUSH_ALLOW would refuse if it were enforced."""
    allowed = store.settings.push_allow
    sources = find_sources(connection, since=store.now() - timedelta(days=1)).found if allowed else []
    refused = [source for source in sources if not within(source.address, allowed)]
    return [
        {
            "address": source.address,
            "pushes": source.pushes,
            "last_push": time_text(source.last_at),
            "text": f"{source.address}: {source.pushes} pushes in a day, the last {time_text(source.last_at)}",
        }
        for source in refused[:_SOURCES_SHOWN]
    ]
