"""`users`: the users of the console."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import click

from receiver.auth import service
from receiver.auth.users import Role, User, get_user, list_users
from receiver.cli.common import ACTOR, accounts_text, as_json, known_accounts, open_runtime, print_list
from receiver.cli.groups import CommandGroup
from receiver.config import inside_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from receiver.audit import AuditTrail

role_option = click.option(
    "--role", required=True, type=click.Choice([role.value for role in Role]), help="Permissions of the user."
)

account_option = click.option(
    "--account", "accounts", multiple=True, help="Limit the user to an account; may be repeated."
)


@click.group(cls=CommandGroup)
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
    password = _ask_password()
    with open_runtime() as runtime:
        bound = known_accounts(runtime, accounts)
        service.create_user(runtime.trail, ACTOR, name=name, role=Role(role), password=password, accounts=bound)
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
        rows = runtime.ask_present(list_users)
    print_list(
        rows,
        {
            "name": lambda user: user.name,
            "role": lambda user: user.role,
            "accounts": lambda user: accounts_text(user.accounts),
            "second factor": lambda user: "yes" if user.totp_secret else "no",
            "created": lambda user: user.created_at,
            "last used": lambda user: user.last_used_at,
            "disabled": lambda user: user.disabled_at,
        },
        as_json=as_json,
        fields=_fields,
    )


def _fields(user: User) -> dict[str, object]:
    return {
        "name": user.name,
        "role": user.role,
        "totp": user.totp_secret is not None,
        "oidc": user.oidc_subject is not None,
        "accounts": user.accounts,
        "created_at": user.created_at,
        "last_used_at": user.last_used_at,
        "disabled_at": user.disabled_at,
    }


@users.command()
@click.argument("name")
def password(name: str) -> None:
    """Change a password, from the prompt or the first line of standard input. Ends the user's sessions.

    \b
    Example:
      receiver users password li.wei
    """
    _change(name, partial(service.set_password, password=_ask_password()))
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
    _change(name, partial(service.set_role, role=Role(role)))
    print(f"{name} is {role} now")


@users.command()
@click.argument("name")
def disable(name: str) -> None:
    """Disable a user, with immediate effect.

    \b
    Example:
      receiver users disable li.wei
    """
    _change(name, service.disable_user)
    print(f"{name} is disabled")


@users.command()
@click.argument("name")
def enable(name: str) -> None:
    """Enable a disabled user.

    \b
    Example:
      receiver users enable li.wei
    """
    _change(name, service.enable_user)
    print(f"{name} may log in again")


@users.command("reset-totp")
@click.argument("name")
def reset_totp(name: str) -> None:
    """Remove a lost second factor. The user sets up a new one at the next log-in.

    \b
    Example:
      receiver users reset-totp li.wei
    """
    _change(name, service.reset_totp)
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
        user = runtime.ask_present(partial(get_user, name=name))
        bound = known_accounts(runtime, accounts)
        service.set_accounts(runtime.trail, ACTOR, user, bound)
    print(f"{user.name} sees {' '.join(bound) if bound else 'every account'} now")


def _change(name: str, change: Callable[[AuditTrail, str, User], None]) -> None:
    with open_runtime() as runtime:
        change(runtime.trail, ACTOR, runtime.ask_present(partial(get_user, name=name)))


def _ask_password() -> str:
    if sys.stdin.isatty():
        given: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        return given
    return sys.stdin.readline().rstrip("\r\n")
