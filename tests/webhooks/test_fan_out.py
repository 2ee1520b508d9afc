"""PostgreSQL makes deliveries by a statement of its own, the embedded database by the program: the same ones."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from receiver.core import Push, SentMessage
from receiver.db import migrate
from receiver.db.engine import Database
from receiver.db.tables import deliveries, messages, receipts, replies
from receiver.db.tables import targets as targets_table
from receiver.messages import recording
from receiver.webhooks import changes as endpoint_changes
from receiver.webhooks.endpoints import EventType, NewEndpoint, PayloadFormat
from receiver.webhooks.fan_out import event_id_of, fan_out
from tests.harness.factories import NOON, make_push, make_send
from tests.harness.journal import save_pushes

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize("seed", range(3))
def test_both_databases_make_the_same_deliveries(
    sqlite_database_url: str, postgres_database_url: str, seed: int
) -> None:
    history = list(histories(random.Random(seed)))
    made = [deliveries_of(url, history, random.Random(seed)) for url in (sqlite_database_url, postgres_database_url)]
    assert made[0] == made[1]
    assert {event for _, event, *_ in made[0]} == {"push", *EventType} - {EventType.NO_RECEIPT, EventType.NOT_DELIVERED}


def histories(chance: random.Random) -> Iterator[Push | SentMessage]:
    """Receipts good, bad and unknown, early, late and doubled, replies, masked numbers, unreadable ones, and sends."""
    for _ in range(150):
        about: dict[str, Any] = {"account": chance.choice(("default", "second")), "task_id": chance.choice("123")}
        about["mobile"] = chance.choice(("15080921090", "15080921091", "1508092****"))
        match chance.randrange(8):
            case 0:
                yield make_push(body=b"mobile=1", account=about["account"])
            case 1:
                about["task_id"] = chance.choice(("1", "2", None))
                yield make_push(content=chance.choice(("T", "hello")), second=chance.randrange(3), **about)
            case 2:
                yield make_send(**about | {"mobile": "15080921090"})
            case _:
                yield make_push(status=chance.choice("1109"), second=chance.randrange(4), **about)


def deliveries_of(url: str, history: list[Push | SentMessage], chance: random.Random) -> list[tuple[Any, ...]]:
    database = Database(url)
    migrate.upgrade(database)
    for name, form, events, accounts in (
        ("all", PayloadFormat.WEBHOOKS, tuple(EventType), None),
        ("second", PayloadFormat.WEBHOOKS, (EventType.STATUS_CHANGED,), ("second",)),
        ("raw", PayloadFormat.RAW, (), None),
    ):
        new = NewEndpoint(name=name, url="https://example.com/", format=form, events=events, accounts=accounts)
        database.write(partial(endpoint_changes.create_endpoint, new=new, now=datetime.now(UTC)))
    for step in history:
        if isinstance(step, SentMessage):
            database.write(partial(recording.record_sent, sends=[step], recorded_at=NOON))
        else:
            save_pushes(database, [step])
        if chance.randrange(3) == 0:
            database.write(partial(fan_out, limit=chance.randrange(1, 9), no_receipt_after=timedelta(hours=1)))
    while database.write(partial(fan_out, limit=50, no_receipt_after=timedelta(hours=1))):
        pass
    made = deliveries.c
    message, ordered = messages.alias(), messages.alias()
    query = (
        sa.select(
            targets_table.c.name, made.event, made.push_id, made.receipt_id, made.reply_id,
            *(table.c[name] for table in (message, ordered) for name in ("task_id", "mobile", "account")),
        )
        .join(targets_table, targets_table.c.id == made.target_id)
        .outerjoin(message, message.c.id == made.message_id)
        .outerjoin(ordered, ordered.c.id == made.order_key)
        .order_by(made.id)
    )  # fmt: skip
    with database.reading() as connection:
        rows = connection.execute(query).all()
        for table, name in ((receipts, "receipt_id"), (replies, "reply_id")):
            origins = sa.select(made.event_id, made.event, table.c.push_id, table.c.id).join(
                table, made[name] == table.c.id
            )
            for event_id, event, push_id, row_id in connection.execute(origins):
                assert event_id == event_id_of(event, f"{push_id} {row_id}")
    database.close()
    # Ids of rows differ: a conflict uses one up on PostgreSQL. What they are of is told by the push that brought them.
    return [(*row[:3], row[3] is not None, row[4] is not None, *row[5:]) for row in rows]
