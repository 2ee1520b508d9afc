"""A row is the same outside wherever it is read: API, files, webhooks and events follow from one description."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from receiver.auth.api_keys import Scope
from receiver.messages.export_files import FileFormat, iter_file
from receiver.messages.fields import fields_of
from receiver.messages.queries import (
    Filter,
    MessageRow,
    Page,
    ReceiptRow,
    ReplyRow,
    list_messages,
    list_receipts,
    list_replies,
)
from receiver.webhooks.payloads import data_of
from tests.conftest import make_key
from tests.harness.factories import NOON, make_push, make_send

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlalchemy as sa
    from flask.testing import FlaskClient

    from receiver.runtime import Runtime

ROWS = {"messages": MessageRow, "receipts": ReceiptRow, "replies": ReplyRow}


def file_rows(runtime: Runtime, name: str, *, in_full: bool) -> list[dict[str, Any]]:
    """The rows of an exported file, newest first."""
    with runtime.exporting() as connection:
        pieces = iter_file(
            connection,
            name,
            FileFormat.NDJSON,
            Filter(),
            runtime.clock(),
            in_full=in_full,
            zone=runtime.settings.timezone,
        )
        return [json.loads(line) for line in b"".join(pieces).splitlines()][::-1]


def webhook_rows(runtime: Runtime, name: str, *, in_full: bool) -> list[dict[str, Any]]:
    """What webhooks say of the rows, newest first."""
    clock, page = runtime.clock(), Page(limit=100)
    fetch: dict[str, Callable[[sa.Connection], Any]] = {
        "messages": lambda connection: list_messages(connection, page, clock),
        "receipts": lambda connection: list_receipts(connection, page),
        "replies": lambda connection: list_replies(connection, page),
    }
    return [data_of(row, in_full=in_full) for row in runtime.ask(fetch[name])]


@pytest.mark.parametrize("in_full", [True, False])
def test_row_is_the_same_in_api_file_webhook_and_events(runtime: Runtime, client: FlaskClient, in_full: bool) -> None:
    runtime.recorder.record([make_send(template_id="540", reference="order 1", sent_at=NOON)])
    undocumented = b"mobile=15080921090&taskid=3313746&status=7&receivetime=2026-11-23+13:14:03&note=15080921091"
    for push in (
        make_push(second=3),
        make_push(body=undocumented),
        make_push(content="请打 15080921092", second=5),
        make_push(content="TD", task_id=None, mobile="1508092****"),
    ):
        runtime.batch_writer.enqueue(push).result(60)
    scopes = set(Scope) if in_full else set(Scope) - {Scope.PII}
    headers = {"Authorization": make_key(runtime, *scopes)}
    lists = {name: client.get(f"/api/v1/{name}", headers=headers).json["items"] for name in ROWS}
    assert [len(rows) for rows in lists.values()] == [1, 2, 2]
    for name, rows in lists.items():
        fields = fields_of(ROWS[name])
        assert all(set(row) == {field.name for field in fields} for row in rows)
        assert file_rows(runtime, name, in_full=in_full) == rows
        hidden = {} if in_full or name != "replies" else {"content": "***"}
        assert webhook_rows(runtime, name, in_full=in_full) == [row | hidden for row in rows]
    events = client.get("/api/v1/events", headers=headers).json["items"]
    kinds = {"receipt": lists["receipts"], "reply": lists["replies"]}
    for kind, rows in kinds.items():
        of_kind = [event for event in events if event["kind"] == kind]
        assert of_kind == [{"kind": kind, "event_id": f"{kind}_{row['id']}"} | row for row in reversed(rows)]
    assert lists["replies"][1]["content"] == ("请打 15080921092" if in_full else "请打 150****1092")
