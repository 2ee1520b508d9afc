"""`users`: the users of the console."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from receiver.auth import users as store
from receiver.auth.passwords import hash_password
from receiver.auth.users import Role
from receiver.cli.common import as_json, open_runtime, print_json, print_table
from receiver.config import inside_at
from receiver.core import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from receiver.db.engine import Connection
    from receiver.runtime import Runtime

_ACTOR = "cli"

role_option = click.option(
    "--role", required=True, type=click.Choice([role.value for role in Role]), help="Permissions of the user."
)

account_option = click.option(
    "--account", "accounts", multiple=True, help="Limit the user to an account; may be repeated."
)


@click.group()
def users() -> None:
    """Create, list, change and disable users of the console."""


@users.command()
@click.argument("name")
@role_option
@account_option
def create(name: str, role: str, accounts: tuple[str, ...]) -> None:
    """Create a user. The password comes from the prompt, or the first line of standard input.

    \b
    Example:
      receiver users create li.wei --role support --account default
    """
    if not store.NAME.fullmatch(name):
        raise SettingsError("NAME: letters, digits, and . _ @ + - only, 64 at most")
    password_hash = hash_password(_ask_password(), name=name)
    with open_runtime() as runtime:
        now, bound = runtime.now(), known_accounts(runtime, accounts)
        runtime.audited(
            lambda connection: store.create_user(
                connection, name=name, role=Role(role), now=now, password_hash=password_hash, accounts=bound
            ),
            _ACTOR,
            "user.create",
            name=name,
            role=role,
            accounts=bound,
        )
        address = inside_at(runtime.settings)
    print(f"{name} may log in as {role}: {address}/console")


@users.command("list")
@as_json
def list_(as_json: bool) -> None:
    """List the users.

    \b
    Example:
      receiver users list
    """
    with open_runtime() as runtime:
        rows = runtime.ask_present(store.list_users)
    if as_json:
        print_json(
            [
                {
                    "name": user.name,
                    "role": user.role,
                    "totp": user.totp_secret is not None,
                    "oidc": user.oidc_subject is not None,
                    "accounts": user.accounts,
                    "created_at": user.created_at,
                    "last_used_at": user.last_used_at,
                    "disabled_at": user.disabled_at,
                }
                for user in rows
            ]
        )
        return
    print_table(
        ["name", "role", "accounts", "second factor", "created", "last used", "disabled"],
        [
            (
                user.name,
                user.role,
                "all" if user.accounts is None else " ".join(user.accounts),
                "yes" if user.totp_secret else "no",
                *(
                    moment and f"{moment:%Y-%m-%d %H:%M}Z"
                    for moment in (user.created_at, user.last_used_at, user.disabled_at)
                ),
            )
            for user in rows
        ],
    )


@users.command()
@click.argument("name")
def password(name: str) -> None:
    """Change a password, from the prompt or the first line of standard input. Ends the user's sessions.

    \b
    Example:
      receiver users password li.wei
    """
    password_hash = hash_password(_ask_password(), name=name)
    _change(name, "user.password", lambda connection, now: store.set_password(connection, name, password_hash, now=now))
    print(f"{name} has a new password")


@users.command()
@click.argument("name")
@role_option
def role(name: str, role: str) -> None:
    """Change a user's role. Ends the user's sessions.

    \b
    Example:
      receiver users role li.wei --role admin
    """
    _change(name, "user.role", lambda connection, now: store.set_role(connection, name, Role(role), now=now), role=role)
    print(f"{name} is {role} now")


@users.command()
@click.argument("name")
def disable(name: str) -> None:
    """Disable a user, with immediate effect.

    \b
    Example:
      receiver users disable li.wei
    """
    _change(name, "user.disable", lambda connection, now: store.set_disabled(connection, name, now, now=now))
    print(f"{name} is disabled")


@users.command()
@click.argument("name")
def enable(name: str) -> None:
    """Enable a disabled user.

    \b
    Example:
      receiver users enable li.wei
    """
    _change(name, "user.enable", lambda connection, now: store.set_disabled(connection, name, None, now=now))
    print(f"{name} may log in again")


@users.command("reset-totp")
@click.argument("name")
def reset_totp(name: str) -> None:
    """Remove a lost second factor. The user sets up a new one at the next log-in.

    \b
    Example:
      receiver users reset-totp li.wei
    """
    _change(name, "user.reset_totp", lambda connection, now: store.set_totp(connection, name, None, now=now))
    print(f"{name} must set up a second factor at the next log-in")


@users.command()
@click.argument("name")
@account_option
def accounts(name: str, accounts: tuple[str, ...]) -> None:
    """Limit a user to accounts; without --account, remove the limit. Ends the user's sessions.

    \b
    Example:
      receiver users accounts li.wei --account default
    """
    with open_runtime() as runtime:
        now, bound, name = runtime.now(), known_accounts(runtime, accounts), _exact(runtime, name)
        runtime.audited(
            lambda connection: store.set_accounts(connection, name, bound, now=now),
            _ACTOR,
            "user.accounts",
            name=name,
            accounts=bound or "all",
        )
    print(f"{name} sees {' '.join(bound) if bound else 'every account'} now")


def known_accounts(runtime: Runtime, accounts: Sequence[str]) -> list[str] | None:
    """Return the accounts to limit to; None: no limit. Raises SettingsError for an account that is not configured."""
    if unknown := sorted(set(accounts) - runtime.settings.accounts):
        raise SettingsError(f"--account: {', '.join(unknown)}: no such account is configured")
    return sorted(set(accounts)) or None


def _exact(runtime: Runtime, name: str) -> str:
    """Return a user's name as stored, for the audit log. Raises NotFound."""
    return runtime.ask_present(lambda connection: store.get_user(connection, name)).name


def _change(name: str, action: str, change: Callable[[Connection, datetime], None], **detail: str) -> None:
    with open_runtime() as runtime:
        now, name = runtime.now(), _exact(runtime, name)
        runtime.audited(lambda connection: change(connection, now), _ACTOR, action, name=name, **detail)


def _ask_password() -> str:
    if sys.stdin.isatty():
        given: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        return given
    return sys.stdin.readline().rstrip("\r\n")
