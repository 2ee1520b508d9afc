"""`webhooks`: endpoints that receive pushes or events."""

from __future__ import annotations

import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from receiver.cli.common import ACTOR, as_json, open_runtime, print_list
from receiver.cli.groups import CommandGroup
from receiver.core import ReceiverError, iso_seconds
from receiver.messages.send_records import parse_filter_time
from receiver.webhooks import endpoints as store
from receiver.webhooks import service
from receiver.webhooks.endpoints import DeliveryState, Endpoint, EndpointState, EventType, Health, PayloadFormat
from receiver.webhooks.service import Webhooks

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_DEAD_SHOWN = 50
_OF_DEAD_LETTERS = ("id", "event", "push_id", "message_id", "created_at", "dead_at", "attempts", "last_error")


@click.group(cls=CommandGroup)
def webhooks() -> None:
    """Send pushes or events to your own endpoints: add, update, list, pause, test and remove webhooks, replay them."""


_headers_option = click.option(
    "--header",
    "headers",
    multiple=True,
    help="Further headers of each request: `@FILE` with one `Name: value` a line, or one itself; may be repeated.",
)


def _headers_of(given: tuple[str, ...]) -> dict[str, str]:
    """Return headers as they are given. Raises click.UsageError and InvalidEndpoint, which never repeat a value."""
    lines: list[str] = []
    for text in given:
        if not text.startswith("@"):
            lines.append(text)
            continue
        try:
            lines += filter(str.strip, Path(text[1:]).read_text().splitlines())
        except (OSError, ValueError):
            raise click.UsageError(f"--header: cannot read {text[1:]}") from None
    if not all(":" in line for line in lines):
        raise click.UsageError("--header: write `Name: value`")
    return service.read_headers(lines)


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
    help="An event to send; may be repeated. Default: all.",
)
@click.option("--account", "accounts", multiple=True, help="Only this account; may be repeated.")
@click.option("--pii", is_flag=True, help="Send full numbers and contents. Raw pushes always contain them.")
@click.option(
    "--not-delivered-after",
    type=click.IntRange(1, service.LONGEST_WAIT_SECONDS),
    metavar="SECONDS",
    help="Send an event for a message not delivered this long after its send.",
)
@_headers_option
def add(
    name: str,
    url: str,
    form: str,
    events: tuple[str, ...],
    accounts: tuple[str, ...],
    pii: bool,
    not_delivered_after: int | None,
    headers: tuple[str, ...],
) -> None:
    """Add a webhook. Prints its secret, if it has one, once, as the last line of standard output.

    \b
    Example:
      receiver webhooks add shop https://shop.example.com/sms --format webhooks --not-delivered-after 60
    """
    with open_runtime() as runtime:
        secret = runtime.webhooks.add(
            ACTOR,
            name=name,
            url=url,
            form=form,
            events=events,
            accounts=accounts or None,
            pii=pii,
            not_delivered_after_seconds=not_delivered_after,
            headers=_headers_of(headers),
        )
    _show_secret(secret, f"{name} receives every push from now on")


@webhooks.command()
@click.argument("name")
@click.option(
    "--url",
    help="A new URL. The secret stays, pending deliveries go there at once. To another host, give --header again.",
)
@click.option(
    "--event",
    "events",
    multiple=True,
    type=click.Choice([event.value for event in EventType]),
    help="Send these events alone; may be repeated.",
)
@click.option("--all-events", is_flag=True, help="Send all events.")
@click.option("--account", "accounts", multiple=True, help="Only this account; may be repeated.")
@click.option("--all-accounts", is_flag=True, help="Every account.")
@click.option("--pii/--no-pii", default=None, help="Send full numbers and contents.")
@click.option(
    "--not-delivered-after",
    type=click.IntRange(0, service.LONGEST_WAIT_SECONDS),
    metavar="SECONDS",
    help="As of `add`, for sends from now on. 0: no such event.",
)
@_headers_option
@click.option("--no-headers", is_flag=True, help="No further headers.")
def update(name: str, **given: Any) -> None:
    """Change a webhook. What is not given stays.

    \b
    Example:
      receiver webhooks update shop --url https://new.example.com/sms
    """
    change = _change_of(**given)
    if not change:
        raise click.UsageError("nothing to change: see --help")
    _change(name, partial(Webhooks.update, change=change))
    print(f"{name} is changed")


def _change_of(
    *,
    url: str | None,
    events: tuple[str, ...],
    all_events: bool,
    accounts: tuple[str, ...],
    all_accounts: bool,
    pii: bool | None,
    not_delivered_after: int | None,
    headers: tuple[str, ...],
    no_headers: bool,
) -> service.EndpointChange:
    if (events and all_events) or (accounts and all_accounts) or (headers and no_headers):
        raise click.UsageError("choose some, or all, or none")
    change: service.EndpointChange = {}
    if url is not None:
        change["url"] = url
    if events or all_events:
        change["events"] = events
    if accounts or all_accounts:
        change["accounts"] = accounts or None
    if pii is not None:
        change["pii"] = pii
    if not_delivered_after is not None:
        change["not_delivered_after_seconds"] = not_delivered_after or None
    if headers or no_headers:
        change["headers"] = _headers_of(headers)
    return change


def _show_secret(secret: str | None, otherwise: str) -> None:
    if secret is None:
        print(otherwise)
        return
    print("The endpoint verifies requests with this secret, shown only once:", file=sys.stderr)
    print(secret)


@webhooks.command("list")
@as_json
def list_(as_json: bool) -> None:
    """List the webhooks and their state.

    \b
    Example:
      receiver webhooks list
    """
    with open_runtime() as runtime:
        rows = [
            (webhook, runtime.ask(partial(store.find_health, target=webhook)))
            for webhook in runtime.ask(store.list_endpoints)
        ]
    print_list(
        rows,
        {
            "name": lambda row: row[0].name,
            "url": lambda row: row[0].display_url,
            "format": lambda row: row[0].format.value,
            "state": lambda row: _state(row[0]),
            "pending": lambda row: row[1].pending,
            "oldest": lambda row: row[1].oldest_at,
            "dead": lambda row: row[1].dead,
            "delivered": lambda row: row[0].delivered,
            "last error": lambda row: row[0].last_error,
        },
        as_json=as_json,
        fields=lambda row: _as_dict(*row),
    )


def _state(webhook: Endpoint) -> str:
    if webhook.state is EndpointState.PAUSED:
        return f"{webhook.state}, {webhook.paused_because}"
    if webhook.failing_since is None:
        return webhook.state.value
    answer = "no answer" if webhook.last_status is None else f"HTTP status {webhook.last_status}"
    return f"{webhook.state} since {iso_seconds(webhook.failing_since)}, {answer}"


def _as_dict(webhook: Endpoint, health: Health) -> dict[str, Any]:
    hidden = ("id", "url", "signing_secrets", "headers")
    fields = {name: value for name, value in asdict(webhook).items() if name not in hidden}
    shown = {"url": webhook.display_url, "state": webhook.state, "header_names": webhook.header_names}
    return fields | shown | asdict(health)


@webhooks.command()
@click.argument("name")
def pause(name: str) -> None:
    """Pause a webhook. Its deliveries are kept until it resumes.

    \b
    Example:
      receiver webhooks pause shop
    """
    _change(name, Webhooks.pause)
    print(f"{name} is paused")


@webhooks.command()
@click.argument("name")
def resume(name: str) -> None:
    """Resume a webhook, and send its pending deliveries at once.

    \b
    Example:
      receiver webhooks resume shop
    """
    _change(name, Webhooks.resume)
    print(f"{name} is resumed")


@webhooks.command()
@click.argument("name")
def remove(name: str) -> None:
    """Remove a webhook and its pending deliveries.

    \b
    Example:
      receiver webhooks remove shop
    """
    _change(name, Webhooks.remove)
    print(f"{name} is removed")


@webhooks.command()
@click.argument("name")
def rotate(name: str) -> None:
    """Create a new secret and print it, once. For a day, requests are signed with the old one too.

    \b
    Example:
      receiver webhooks rotate shop
    """
    _show_secret(_change(name, Webhooks.rotate), "")


@webhooks.command()
@click.argument("name")
def test(name: str) -> None:
    """Send a test request to a webhook, and print the answer.

    \b
    Example:
      receiver webhooks test shop
    """
    answer = _change(name, Webhooks.try_out)
    if not answer.taken:
        raise ReceiverError(f"{name}: {answer.error or f'answered with HTTP status {answer.status}'}")
    print(f"{name} answered with HTTP status {answer.status} in {answer.seconds} s")


@webhooks.command("deliveries")
@click.argument("name")
@click.option("--state", type=click.Choice([state.value for state in DeliveryState]), help="Only these.")
@click.option("--limit", type=click.IntRange(1, 1000), default=_DEAD_SHOWN, show_default=True)
@as_json
def deliveries_(name: str, state: str | None, limit: int, as_json: bool) -> None:
    """List the deliveries of a webhook, newest first; of those that were accepted the newest 10,000 are kept.

    \b
    Example:
      receiver webhooks deliveries shop --state failing
    """
    wanted = DeliveryState(state) if state else None
    with open_runtime() as runtime:
        webhook = runtime.webhooks.find(name)
        found = runtime.ask(partial(store.list_deliveries, target=webhook, limit=limit, state=wanted))
    print_list(
        found,
        {
            "id": lambda delivery: delivery.id,
            "event": lambda delivery: delivery.event,
            "state": lambda delivery: delivery.state.value,
            "since": lambda delivery: delivery.created_at,
            "attempts": lambda delivery: delivery.attempts,
            "status": lambda delivery: delivery.last_status,
            "delivered": lambda delivery: delivery.delivered_at,
            "last error": lambda delivery: delivery.last_error,
        },
        as_json=as_json,
        fields=lambda delivery: asdict(delivery) | {"webhook_id": delivery.webhook_id},
    )


@webhooks.command("dead-letters")
@click.argument("name")
@as_json
def dead_letters(name: str, as_json: bool) -> None:
    """List the deliveries that failed for three days, newest first.

    \b
    Example:
      receiver webhooks dead-letters shop
    """
    with open_runtime() as runtime:
        webhook = runtime.webhooks.find(name)
        dead = partial(store.list_deliveries, target=webhook, limit=_DEAD_SHOWN, state=DeliveryState.DEAD)
        letters = runtime.ask(dead)
    print_list(
        letters,
        {
            "id": lambda letter: letter.id,
            "event": lambda letter: letter.event,
            "push": lambda letter: letter.push_id,
            "message": lambda letter: letter.message_id,
            "since": lambda letter: letter.created_at,
            "attempts": lambda letter: letter.attempts,
            "last error": lambda letter: letter.last_error,
        },
        as_json=as_json,
        fields=lambda letter: {name: getattr(letter, name) for name in _OF_DEAD_LETTERS},
    )


@webhooks.command()
@click.argument("name")
@click.argument("ids", nargs=-1, type=int)
@click.option("--all", "everything", is_flag=True, help="All dead letters; with --since all events since then.")
@click.option("--since", metavar="TIME", help="What was queued from this time on and has failed.")
@click.option("--until", metavar="TIME", help="With --since: the end, exclusive. Default: now.")
def replay(name: str, ids: tuple[int, ...], everything: bool, since: str | None, until: str | None) -> None:
    """Send again: dead letters or accepted deliveries by id, all dead letters, or what failed of a time.

    --since TIME --all makes all events since then anew, for a receiver that lost them; most have the id that they had.

    \b
    Example:
      receiver webhooks replay shop --all
      receiver webhooks replay shop --since "2026-11-23 09:00" --until "2026-11-23 11:00" --all
    """
    if (bool(ids) == everything or until is not None) if since is None else bool(ids):
        raise click.UsageError("pass ids, or --all, or --since, or --since with --all")
    if since is None:
        count = _change(name, partial(Webhooks.replay, ids=None if everything else ids))
    else:
        count = _replay_since(name, since, until, everything=everything)
    print(f"{count} will be sent again")


def _replay_since(name: str, since: str, until: str | None, *, everything: bool) -> int:
    with open_runtime() as runtime:
        zone = runtime.settings.timezone
        try:
            begin = parse_filter_time(since, zone)
            end = None if until is None else parse_filter_time(until, zone)
        except ValueError as error:
            raise click.UsageError(f"--since, --until: {error}") from None
        target = runtime.webhooks.find(name)
        return runtime.webhooks.replay_since(ACTOR, target, begin, until=end, everything=everything)


def _change(name: str, change: Callable[[Webhooks, str, Endpoint], T]) -> T:
    with open_runtime() as runtime:
        return change(runtime.webhooks, ACTOR, runtime.webhooks.find(name))
