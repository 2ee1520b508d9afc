"""What cannot be undone is asked first, by the name of what it concerns; nothing is done until the answer is yes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from receiver.auth import api_keys, changes, users
from receiver.auth.api_keys import Scope
from receiver.db import once
from receiver.webhooks import changes as endpoint_changes
from receiver.webhooks import endpoints
from receiver.webhooks.endpoints import NewEndpoint, PayloadFormat
from tests.web.console.staff import Page, audit, create, log_in

if TYPE_CHECKING:
    import sqlalchemy as sa
    from flask import Flask

    from receiver.runtime import Runtime


@pytest.fixture
def stocked(runtime: Runtime) -> Runtime:
    """One of each that can be lost: a user with a second factor, a key, an endpoint."""
    now = runtime.now()
    create(runtime, "li.wei", "analyst")

    def work(connection: sa.Connection) -> None:
        changes.change_user(connection, "li.wei", now=now, totp_secret="JBSWY3DPEHPK3PXP")
        changes.create_key(connection, name="shop", scopes=[Scope.READ], accounts=None, now=now, expires_at=None)
        new = NewEndpoint(name="crm", url="https://127.0.0.1:9/hooks", format=PayloadFormat.RAW)
        endpoint_changes.create_endpoint(connection, new, now=now)

    runtime.database.write(work)
    return runtime


def state(runtime: Runtime) -> tuple[object, ...]:
    user = runtime.ask(lambda c: users.get_user(c, "li.wei"))
    (key,) = runtime.ask(api_keys.list_keys)
    seen = runtime.ask(lambda c: once.find_noted(c, once.QUARANTINE_SEEN, now=runtime.now()))
    left = [endpoint.name for endpoint in runtime.ask(endpoints.list_endpoints)]
    return user.disabled_at is None, user.totp_secret is not None, key.revoked_at is None, seen is None, left


UNTOUCHED = (True, True, True, True, ["crm"])


@pytest.mark.parametrize(
    ("path", "fields", "question", "button", "after"),
    [
        ("/users/li.wei", {"action": "disable"}, "Disable li.wei?", "Disable li.wei",
         (False, True, True, True, ["crm"])),
        ("/users/li.wei", {"action": "reset_totp"}, "Reset the second factor of li.wei?",
         "Reset the second factor of li.wei", (True, False, True, True, ["crm"])),
        ("/keys/revoke", {"name": "shop"}, "Revoke the key shop?", "Revoke key shop",
         (True, True, False, True, ["crm"])),
        ("/pushes/seen", {}, "Mark all pushes that could not be parsed as reviewed?", "Mark all as reviewed",
         (True, True, True, False, ["crm"])),
        ("/webhooks/change", {"name": "crm", "action": "remove"}, "Remove the webhook crm?", "Remove crm",
         (True, True, True, True, [])),
    ],
    ids=["disable", "second factor", "key", "quarantine", "webhook"],
)  # fmt: skip
def test_it_asks_first_and_does_it_after_a_yes(
    app: Flask,
    stocked: Runtime,
    path: str,
    fields: dict[str, str],
    question: str,
    button: str,
    after: tuple[object, ...],
) -> None:
    admin = log_in(app, stocked, "admin")
    before = audit(stocked)
    for answer in ({}, {"sure": ""}, {"sure": "no"}):
        asked = admin.post(path, fields | answer)
        assert asked.status_code == 200
        page = Page(asked.text)
        assert question in page.text
        assert button in page.text
        assert "Cancel" in page.text
    assert state(stocked) == UNTOUCHED
    assert audit(stocked) == before
    assert admin.surely(path, fields).status_code == 303
    assert state(stocked) == after
    assert len(audit(stocked)) == len(before) + 1


def test_to_send_many_again_is_asked_first(app: Flask, stocked: Runtime) -> None:
    admin = log_in(app, stocked, "admin")
    since = {"action": "replay", "since": "2026-01-01T00:00"}
    before = audit(stocked)
    for path, fields in (("/webhooks/change", {"name": "crm", "action": "replay"}), ("/webhooks/crm", since)):
        asked = Page(admin.post(path, fields).text).text
        assert "Send deliveries to crm again?" in asked
    assert "Since 2026-01-01 00:00." in asked
    assert audit(stocked) == before
    assert admin.surely("/webhooks/crm", since).status_code == 303
    assert audit(stocked)[-1][1] == "webhook.replay"
