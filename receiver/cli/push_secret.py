"""`push-secret`: the secrets of the push URLs, in their file."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from receiver.cli.common import ACTOR, as_json, exclusive, open_runtime, print_list
from receiver.cli.groups import CommandGroup
from receiver.config import find_tokens_file, push_urls
from receiver.core import ReceiverError
from receiver.intake.secret_changes import plan_removal, plan_rotation, shown
from receiver.intake.secret_usage import find_uses

if TYPE_CHECKING:
    from collections.abc import Sequence

    from receiver.config import Tokens, TokensFile
    from receiver.intake.secret_changes import SecretChange
    from receiver.intake.secret_usage import SecretUse
    from receiver.runtime import Runtime

_print_tokens = click.option(
    "--print-tokens",
    is_flag=True,
    help="Print the file's new content and do not write it, for a place that this user cannot write.",
)


@click.group("push-secret", cls=CommandGroup)
def push_secret() -> None:
    """Rotate, list and remove the secrets of the push URLs."""


@push_secret.command("list")
@as_json
def list_(as_json: bool) -> None:
    """List the push secrets: their first characters, and the last push of each.

    \b
    Example:
      receiver push-secret list
    """
    with open_runtime() as runtime:
        tokens, now = runtime.settings.push_tokens, runtime.now()
        uses = _uses_of(runtime, tokens)
    print_list(
        [(use, shown(secret)) for use, (_, secret) in zip(uses, tokens, strict=True)],
        {
            "account": lambda row: row[0].account,
            "secret": lambda row: row[1],
            "state": lambda row: row[0].name,
            "last push": lambda row: row[0].last_used_at,
            "can be removed": lambda row: "yes" if row[0].can_go(now) else "no",
        },
        as_json=as_json,
        fields=lambda row: {
            "account": row[0].account,
            "secret": row[1],
            "state": row[0].name,
            "last_push_at": row[0].last_used_at,
            "can_be_removed": row[0].can_go(now),
        },
    )


@push_secret.command()
@click.option("--account", help="Whose secret, where there are several accounts.")
@_print_tokens
def rotate(account: str | None, print_tokens: bool) -> None:
    """Make a new push secret, active from the next restart on. The old one stays valid until you remove it.

    A running server answers the new URL with 404 until its restart. So copy the file to every node and restart each,
    and only then paste the new URL into the platform's console: no push is lost.

    \b
    Example:
      receiver push-secret rotate
    """
    _require_a_pipe(print_tokens)
    with open_runtime() as runtime:
        file = find_tokens_file(runtime.settings)
        with exclusive(runtime.settings.data_dir / "push-secret.lock", "change of the push secrets"):
            change = plan_rotation(file.read() if file else runtime.settings.push_tokens, account)
            if file is None:
                _say("RECEIVER_PUSH_TOKENS is set in the environment or in .env: nothing is changed. Set there:")
                print(f"RECEIVER_PUSH_TOKENS={change.account}:{change.secret},THE PRESENT VALUE")
            else:
                _change(runtime, change, "push_secret.rotate", file, print_tokens=print_tokens)
                where = "" if print_tokens else f"{file.path}: "
                _say(f"{where}a new push secret of {change.account} stands first; the others stay valid")
        _say_next(change, file, print_tokens=print_tokens)
        if file is not None and sys.stdout.isatty():
            _say("The new URL, for step 3:")
            print(push_urls(replace(runtime.settings, push_tokens=((change.account, change.secret),)))[0][1])


def _say_next(change: SecretChange, file: TokensFile | None, *, print_tokens: bool) -> None:
    """Say the steps in the order in which no push is lost: a server that has not read the new secret answers 404."""
    old = next((secret for account, secret in change.before if account == change.account), None)
    _say("A running server does not know it yet: until its restart, the new URL gets 404. Next, in this order:")
    if file is None:
        _say("  1. set this value on every node")
    elif print_tokens:  # by another user, who writes the file: its path is not the one that is read here
        _say("  1. put the new content into the file on every node (Debian: /etc/receiver/secrets/PUSH_TOKENS)")
    else:
        _say(f"  1. with several nodes, copy {file.path} to each")
    _say("  2. restart the server on every node")
    _say("  3. only then paste the new URL into the platform's console: receiver push-url")
    if old is not None:
        dashes = "-- " if old.startswith("-") else ""
        _say(
            "  4. once `receiver status` says that the old one can be removed: "
            f"receiver push-secret remove {dashes}{shown(old)[:-1]}"
        )


@push_secret.command()
@click.argument("beginning", metavar="[OLD]", required=False)
@click.option("--force", is_flag=True, help="Also if pushes still come by it, or if it is the account's last.")
@_print_tokens
def remove(beginning: str | None, force: bool, print_tokens: bool) -> None:
    """Remove the push secret that begins with OLD; without OLD the one that can be removed, by `receiver status`.

    From the next restart on, pushes by it get 404.

    \b
    Example:
      receiver push-secret remove
      receiver push-secret remove 3f9a
    """
    _require_a_pipe(print_tokens)
    with open_runtime() as runtime:
        file = find_tokens_file(runtime.settings)
        with exclusive(runtime.settings.data_dir / "push-secret.lock", "change of the push secrets"):
            before = file.read() if file else runtime.settings.push_tokens
            uses = _uses_of(runtime, before)
            change = plan_removal(before, beginning and beginning.rstrip("…."), uses, now=runtime.now(), force=force)
            if file is None:
                _say("RECEIVER_PUSH_TOKENS is set in the environment or in .env: nothing is changed. Take out of it:")
                print(f"{change.account}:{shown(change.secret)}")
            else:
                _change(runtime, change, "push_secret.remove", file, print_tokens=print_tokens)
                where = "" if print_tokens else f"{file.path}: "
                _say(f"{where}{change.account}:{shown(change.secret)} is removed")
    _say("Next: put the same file or value on every node, and restart each of them")


def _uses_of(runtime: Runtime, tokens: Tokens) -> Sequence[SecretUse]:
    return runtime.ask(lambda connection: find_uses(connection, tokens))


def _change(runtime: Runtime, change: SecretChange, action: str, file: TokensFile, *, print_tokens: bool) -> None:
    try:
        change.save(runtime.trail, ACTOR, action, None if print_tokens else file)
    except ReceiverError as error:
        raise ReceiverError(f"{error}; nothing is changed") from None
    if print_tokens:
        print(change.text)


def _require_a_pipe(print_tokens: bool) -> None:
    if print_tokens and sys.stdout.isatty():
        raise click.UsageError("--print-tokens: it prints the old secrets as well; send it to a file or a pipe")


def _say(line: str) -> None:
    print(line, file=sys.stderr)
