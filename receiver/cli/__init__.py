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

# Command: where it is. Read when it is asked for: the web server and all it brings take half a second.
_COMMANDS = {
    "serve": "serve:serve",
    "push-url": "serve:push_url",
    "db": "database:db",
    "keys": "keys:keys",
    "users": "users:users",
    "audit": "audit:audit",
    "access": "access:access",
    "messages": "messages:messages",
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
    "demo": "demo:demo",
}


class _Commands(click.Group):
    """The commands, each read when it is asked for."""

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
    """Keeps every delivery receipt and reply that the SMS platform pushes, and answers what became of a message.

    \b
    Begin with:
      receiver serve
    """


def main() -> None:
    """Run a command; an error is one line on standard error and exit code 1."""
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
        _fail(f"{error.strerror}: where this prints to, or in the data directory")
    finally:
        _end_output()


def _fill_standard_streams() -> None:
    """Let no file that is opened later become standard output or error, where the command was started without."""
    for stream, access in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):  # what is printed to 1 fails
        try:
            os.fstat(stream)
        except OSError:
            os.set_inheritable(os.open(os.devnull, access), True)  # it becomes the lowest that is free: this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # one letter that it has not must end no command


def _end_output() -> None:
    try:
        sys.stdout.flush()
    except OSError as error:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  (else Python tries again, and fails in its own words)
        _fail(f"what was to be printed cannot be written ({error.strerror})")


def _fail(reason: str) -> None:
    flush()
    print(f"receiver: {reason}", file=sys.stderr)
    sys.exit(1)
