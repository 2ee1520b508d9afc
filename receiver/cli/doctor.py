"""`doctor` and `status`: is it set up right, is it well."""

from __future__ import annotations

import http.client
import json
import os
import re
import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from receiver import __version__
from receiver.alerting import NodeIncidents, find_set_aside
from receiver.auth import api_keys
from receiver.cli.common import (
    as_json,
    find_room,
    open_runtime,
    print_json,
    require_file_of_server,
    require_files,
    room_text,
    secret_line,
)
from receiver.cli.prune import find_unpruned
from receiver.config import Settings, address_text, http_url, load_settings
from receiver.core import ReceiverError, SettingsError, find_fault
from receiver.db import sqlite, version
from receiver.db.clocks import find_difference
from receiver.intake import SecretUse, find_sources, spool_state, within
from receiver.maintenance import prune
from receiver.maintenance.backup_notes import COMMAND, Noted, find_backups
from receiver.maintenance.horizons import list_ahead
from receiver.messages import queries
from receiver.messages.queries import Filter, Page
from receiver.net.certificates import load_pair
from receiver.net.probe import connection_here
from receiver.net.public_check import EndpointFinding, PublicEndpointCheck
from receiver.net.serving import as_served
from receiver.runtime import Runtime
from receiver.webhooks.endpoints import list_targets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


_SERVER_TIMEOUT_SECONDS = 3
_SOURCES_SHOWN = 20
_PROBES_MANY = 20
_PUSHES_A_PROBE = 10  # fewer than so many pushes to each bare request are few
_LOOK_OLD = timedelta(minutes=10)  # it looks each minute
_SAFE_BLOCK_BYTES = 4096  # SQLite's own step in the file that it maps
_COPY_ON_WRITE = {"btrfs", "bcachefs"}
_MOUNTS = Path("/proc/self/mounts")
_MARKS = {True: "ok  ", False: "FAIL", None: "note"}


@click.command()
@click.option(
    "--public-url",
    metavar="[URL]",
    is_flag=False,
    flag_value="",
    help="Look from outside alone, as the platform reaches us (RECEIVER_PUBLIC_URL).",
)
@click.option(
    "--ca",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="PEM file of the roots to believe, instead of this machine's; with --public-url.",
)
@as_json
def doctor(public_url: str | None, ca: Path | None, as_json: bool) -> None:
    """Check settings, data directory, database, schema, keys and server; say what to do about each fault.

    With --public-url it looks from outside instead: name, certificate chain, TLS versions, redirects, and a push of
    its own. Run it on another machine too, with the same settings: some routers answer from inside alone.

    \b
    Examples:
      receiver doctor
      receiver doctor --public-url https://sms.example.com
    """
    if ca is not None and public_url is None:
        raise click.UsageError("--ca goes with --public-url.")
    findings = list(_findings() if public_url is None else _from_outside(public_url, ca))
    if as_json:
        print_json(
            [{"check": name, "ok": ok is not False, "note": ok is None, "text": text} for name, ok, text in findings]
        )
    else:
        for name, ok, text in findings:
            print(f"{_MARKS[ok]}  {name}: {text}")
    if any(ok is False for _, ok, _ in findings):
        sys.exit(1)


def _from_outside(given: str, ca: Path | None) -> Iterator[EndpointFinding]:
    settings = load_settings()
    url = given or settings.public_url
    if not url:
        raise SettingsError("RECEIVER_PUBLIC_URL: not set; set it, or name the URL: --public-url https://HOST")
    try:
        url = http_url(url)
    except ValueError as error:
        raise SettingsError(f"--public-url: {error}") from None
    yield from PublicEndpointCheck(settings, url, ca=ca).check()


def _findings() -> Iterator[tuple[str, bool | None, str]]:
    try:
        settings = as_served(load_settings())
    except SettingsError as error:
        yield "settings", False, str(error)
        return
    yield (
        "settings",
        True,
        f"{len(settings.push_tokens)} push secret(s), accounts: {', '.join(sorted(settings.accounts))}",
    )
    for said in settings.unknown:
        yield "settings", None, said
    yield _data_dir(settings)
    if settings.embedded and (warning := _file_system(settings.data_dir)):
        yield "file system", None, warning
    if settings.tls_cert is not None and settings.tls_key is not None:
        pair = settings.tls_cert, settings.tls_key
        yield _checked("certificate", lambda: f"holds until {load_pair(*pair)[1]:%Y-%m-%d}")
    try:
        require_file_of_server(settings)
    except ReceiverError as error:
        yield "database", False, str(error)
        return
    runtime = Runtime(settings)
    try:
        kind = "embedded" if settings.embedded else "PostgreSQL"
        database = _checked("database", lambda: f"{kind}, schema {_required_schema(runtime)}")
        yield database
        if settings.embedded:
            yield "SQLite", None if sqlite.shortcoming() else True, sqlite.said()
        if database[1]:  # else each of these would say the same again
            yield from _in_database(runtime)
    finally:
        runtime.stop()
    answer = _server(settings)
    yield "server", answer.get("status") == "ok", answer["text"]
    if answer.get("status") == "ok":
        yield _probes(settings)
    yield _backups(settings)
    yield _alarms(settings)


def _in_database(runtime: Runtime) -> Iterator[tuple[str, bool | None, str]]:
    yield _encryption(runtime)
    yield _checked("API keys", lambda: _keys(runtime))
    yield _retention(runtime)
    yield _set_aside(runtime)
    yield _clocks(runtime)
    yield _forwarding(runtime)


def _checked(name: str, check: Callable[[], str]) -> tuple[str, bool, str]:
    try:
        return name, True, check()
    except ReceiverError as error:
        return name, False, str(error)


def _required_schema(runtime: Runtime) -> str:
    version.require_schema(runtime.database)
    return version.current_revision(runtime.database) or ""


def _encryption(runtime: Runtime) -> tuple[str, bool | None, str]:
    name = "encryption"
    try:
        sealer = runtime.database.sealer()
    except ReceiverError as error:
        return name, False, str(error)
    if sealer is not None:
        return name, True, f"on, new rows under the key {sealer.ring.newest}"
    if runtime.settings.encryption_keys:
        return name, False, "there are keys and the database is plain; run `receiver db encrypt`"
    return name, None, "off: what is kept can be read by whoever has the database or a backup of it"


def _keys(runtime: Runtime) -> str:
    now = runtime.now()
    valid = [key.name for key in runtime.ask(api_keys.list_keys) if key.valid(now)]
    if not valid:
        raise ReceiverError("none; make one: receiver keys create me --scope read")
    return f"{len(valid)} valid"


def _retention(runtime: Runtime) -> tuple[str, bool | None, str]:
    try:
        ahead = runtime.ask(lambda connection: list_ahead(connection, runtime.now()))
        unpruned = runtime.ask(lambda connection: find_unpruned(connection, runtime))
    except ReceiverError as error:
        return "retention", False, str(error)
    if ahead:
        return (
            "retention",
            False,
            f"in the future: {', '.join(map(str, ahead))}; if the clock is right: receiver db rebuild-rollups --reopen",
        )
    if not unpruned:
        return "retention", True, "nothing is older than it is kept for"
    kinds = ", ".join(unpruned)
    return (
        "retention",
        None,
        f"not pruned for two days: {kinds}; enable receiver-prune.timer, or run: receiver prune --yes",
    )


def _set_aside(runtime: Runtime) -> tuple[str, bool | None, str]:
    name = "rows"
    try:
        found = runtime.ask(find_set_aside)
    except ReceiverError as error:
        return name, False, str(error)
    if not found:
        return name, True, "every row that was looked at can be read"
    named = "; ".join(f"{rows.count} of {table} ({rows.named})" for table, rows in found.items())
    return name, False, f"left out of what they would end, see RowsSetAside in deploy/RUNBOOK.md: {named}"


def _clocks(runtime: Runtime) -> tuple[str, bool | None, str]:
    try:
        difference = runtime.ask(lambda connection: find_difference(connection, now=runtime.now()))
    except ReceiverError as error:
        return "clocks", False, str(error)
    if difference is None:
        return "clocks", True, "the platform's times are not off by a zone"
    hours, side = abs(difference) / timedelta(hours=1), "ahead of" if difference > timedelta() else "behind"
    zone = runtime.settings.timezone.key
    return (
        "clocks",
        None,
        f"the platform's times are {hours:g} hours {side} this clock; is RECEIVER_TIMEZONE ({zone}) its zone?",
    )


def _forwarding(runtime: Runtime) -> tuple[str, bool | None, str]:
    """Say which targets fail, of those that are not paused."""
    try:
        found = runtime.ask(list_targets)
    except ReceiverError as error:
        return "forwarding", False, str(error)
    failing = [f"{target.name} is failing: {target.last_error}" for target in found if target.state == "failing"]
    if failing:
        return "forwarding", False, f"{'; '.join(failing)}; nothing is lost for three days"
    return "forwarding", True, f"to {len(found)} target(s)" if found else "to nobody"


def _data_dir(settings: Settings) -> tuple[str, bool, str]:
    mode = stat.S_IMODE(settings.data_dir.stat().st_mode)
    if mode & 0o077:
        return "data directory", False, f"others may enter it; chmod 700 {settings.data_dir}"
    if (fault := find_fault(settings.own_files)) is not None:
        return "data directory", False, fault
    return "data directory", True, str(settings.data_dir)


def _file_system(directory: Path) -> str | None:
    """Say why a full disk may end the server there, and not only refuse pushes: SQLite maps a file into memory."""
    block_bytes = os.statvfs(directory).f_bsize
    if block_bytes < _SAFE_BLOCK_BYTES:
        what = f"blocks of {block_bytes} bytes"
        advice = "mkfs.ext4 -b 4096"
    elif file_system_type(directory) in _COPY_ON_WRITE:
        what = "copy-on-write"
        advice = "ext4 or xfs"
    else:
        return None
    return f"{what}: where it is full for the first time, the server may end and start again; better: {advice}"


def file_system_type(path: Path, mounts: Path = _MOUNTS) -> str:
    """Return the type of the file system that holds a path; empty where the system does not tell."""
    try:
        lines = [line.split(" ") for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return ""
    points = [(point.replace("\\040", " "), kind) for _, point, kind, *_ in lines]
    holding = [(point, kind) for point, kind in points if path.resolve().is_relative_to(point)]
    holding.reverse()  # of two mounts on one point the later one is seen
    return max(holding, key=lambda found: len(found[0]), default=("/", ""))[1]


def _server(settings: Settings) -> dict[str, Any]:
    """Ask the running server whether it is ready."""
    connection = connection_here(settings, timeout_seconds=_SERVER_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/readyz")
        body = json.loads(connection.getresponse().read())
        text = body.get("detail") or f"ready, keeps pushes in the {body.get('durable')}"
        return {"status": body.get("status"), "text": text}
    except (OSError, ValueError, http.client.HTTPException):
        return {
            "status": "down",
            "text": f"nothing answers on {address_text(settings.inside)}; start it: receiver serve; "
            f"or, if it runs on another data directory than {settings.data_dir}, name that: RECEIVER_DATA_DIR",
        }
    finally:
        connection.close()


def _probes(settings: Settings) -> tuple[str, bool | None, str]:
    """Return whether bare GETs come at the rate of pushes, as they do where something in front redirects."""
    connection = connection_here(settings, timeout_seconds=_SERVER_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        text = ""
    finally:
        connection.close()
    probes, pushes = (
        int(sum(map(float, re.findall(rf"^receiver_{name}(?:{{[^}}]*}})? ([0-9.e+]+)$", text, re.MULTILINE))))
        for name in ("push_probes_total", "pushes_total")
    )
    if probes < _PROBES_MANY or probes * _PUSHES_A_PROBE < pushes:
        return "probes", True, f"{probes} bare requests to push URLs since the start"
    seen = f"{probes} bare requests to push URLs since the start, beside {pushes} pushes"
    return "probes", None, f"{seen}; does something in front redirect? It loses pushes, and their sender hears ok"


def _backups(settings: Settings) -> tuple[str, bool | None, str]:
    """Return whether backups are made; no fault, since others may make them."""
    found, now = find_backups(settings.data_dir), datetime.now(UTC)
    if not found:
        return "backup", None, f"none was ever made here; enable receiver-backup.timer, or run: {COMMAND} DIRECTORY"
    fine = not any(noted.failing or noted.old(now) for noted in found.values())
    return "backup", fine or None, "; ".join(_backup_line(command, noted) for command, noted in found.items())


def _backup_line(command: str, noted: Noted) -> str:
    made = f"the last by `{command}` was made {_written(noted.made_at)}" if noted.made_at else f"none by `{command}`"
    failed = f", a try failed {_written(noted.failed_at)}" if noted.failed_at and noted.failing else ""
    return made + failed


def _alarms(settings: Settings) -> tuple[str, bool | None, str]:
    """Return whether somebody looks for what is wrong, and whether anybody would be told; Prometheus may do both."""
    looked_at = NodeIncidents(settings.data_dir).looked_at
    notes = [] if settings.alarm_urls else ["nobody is told: set RECEIVER_ALARM_URLS"]
    if looked_at is None or datetime.now(UTC) - looked_at > _LOOK_OLD:
        since = "ever" if looked_at is None else f"since {_written(looked_at)}"
        notes.append(f"`receiver run alarms` has not run here {since}; enable receiver-alarms.timer")
    told = f"{len(settings.alarm_urls)} target(s) are told"
    return "alarms", None if notes else True, "; ".join(notes) or told


@click.command()
@as_json
def status(as_json: bool) -> None:
    """Say how it goes: server, database, the last push, what is quarantined. Works without the database.

    \b
    Example:
      receiver status
    """
    with open_runtime(whatever_files=True) as runtime:
        server = _server(runtime.settings)
        state: dict[str, Any] = {"version": __version__, "server": server["text"]}
        waiting = spool_state(runtime.spool.directory)
        if backups := find_backups(runtime.settings.data_dir):
            state["backup"] = "; ".join(_backup_line(command, noted) for command, noted in backups.items())
        room = room_text(find_room(runtime.settings, waiting))
        state["spool"] = f"{waiting.records} records, {waiting.bytes} bytes{room}" if waiting.bytes else "empty"
        try:
            require_files(runtime.settings)
            state |= {"database": "ok"} | runtime.ask(lambda connection: _journal(runtime, connection))
            uses = runtime.list_secret_uses()
            state["push_secrets"] = [_use_row(use, runtime.now()) for use in uses]
            if not runtime.settings.push_allow_enforced:
                state["would_refuse"] = runtime.ask(lambda connection: _would_refuse(runtime, connection))
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


def _journal(runtime: Runtime, connection: Any) -> dict[str, Any]:
    newest = queries.list_pushes(connection, Page(limit=1))
    day_ago = runtime.now() - timedelta(days=1)
    quarantined = Page(limit=1000, filter=Filter(outcome="quarantined", received_from=day_ago))
    count = len(queries.list_pushes(connection, quarantined))
    horizons = prune.list_horizons(connection)
    pruned = {f"{kind}_whole_since": _written(found.horizon) for kind, found in horizons.items()}
    return {
        **pruned,
        "last_push": _written(newest[0].received_at) if newest else "none yet; see `receiver push-url`",
        "quarantined_last_day": f"{count}{'+' if count == quarantined.limit else ''}",
    }


def _use_row(use: SecretUse, now: datetime) -> dict[str, Any]:
    return {
        "account": use.account,
        "secret": use.name,
        "last_push": _written(use.last_used_at) if use.last_used_at else None,
        "pushes": use.pushes,
        "can_be_removed": use.can_go(now),
        "text": f"{use.account}: {secret_line(use, now)}",
    }


def _would_refuse(runtime: Runtime, connection: Any) -> list[dict[str, Any]]:
    """Say which addresses of the last day RECEIVER_PUSH_ALLOW would refuse, were it enforced."""
    allowed = runtime.settings.push_allow
    found = find_sources(connection, since=runtime.now() - timedelta(days=1)).found if allowed else []
    refused = [source for source in found if not within(source.address, allowed)]
    return [
        {
            "address": source.address,
            "pushes": source.pushes,
            "last_push": _written(source.last_at),
            "text": f"{source.address}: {source.pushes} pushes in a day, the last {_written(source.last_at)}",
        }
        for source in refused[:_SOURCES_SHOWN]
    ]


def _written(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}Z"
