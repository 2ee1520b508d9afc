"""`keys`: API keys."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from receiver.auth import service
from receiver.auth.api_keys import SCOPE_TEXTS, Scope, list_keys
from receiver.cli.common import ACTOR, accounts_text, as_json, known_accounts, open_runtime, open_store, print_list
from receiver.cli.groups import CommandGroup


@click.group(cls=CommandGroup)
def keys() -> None:
    """Create, list and revoke API keys."""


_SCOPES = "\b\nScopes:\n" + "\n".join(f"  {scope:<15} {text}" for scope, text in SCOPE_TEXTS.items())


@keys.command(epilog=_SCOPES)
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice([scope.value for scope in Scope]),
    help="A permission, see below; may be repeated.",
)
@click.option("--account", "accounts", multiple=True, help="Limit it to an account; may be repeated.")
@click.option("--expires-days", type=click.IntRange(1, service.EXPIRES_DAYS_MAX), help="Expire after so many days.")
def create(name: str, scopes: tuple[str, ...], accounts: tuple[str, ...], expires_days: int | None) -> None:
    """Create a key and print it, once, as the last line of standard output.

    \b
    Example:
      receiver keys create support --scope read --expires-days 90
    """
    with open_runtime() as runtime:
        key = service.create_key(
            runtime.trail,
            ACTOR,
            name=name,
            scopes=[Scope(scope) for scope in scopes],
            accounts=known_accounts(runtime, accounts),
            expires_days=expires_days,
        )
    print("Shown only once:", file=sys.stderr)
    print(key)


@keys.command("list")
@as_json
def list_(as_json: bool) -> None:
    """List the keys, without their secrets.

    \b
    Example:
      receiver keys list
    """
    with open_store() as store:
        rows = store.ask_present(list_keys)
    print_list(
        rows,
        {
            "name": lambda key: key.name,
            "scopes": lambda key: " ".join(sorted(key.scopes)),
            "accounts": lambda key: accounts_text(key.accounts),
            "created": lambda key: key.created_at,
            "expires": lambda key: key.expires_at,
            "revoked": lambda key: key.revoked_at,
        },
        as_json=as_json,
        fields=lambda key: asdict(key) | {"scopes": sorted(key.scopes)},
    )


@keys.command()
@click.argument("name")
def revoke(name: str) -> None:
    """Revoke a key, with immediate effect.

    \b
    Example:
      receiver keys revoke support
    """
    with open_runtime() as runtime:
        service.revoke_key(runtime.trail, ACTOR, name)
    print(f"{name} is revoked")
