"""The command line: `receiver …`."""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path

import click

from receiver import __version__
from receiver.core import ReceiverError, explain
from receiver.observability import flush, redact

# Command: `module:attribute`, imported on first use. The web server alone takes half a second to import.
_COMMANDS = {
    "serve": "serve:serve",
    "push-url": "serve:push_url",
    "push-secret": "push_secret:push_secret",
    "db": "database:db",
    "keys": "keys:keys",
    "users": "users:users",
    "audit": "audit:audit",
    "access": "access:access",
    "messages": "messages:messages",
    "lookup": "lookup:lookup",
    "send": "sending:send",
    "balance": "sending:balance",
    "run": "sending:run",
    "pushes": "pushes:pushes",
    "watch": "pushes:watch",
    "events": "events:events",
    "webhooks": "webhooks:webhooks",
    "export": "export:export",
    "spool": "spool:spool",
    "backup": "backup:backup",
    "restore": "backup:restore_",
    "verify": "verify:verify_",
    "prune": "prune:prune_",
    "erase": "erase:erase_",
    "doctor": "doctor:doctor",
    "status": "doctor:status",
    "simulate": "simulate:simulate",
    "demo": "simulate:demo",
    "docs": "docs:docs",
}


class _Commands(click.Group):
    """A group that imports each command on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's own signature)
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(f"{__name__}.{module}"), name)
        return command


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
