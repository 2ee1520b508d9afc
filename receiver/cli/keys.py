"""`keys`: API keys."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import timedelta

import click

from receiver.auth import api_keys
from receiver.auth.api_keys import Scope
from receiver.cli.common import as_json, open_runtime, print_json, print_table
from receiver.core import SettingsError

_ACTOR = "cli"


@click.group()
def keys() -> None:
    """Create, list and revoke API keys."""


@keys.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice([scope.value for scope in Scope]),
    help="A permission; may be repeated.",
)
@click.option("--account", "accounts", multiple=True, help="Limit it to an account; may be repeated.")
@click.option("--expires-days", type=click.IntRange(1, 36500), help="Expire after so many days.")
def create(name: str, scopes: tuple[str, ...], accounts: tuple[str, ...], expires_days: int | None) -> None:
    """Create a key and print it, once, as the last line of standard output.

    \b
    Example:
      receiver keys create support --scope read --expires-days 90
    """
    with open_runtime() as runtime:
        unknown = sorted(set(accounts) - runtime.settings.accounts)
        if unknown:
            raise SettingsError(f"--account: {', '.join(unknown)}: no such account is configured")
        now = runtime.now()
        key = runtime.audited(
            lambda connection: api_keys.create_key(
                connection,
                name=name,
                scopes=[Scope(scope) for scope in scopes],
                accounts=accounts,
                now=now,
                expires_at=now + timedelta(days=expires_days) if expires_days else None,
            ),
            _ACTOR,
            "key.create",
            name=name,
            scopes=sorted(scopes),
            accounts=sorted(accounts) or None,
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
    with open_runtime() as runtime:
        rows = runtime.ask_present(api_keys.list_keys)
    if as_json:
        print_json([asdict(key) | {"scopes": sorted(key.scopes)} for key in rows])
        return
    print_table(
        ["name", "scopes", "accounts", "created", "expires", "revoked"],
        [
            (
                key.name,
                " ".join(sorted(key.scopes)),
                " ".join(key.accounts) if key.accounts else "all",
                *(
                    moment and f"{moment:%Y-%m-%d %H:%M}Z"
                    for moment in (key.created_at, key.expires_at, key.revoked_at)
                ),
            )
            for key in rows
        ],
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
        now = runtime.now()
        runtime.audited(
            lambda connection: api_keys.revoke_key(connection, name=name, now=now), _ACTOR, "key.revoke", name=name
        )
    print(f"{name} is revoked")
