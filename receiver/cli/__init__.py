"""The command line: `receiver …`."""

from __future__ import annotations

import errno
import os
import sys
from dataclasses import dataclass
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

import click

from receiver import __version__
from receiver.core import ReceiverError, explain
from receiver.core.collector import uncollected
from receiver.observability import flush, redact

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class _Entry:
    """A command in the list of all."""

    place: str  # `module:attribute`, imported on first use: the web server alone takes half a second
    summary: str  # one line of 80 columns, with the longest name before it


_GROUPS: Mapping[str, Mapping[str, _Entry]] = {
    "Daily": {
        "status": _Entry("status:status", "Print the state of server, database, spool and pushes."),
        "lookup": _Entry("lookup:lookup", "Look up what became of messages, as the console does."),
        "watch": _Entry("pushes:watch", "Print pushes as they arrive."),
        "send": _Entry("sending:send", "Send a verification code through the platform."),
        "balance": _Entry("sending:balance", "Query the platform for the messages left."),
    },
    "Set-up": {
        "serve": _Entry("serve:serve", "Run the server: push endpoints, API and console."),
        "push-url": _Entry("push_url:push_url", "Print the URLs to paste into the platform's console."),
        "push-secret": _Entry("push_secret:push_secret", "List, rotate and remove the push secrets."),
        "doctor": _Entry("doctor:doctor", "Check settings, database, platform and public address."),
        "db": _Entry("database:db", "Upgrade, encrypt, rebuild or move the database."),
        "demo": _Entry("simulate:demo", "Run a receiver and a simulated platform with sample messages."),
        "simulate": _Entry("simulate:simulate", "Run a simulated platform, or push as one."),
        "docs": _Entry("docs:docs", "List, search and print the documentation."),
    },
    "Data": {
        "messages": _Entry("messages:messages", "Record sends from a file."),
        "export": _Entry("export:export", "Write messages, receipts or replies to a file."),
        "events": _Entry("events:events", "Print receipts, replies and changed messages in order."),
        "webhooks": _Entry("webhooks:webhooks", "Send pushes or events to your own endpoints."),
        "pushes": _Entry("pushes:pushes", "List the push journal, and parse pushes again."),
    },
    "Access": {
        "keys": _Entry("keys:keys", "Create, list and revoke API keys."),
        "users": _Entry("users:users", "Create, list, change and disable users of the console."),
        "access": _Entry("access:access", "Review the permissions of keys and users."),
        "audit": _Entry("audit:audit", "Read the audit log: who viewed or changed what."),
    },
    "Maintenance": {
        "run": _Entry("sending:run", "Run the tasks of a timer: alarms, balance, prune."),
        "spool": _Entry("spool:spool", "Show the spool, and save it to the database by hand."),
        "backup": _Entry("backup:backup", "Back up database, spool and secret while the server runs."),
        "restore": _Entry("backup:restore_", "Restore a backup into a data directory."),
        "verify": _Entry("verify:verify_", "Check that journal, messages, spool and audit log agree."),
        "prune": _Entry("prune:prune_", "Delete what is older than its retention."),
        "erase": _Entry("erase:erase_", "Erase everything about one number."),
    },
}
_ENTRIES = {name: entry for entries in _GROUPS.values() for name, entry in entries.items()}


class _Commands(click.Group):
    """A group that imports each command on first use, and none to list them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's own signature)
        return list(_ENTRIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _ENTRIES:
            return None
        entry = _ENTRIES[cmd_name]
        module, _, name = entry.place.partition(":")
        with uncollected():
            command: click.Command = getattr(import_module(f"{__name__}.{module}"), name)
        command.short_help = entry.summary
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        widest = max(map(len, _ENTRIES))
        for group, entries in _GROUPS.items():
            with formatter.section(group):
                formatter.write_dl([(name.ljust(widest), entry.summary) for name, entry in entries.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="receiver")
def cli() -> None:
    """Store every delivery receipt and reply that the SMS platform pushes, and look up what became of a message.

    \b
    Start with:
      receiver serve
    """


def main() -> None:
    """Run a command. An error prints one line on standard error and exits with code 1."""
    _fill_standard_streams()
    try:
        cli.main(prog_name="receiver")
    except ReceiverError as error:
        _fail(redact(str(error)))
    except OSError as error:
        if isinstance(error, PermissionError) and error.filename is not None:
            _fail(redact(explain(error)))
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        _fail(f"{error.strerror}: for the output, or in the data directory")
    finally:
        _end_output()


def _fill_standard_streams() -> None:
    """Open /dev/null for a missing standard stream, so that no other file takes its descriptor."""
    for stream, access in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):  # printing to 1 must fail
        try:
            os.fstat(stream)
        except OSError:
            os.set_inheritable(os.open(os.devnull, access), True)  # takes the lowest free descriptor: this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for characters outside its encoding


def _end_output() -> None:
    try:
        sys.stdout.flush()
    except OSError as error:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  (else Python flushes again at exit, with its own error)
        _fail(f"cannot write the output ({error.strerror})")


def _fail(reason: str) -> None:
    flush()
    print(f"receiver: {reason}", file=sys.stderr)
    sys.exit(1)
