"""`targets`: own systems that hear of everything."""

from __future__ import annotations

import sys
from dataclasses import asdict
from functools import partial
from typing import Any

import click

from receiver.cli.common import as_json, open_runtime, print_json, print_table
from receiver.core import ReceiverError
from receiver.webhooks import endpoints as store
from receiver.webhooks import service
from receiver.webhooks.endpoints import Endpoint, EndpointState, EventType, Health, PayloadFormat

_ACTOR = "cli"
_DEAD_SHOWN = 50


@click.group()
def webhooks() -> None:
    """Forward everything to systems of your own: make, list, pause, test and end targets, replay what was given up."""


@webhooks.command()
@click.argument("name")
@click.argument("url")
@click.option(
    "--format",
    "form",
    required=True,
    type=click.Choice([form.value for form in PayloadFormat]),
    help="raw: each push as the platform sent it; webhooks: signed events.",
)
@click.option(
    "--event",
    "events",
    multiple=True,
    type=click.Choice([event.value for event in EventType]),
    help="What it hears of; may be repeated. Default: everything.",
)
@click.option("--account", "accounts", multiple=True, help="Only of an account; may be repeated.")
@click.option("--pii", is_flag=True, help="Numbers and contents in full. Raw pushes have them anyway.")
@click.option(
    "--not-delivered-after",
    type=click.IntRange(1, service.LONGEST_WAIT_SECONDS),
    metavar="SECONDS",
    help="Tell of a message that is not delivered so long after it was sent.",
)
def add(
    name: str,
    url: str,
    form: str,
    events: tuple[str, ...],
    accounts: tuple[str, ...],
    pii: bool,
    not_delivered_after: int | None,
) -> None:
    """Make a target; its secret, where it has one, is the last line of standard output, this once.

    \b
    Example:
      receiver webhooks add shop https://shop.example.com/sms --format webhooks --not-delivered-after 60
    """
    with open_runtime() as runtime:
        secret = runtime.webhooks.add(
            _ACTOR,
            name=name,
            url=url,
            form=form,
            events=events,
            accounts=accounts or None,
            pii=pii,
            not_delivered_after_seconds=not_delivered_after,
        )
    _show_secret(secret, f"{name} is sent every push from now on")


def _show_secret(secret: str | None, otherwise: str) -> None:
    if secret is None:
        print(otherwise)
        return
    print("It verifies posts with this, shown this once:", file=sys.stderr)
    print(secret)


@webhooks.command("list")
@as_json
def list_(as_json: bool) -> None:
    """List the targets, and how each fares.

    \b
    Example:
      receiver webhooks list
    """
    with open_runtime() as runtime:
        found = [
            (target, runtime.ask(partial(store.find_health, target=target)))
            for target in runtime.ask(store.list_targets)
        ]
    if as_json:
        print_json([_as_dict(target, health) for target, health in found])
        return
    print_table(
        ["name", "url", "format", "state", "pending", "oldest", "dead", "delivered", "last error"],
        [
            (
                target.name,
                target.place,
                target.format.value,
                _state(target),
                health.pending,
                health.oldest_at and f"{health.oldest_at:%Y-%m-%d %H:%M}Z",
                health.dead,
                target.delivered,
                target.last_error,
            )
            for target, health in found
        ],
    )


def _state(target: Endpoint) -> str:
    if target.state is EndpointState.PAUSED:
        return f"{target.state}, {target.paused_because}"
    return f"{target.state}, {target.failures} failures in a row" if target.failures else target.state.value


def _as_dict(target: Endpoint, health: Health) -> dict[str, Any]:
    hidden = ("id", "url", "signing_secrets")
    fields = {name: value for name, value in asdict(target).items() if name not in hidden}
    return fields | {"url": target.place, "state": target.state} | asdict(health)


@webhooks.command()
@click.argument("name")
def pause(name: str) -> None:
    """Send a target nothing; what it is to hear of is kept for it.

    \b
    Example:
      receiver webhooks pause shop
    """
    with open_runtime() as runtime:
        runtime.webhooks.pause(_ACTOR, runtime.webhooks.find(name))
    print(f"{name} is paused")


@webhooks.command()
@click.argument("name")
def resume(name: str) -> None:
    """Send to a target again, at once all that waits.

    \b
    Example:
      receiver webhooks resume shop
    """
    with open_runtime() as runtime:
        runtime.webhooks.resume(_ACTOR, runtime.webhooks.find(name))
    print(f"{name} goes on")


@webhooks.command()
@click.argument("name")
def remove(name: str) -> None:
    """Remove a target, and all that waits for it.

    \b
    Example:
      receiver webhooks remove shop
    """
    with open_runtime() as runtime:
        runtime.webhooks.remove(_ACTOR, runtime.webhooks.find(name))
    print(f"{name} is removed")


@webhooks.command()
@click.argument("name")
def rotate(name: str) -> None:
    """Make a new secret and print it, this once; for a day, posts are signed with the old one as well.

    \b
    Example:
      receiver webhooks rotate shop
    """
    with open_runtime() as runtime:
        secret = runtime.webhooks.rotate(_ACTOR, runtime.webhooks.find(name))
    _show_secret(secret, "")


@webhooks.command()
@click.argument("name")
def test(name: str) -> None:
    """Send a target a test, which says that it is one, and tell what it answers.

    \b
    Example:
      receiver webhooks test shop
    """
    with open_runtime() as runtime:
        tried = runtime.webhooks.try_out(_ACTOR, runtime.webhooks.find(name))
    if not tried.taken:
        raise ReceiverError(f"{name}: {tried.error or f'answered with HTTP status {tried.status}'}")
    print(f"{name} answered with HTTP status {tried.status} in {tried.seconds} s")


@webhooks.command("dead-letters")
@click.argument("name")
@as_json
def dead_letters(name: str, as_json: bool) -> None:
    """List what was given up after three days, newest first.

    \b
    Example:
      receiver webhooks dead-letters shop
    """
    with open_runtime() as runtime:
        target = runtime.webhooks.find(name)
        found = runtime.ask(partial(store.list_dead, target=target, limit=_DEAD_SHOWN))
    if as_json:
        print_json([asdict(letter) for letter in found])
        return
    print_table(
        ["id", "event", "push", "message", "since", "attempts", "last error"],
        [
            (
                letter.id,
                letter.event,
                letter.push_id,
                letter.message_id,
                f"{letter.created_at:%Y-%m-%d %H:%M}Z",
                letter.attempts,
                letter.last_error,
            )
            for letter in found
        ],
    )


@webhooks.command()
@click.argument("name")
@click.argument("ids", nargs=-1, type=int)
@click.option("--all", "everything", is_flag=True, help="All that was given up.")
def replay(name: str, ids: tuple[int, ...], everything: bool) -> None:
    """Send again what was given up.

    \b
    Example:
      receiver webhooks replay shop --all
    """
    if bool(ids) == everything:
        raise click.UsageError("name ids, or --all")
    with open_runtime() as runtime:
        again = runtime.webhooks.replay(_ACTOR, runtime.webhooks.find(name), None if everything else ids)
    print(f"{again} will be sent again")
