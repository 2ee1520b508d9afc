"""`doctor`: checks the setup."""

from __future__ import annotations

import os
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from receiver.alerting.figures import find_set_aside
from receiver.alerting.node_state import NodeIncidents
from receiver.auth import api_keys
from receiver.cli.common import as_json, print_json, require_file_of_server
from receiver.cli.state import SERVER_TIMEOUT_SECONDS, ask_server, backup_line, find_platform, time_text
from receiver.config import Settings, http_url, load_settings
from receiver.core import ReceiverError, SettingsError, exposure, find_fault
from receiver.db import sqlite, version
from receiver.db.clocks import find_difference
from receiver.maintenance.backup_notes import COMMAND, find_backups
from receiver.maintenance.horizons import list_ahead
from receiver.maintenance.retention import find_unpruned
from receiver.net.certificates import load_pair
from receiver.net.egress_policy import EgressError
from receiver.net.probe import ask_own_server
from receiver.net.public_check import EndpointFinding, PublicEndpointCheck
from receiver.net.serving import as_served
from receiver.runtime import Runtime
from receiver.webhooks.endpoints import list_endpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


_SOURCES_SHOWN = 20
_PROBES_MANY = 20
_PUSHES_PER_PROBE = 10  # fewer pushes per empty request are suspicious
_CHECK_OLD = timedelta(minutes=10)  # alarms are checked every minute
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
    help="Only check the public URL, as the platform reaches it (default: RECEIVER_PUBLIC_URL).",
)
@click.option(
    "--ca",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="PEM file of root certificates to trust instead of this machine's; with --public-url.",
)
@as_json
def doctor(public_url: str | None, ca: Path | None, as_json: bool) -> None:
    """Check settings, data directory, database, schema, keys and server, and print how to fix each fault.

    With --public-url it checks the public URL instead: name, certificate chain, TLS versions, redirects, and a test
    push. Run it on another machine too, with the same settings: some routers answer only inside their own network.

    \b
    Examples:
      receiver doctor
      receiver doctor --public-url https://sms.example.com
    """
    if ca is not None and public_url is None:
        raise click.UsageError("--ca goes with --public-url.")
    findings = list(_findings() if public_url is None else _check_public_url(public_url, ca))
    if as_json:
        print_json(
            [{"check": name, "ok": ok is not False, "note": ok is None, "text": text} for name, ok, text in findings]
        )
    else:
        for name, ok, text in findings:
            print(f"{_MARKS[ok]}  {name}: {text}")
    if any(ok is False for _, ok, _ in findings):
        sys.exit(1)


def _check_public_url(given: str, ca: Path | None) -> Iterator[EndpointFinding]:
    settings = load_settings()
    url = given or settings.public_url
    if not url:
        raise SettingsError("RECEIVER_PUBLIC_URL: not set; set it, or pass the URL: --public-url https://HOST")
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
    for reason in settings.unknown:
        yield "settings", None, reason
    yield _data_dir(settings)
    if settings.embedded and (warning := _file_system(settings.data_dir)):
        yield "file system", None, warning
    if settings.tls_cert is not None and settings.tls_key is not None:
        pair = settings.tls_cert, settings.tls_key
        yield _checked("certificate", lambda: f"valid until {load_pair(*pair)[1]:%Y-%m-%d}")
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
        if database[1]:  # else each of these would repeat its fault
            yield from _in_database(runtime)
    finally:
        runtime.stop()
    answer = ask_server(settings)
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
    yield "platform", *find_platform(runtime)
    yield _clocks(runtime)
    yield _webhooks(runtime)


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
        cipher = runtime.database.cipher()
    except ReceiverError as error:
        return name, False, str(error)
    if cipher is not None:
        return name, True, f"on; new rows use the key {cipher.ring.newest}"
    if runtime.settings.encryption_keys:
        return name, False, "keys are set, but the database is not encrypted; run `receiver db encrypt`"
    return name, None, "off: the database and its backups are readable without a key"


def _keys(runtime: Runtime) -> str:
    now = runtime.now()
    valid = [key.name for key in runtime.ask(api_keys.list_keys) if key.valid(now)]
    if not valid:
        raise ReceiverError("none; create one: receiver keys create me --scope read")
    return f"{len(valid)} valid"


def _retention(runtime: Runtime) -> tuple[str, bool | None, str]:
    try:
        ahead = runtime.ask(lambda connection: list_ahead(connection, runtime.now()))
        unpruned = runtime.ask(lambda connection: find_unpruned(connection, runtime.settings, runtime.now()))
    except ReceiverError as error:
        return "retention", False, str(error)
    if ahead:
        return (
            "retention",
            False,
            f"in the future: {', '.join(map(str, ahead))}; if the clock is right: receiver db rebuild-rollups --reopen",
        )
    if not unpruned:
        return "retention", True, "no data is past its retention period"
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
        return name, True, "every checked row is readable"
    named = "; ".join(f"{rows.count} of {table} ({rows.named})" for table, rows in found.items())
    return name, False, f"unreadable rows set aside, see `receiver docs RowsSetAside`: {named}"


def _clocks(runtime: Runtime) -> tuple[str, bool | None, str]:
    try:
        difference = runtime.ask(lambda connection: find_difference(connection, now=runtime.now()))
    except ReceiverError as error:
        return "clocks", False, str(error)
    if difference is None:
        return "clocks", True, "the platform's times fit the time zone"
    hours, side = abs(difference) / timedelta(hours=1), "ahead of" if difference > timedelta() else "behind"
    zone = runtime.settings.timezone.key
    return (
        "clocks",
        None,
        f"the platform's times are {hours:g} hours {side} this clock; check RECEIVER_TIMEZONE ({zone})",
    )


def _webhooks(runtime: Runtime) -> tuple[str, bool | None, str]:
    """Return which webhooks fail, paused ones left out."""
    name = "webhooks"
    try:
        webhooks = runtime.ask(list_endpoints)
    except ReceiverError as error:
        return name, False, str(error)
    failing = [f"{webhook.name} is failing: {webhook.last_error}" for webhook in webhooks if webhook.state == "failing"]
    if failing:
        return name, False, f"{'; '.join(failing)}; deliveries are retried for three days"
    return name, True, f"{len(webhooks)} configured" if webhooks else "none configured"


def _data_dir(settings: Settings) -> tuple[str, bool, str]:
    if (fault := exposure(settings.data_dir) or find_fault(settings.own_files)) is not None:
        return "data directory", False, fault
    return "data directory", True, str(settings.data_dir)


def _file_system(directory: Path) -> str | None:
    """Return why a full disk may crash the server, not only refuse pushes: SQLite maps a file into memory."""
    block_bytes = os.statvfs(directory).f_bsize
    if block_bytes < _SAFE_BLOCK_BYTES:
        what = f"blocks of {block_bytes} bytes"
        advice = "mkfs.ext4 -b 4096"
    elif file_system_type(directory) in _COPY_ON_WRITE:
        what = "copy-on-write"
        advice = "ext4 or xfs"
    else:
        return None
    return f"{what}: when it first fills up, the server may crash and restart; better: {advice}"


def file_system_type(path: Path, mounts: Path = _MOUNTS) -> str:
    """Return the type of the file system that holds a path; empty if unknown."""
    try:
        lines = [line.split(" ") for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return ""
    points = [(point.replace("\\040", " "), kind) for _, point, kind, *_ in lines]
    holding = [(point, kind) for point, kind in points if path.resolve().is_relative_to(point)]
    holding.reverse()  # a later mount hides an earlier one on the same point
    return max(holding, key=lambda found: len(found[0]), default=("/", ""))[1]


def _probes(settings: Settings) -> tuple[str, bool | None, str]:
    """Return whether empty requests come as often as pushes, as they do behind a redirect."""
    try:
        text = ask_own_server(settings, "/metrics", seconds=SERVER_TIMEOUT_SECONDS)[1].decode(errors="replace")
    except EgressError:
        text = ""
    probes, pushes = (
        int(sum(map(float, re.findall(rf"^receiver_{name}(?:{{[^}}]*}})? ([0-9.e+]+)$", text, re.MULTILINE))))
        for name in ("push_probes_total", "pushes_total")
    )
    if probes < _PROBES_MANY or probes * _PUSHES_PER_PROBE < pushes:
        return "probes", True, f"{probes} empty requests to push URLs since the start"
    seen = f"{probes} empty requests and {pushes} pushes to push URLs since the start"
    return "probes", None, f"{seen}; a proxy that redirects loses pushes, and the platform still gets an ok: check it"


def _backups(settings: Settings) -> tuple[str, bool | None, str]:
    """Return whether backups are made. Never a fault: another tool may make them."""
    backups, now = find_backups(settings.data_dir), datetime.now(UTC)
    if not backups:
        return "backup", None, f"none made here yet; enable receiver-backup.timer, or run: {COMMAND} DIRECTORY"
    fine = not any(backup.failing or backup.old(now) for backup in backups.values())
    return "backup", fine or None, "; ".join(backup_line(command, backup) for command, backup in backups.items())


def _alarms(settings: Settings) -> tuple[str, bool | None, str]:
    """Return whether alarms are checked and sent. Never a fault: Prometheus may do both."""
    checked_at = NodeIncidents(settings.data_dir).looked_at
    notes = [] if settings.alarm_urls else ["no notifications: set RECEIVER_ALARM_URLS"]
    if checked_at is None or datetime.now(UTC) - checked_at > _CHECK_OLD:
        since = "yet" if checked_at is None else f"since {time_text(checked_at)}"
        notes.append(f"`receiver run alarms` has not run here {since}; enable receiver-alarms.timer")
    urls = f"{len(settings.alarm_urls)} alarm URL(s)"
    return "alarms", None if notes else True, "; ".join(notes) or urls
