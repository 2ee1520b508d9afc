"""The command line: `receiver …`."""

from __future__ import annotations

import sys

import click

from receiver import __version__
from receiver.cli import (
    database,
    demo,
    doctor,
    events,
    export,
    keys,
    messages,
    pushes,
    sending,
    serve,
    simulate,
    spool,
    verify,
)
from receiver.errors import ReceiverError
from receiver.logs import redact


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="receiver")
def cli() -> None:
    """Keeps every delivery receipt and reply that the SMS platform pushes, and answers what became of a message.

    \b
    Begin with:
      receiver serve
    """


for command in (
    serve.serve,
    serve.push_url,
    database.db,
    keys.keys,
    messages.messages,
    sending.send,
    sending.balance,
    sending.job,
    pushes.pushes,
    pushes.watch,
    events.events,
    export.export,
    spool.spool,
    verify.verify_,
    doctor.doctor,
    doctor.status,
    simulate.simulate,
    demo.demo,
):
    cli.add_command(command)


def main() -> None:
    """Run a command; an error is one line on standard error and exit code 1."""
    try:
        cli.main(prog_name="receiver")
    except ReceiverError as error:
        print(f"receiver: {redact(str(error))}", file=sys.stderr)
        sys.exit(1)
