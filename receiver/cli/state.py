"""Lines about the state of server, spool, push secrets, platform and backups, as several commands print them."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from receiver.alerting.push_flow import find_push_flow
from receiver.alerting.rules import find_silence, hours_of
from receiver.alerting.texts import explain
from receiver.config import SPOOL_DIR, address_text
from receiver.core import ReceiverError, find_disk
from receiver.intake.secret_usage import UNUSED_FOR, find_uses
from receiver.intake.spool import seconds_left, spool_state
from receiver.net.egress_policy import EgressError
from receiver.net.probe import ask_own_server, is_listening

if TYPE_CHECKING:
    from datetime import datetime

    from receiver.config import Settings
    from receiver.intake.secret_usage import SecretUse
    from receiver.intake.spool import SpoolState
    from receiver.maintenance.backup_notes import Noted
    from receiver.store import Store

SERVER_TIMEOUT_SECONDS = 3


def ask_server(settings: Settings) -> dict[str, Any]:
    """Return the running server's status, and a text about it."""
    down = {
        "status": "down",
        "text": f"nothing answers on {address_text(settings.inside)}; start it: receiver serve; "
        f"or set RECEIVER_DATA_DIR, if its data directory is not {settings.data_dir}",
    }
    if not is_listening(settings):  # else the HTTP client is loaded, which takes longer than all that follows
        return down
    try:
        body = json.loads(ask_own_server(settings, "/readyz", seconds=SERVER_TIMEOUT_SECONDS)[1])
        text = body.get("detail") or f"ready, stores pushes in the {body.get('durable')}"
        return {"status": body.get("status"), "text": text}
    except (EgressError, ValueError):
        return down


def find_room(settings: Settings, state: SpoolState) -> float | None:
    """Return for how many seconds the spool has room at its current rate; None if unknown."""
    disk = find_disk(settings.data_dir)
    return seconds_left(state, max_bytes=settings.spool_max_bytes, disk=disk, now=time.time())


def room_text(seconds: float | None) -> str:
    """Return for how long there is room, to append to a line; empty if unknown."""
    return "" if seconds is None else f"; room for {hours_of(seconds)} more hours at the current rate"


def secret_lines(store: Store) -> list[str]:
    """Return a line for each push secret, in the order of the settings; [] without a database."""
    try:
        uses = store.ask(lambda connection: find_uses(connection, store.settings.push_tokens))
    except ReceiverError:
        return []
    return [secret_line(use, store.now()) for use in uses]


def secret_line(use: SecretUse, now: datetime) -> str:
    """Return a push secret's name, its last use, and whether it can be removed."""
    last = f"last push {use.last_used_at:%Y-%m-%dT%H:%M:%S}Z" if use.last_used_at else "no push noted yet"
    removable = f"; unused for {UNUSED_FOR.days} days: can be removed" if use.can_go(now) else ""
    return f"{use.name}, {last}{removable}"


def find_platform(store: Store) -> tuple[bool | None, str]:
    """Return whether the platform pushes what it owes, by the rule of the alarm; None: nothing has come yet."""
    now = store.now()
    spooled = bool(spool_state(store.settings.data_dir / SPOOL_DIR).bytes)
    try:
        flow = store.ask(lambda connection: find_push_flow(connection, now=now))
    except ReceiverError as error:
        return False, str(error)
    silence = find_silence(flow, spooled=spooled, now=now, silent_after=store.settings.alarm_silent)
    untried = flow.last_push_at is None and not spooled
    if silence is not None:
        return False, f"{'nothing has come yet' if untried else 'silent'}: {explain(silence, 'en')}"
    if untried:
        return None, "nothing has come yet; see `receiver push-url`"
    last = "in the spool" if flow.last_push_at is None else time_text(flow.last_push_at)
    return True, f"pushes, the last: {last}"


def backup_line(command: str, backup: Noted) -> str:
    """Return when a command last made a backup, and whether it failed since."""
    made = f"last by `{command}`: {time_text(backup.made_at)}" if backup.made_at else f"none by `{command}`"
    failed = f", failed {time_text(backup.failed_at)}" if backup.failed_at and backup.failing else ""
    return made + failed


def time_text(moment: datetime) -> str:
    """Return a time to the second."""
    return f"{moment:%Y-%m-%dT%H:%M:%S}Z"
