"""`serve`."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from receiver.cli.binding import require_free
from receiver.cli.settings import warn_of_unknown
from receiver.config import Settings, address_text, inside_at, load_settings, push_urls
from receiver.core import DatabaseUnavailable, SettingsError, exposure
from receiver.db.sqlite import said, shortcoming
from receiver.maintenance.retention import find_unpruned
from receiver.net.serving import addresses_published, take_serving_lock
from receiver.observability import LineWriter, configure_logging, get_logger
from receiver.runtime import Runtime
from receiver.server import Server

if TYPE_CHECKING:
    from receiver.maintenance.retention import RetentionKind

_log = get_logger(__name__)

_MAX_WORKERS = 64
_STDOUT = 1


@click.command()
@click.option("--bind", metavar="HOST:PORT", help="Address to listen on (RECEIVER_BIND, 127.0.0.1:8000).")
@click.option(
    "--workers", type=click.IntRange(1, _MAX_WORKERS), default=1, show_default=True, help="Serving processes."
)
def serve(bind: str | None, workers: int) -> None:
    """Run the server: push endpoints, API and console.

    On the embedded database it upgrades the schema and is the only serving process. On PostgreSQL it never migrates:
    run `receiver db upgrade` first.

    \b
    Example:
      receiver serve --bind 0.0.0.0:8000
    """
    if bind is not None:
        os.environ["RECEIVER_BIND"] = bind
    configure_logging()
    settings = load_settings()
    configure_logging(settings.log_level, form=settings.log_format)
    warn_of_unknown(settings)
    if settings.embedded and workers > 1:
        raise SettingsError("--workers: the embedded database allows one; use PostgreSQL for more")
    server = Server(settings, workers=workers)
    lock = take_serving_lock(settings.data_dir) if settings.embedded else None
    try:
        require_free(settings)
        if (fault := exposure(settings.data_dir)) is not None:
            _log.warning("the data directory is not private", reason=fault)
        unpruned = _make_ready(settings)
        if settings.embedded:
            (_log.warning if shortcoming() else _log.info)("embedded database", sqlite=said())
        _greet(settings, unpruned)
        with addresses_published(settings):
            server.run()
    finally:
        if lock is not None:
            os.close(lock)


def _make_ready(settings: Settings) -> list[RetentionKind]:
    """Prepare the database, if it is available. Return the kinds whose prune is overdue."""
    runtime = Runtime(settings)
    try:
        runtime.make_ready()
        if settings.encryption_keys and runtime.encryption.cipher is None:
            _log.warning("encryption keys are set, but the database is not encrypted: run `receiver db encrypt`")
        runtime.availability.mark_up()
        return runtime.ask(lambda connection: find_unpruned(connection, settings, runtime.now()))
    except DatabaseUnavailable as error:
        _log.warning("starting without the database, pushes go to the spool", reason=str(error))
        return []
    finally:
        runtime.stop()


def _program() -> str:
    """Return the command that runs this program, also if it is not on the search path."""
    if shutil.which("receiver"):
        return "receiver"
    called = Path(sys.argv[0])
    return "python -m receiver" if called.name == "__main__.py" else os.path.relpath(called)


def _greet(settings: Settings, unpruned: list[RetentionKind]) -> None:
    lines: list[str] = []
    say = lines.append
    address, inside = address_text(settings.bind), address_text(settings.inside)
    program = _program()
    shows_secret = settings.push_tokens_generated or sys.stdout.isatty()
    say(f"receiver listens on {settings.scheme}://{address}")
    if settings.internal_bind is not None:
        say(f"  pushes only; console, API and probes: {settings.scheme}://{inside}")
    if shows_secret:
        for account, url in push_urls(settings):
            say(f"  push URL ({account}) for the platform's console; put your HTTPS host name in it:")
            say(f"    {url}")
    else:
        say(f"  push URL: {program} push-url")
    say(
        f"  console: {inside_at(settings)}/console; create its first user with `{program} users create me --role admin`"
    )
    say(f"  API and documentation: {settings.scheme}://{inside}/api/v1/docs")
    if settings.send_proxy_bind is not None:
        say(f"  send proxy: http://{address_text(settings.send_proxy_bind)}/smsApi/verifyCode")
    if unpruned:
        say(f"  past their retention period: {', '.join(unpruned)}; preview the deletion: {program} prune")
    say("  next, in another terminal:")
    say(f"    {program} keys create me --scope read --scope messages:write --scope pushes")
    say(
        f"    curl -H 'Authorization: Bearer KEY' -H 'Content-Type: application/json' \\\n"
        f"""      -d '{{"task_id": "3313746", "mobile": "15080921090", "sent_at": "2026-11-23T09:14:00+08:00"}}' \\\n"""
        f"      {settings.scheme}://{inside}/api/v1/messages"
    )
    # The server runs even if standard output is closed or not read.
    greeting = LineWriter(_STDOUT, lambda _count: "")
    greeting.write("".join(f"{line}\n" for line in lines))
    greeting.flush()
