"""The status of a message is the same in Python, as a word of SQL, and as a condition; nothing else defines it."""

from __future__ import annotations

import ast
import re
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

import receiver
from receiver.core import SENDING_MAX, DeliveryStatus, MessageStatus
from receiver.db.message_status import Clock, has_status, message_status, status_of
from receiver.db.tables import messages
from tests.harness.factories import NOON

if TYPE_CHECKING:
    from collections.abc import Iterator

    from receiver.runtime import Runtime

CLOCK = Clock(now=NOON, late_after=timedelta(minutes=5), no_receipt_after=timedelta(hours=72))
SECOND = timedelta(seconds=1)
AGES = (None, SENDING_MAX, SENDING_MAX + SECOND, CLOCK.no_receipt_after, CLOCK.no_receipt_after + SECOND)
SEND_STATES = (None, MessageStatus.SENDING, MessageStatus.OUTCOME_UNKNOWN, MessageStatus.REFUSED)


def test_status_is_the_same_in_python_as_a_word_of_sql_and_as_a_condition(runtime: Runtime) -> None:
    # A send whose outcome is open or that was refused has no task id, and so no receipts.
    cases: list[tuple[DeliveryStatus, MessageStatus | None, timedelta | None]]
    cases = [(status, None, age) for status, age in product(DeliveryStatus, AGES)]
    cases += [(DeliveryStatus.PENDING, state, age) for state, age in product(SEND_STATES, AGES)]
    rows = [
        {
            "id": number,
            "account": "default",
            "task_id": str(number),
            "mobile": "15080921090",
            "status": status,
            "send_state": state,
            "seen": 0,
            "sent_at": None if age is None else NOON - age,
        }
        for number, (status, state, age) in enumerate(cases, start=1)
    ]
    runtime.database.write(lambda connection: connection.execute(sa.insert(messages), rows))
    expected = {
        number: message_status(status, state, None if age is None else NOON - age, CLOCK)
        for number, (status, state, age) in enumerate(cases, start=1)
    }
    with runtime.database.reading() as connection:
        words = connection.execute(sa.select(messages.c.id, status_of(CLOCK)))
        assert {row_id: MessageStatus(word) for row_id, word in words} == expected
        for status in MessageStatus:
            found = set(connection.scalars(sa.select(messages.c.id).where(has_status(status, CLOCK))))
            assert found == {row_id for row_id, known in expected.items() if known is status}
    assert set(expected.values()) == set(MessageStatus)


def texts_of(module: ast.Module) -> Iterator[str]:
    return (node.value for node in ast.walk(module) if isinstance(node, ast.Constant) and isinstance(node.value, str))


def test_no_sql_spells_a_status_as_a_number() -> None:
    spelt = re.compile(r"\bstatus\s*(=|<>|!=|<|>|IN)\s*\(?[0-3]\b", re.IGNORECASE)
    root = Path(receiver.__file__).parent
    found = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if any(spelt.search(text) for text in texts_of(ast.parse(path.read_text())))
    }
    assert found == set()
