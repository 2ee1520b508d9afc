"""Why messages did not arrive: outcomes by operator, the platform's refusals, the status values of receipts.

All figures are of the newest 20,000 messages of a period, so that they come at once however many there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.core import DeliveryStatus, MessageStatus, delivery_status
from receiver.db.message_status import has_status, is_reported, waits
from receiver.db.tables import messages, receipts
from receiver.reporting.carriers import PREFIX_DIGITS
from receiver.support import signals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

_LISTED_MAX = 50  # reasons or status values: the platform knows a few dozen


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampled:
    """The messages that the figures are of."""

    since: datetime  # UTC
    until: datetime
    accounts: Sequence[str] | None = None  # None: all
    template_id: str | None = None

    def columns(self, **more: sa.ColumnElement[Any]) -> Any:
        """Return these columns of the newest messages of the period, narrowed to its accounts and template."""
        named = (column.label(name) for name, column in more.items())
        found = signals.sent_between(
            self.since, self.until, messages.c.id, messages.c.account, messages.c.template_id, *named
        )
        narrowed = sa.select(found)
        if self.accounts is not None:
            narrowed = narrowed.where(found.c.account.in_(self.accounts))
        if self.template_id is not None:
            narrowed = narrowed.where(found.c.template_id == self.template_id)
        return narrowed.subquery().c


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcomes:
    """What became of the messages to one operator."""

    sent: int = 0
    delivered: int = 0
    failed: int = 0
    waiting: int = 0  # without a receipt


_COUNTED = ("sent", "delivered", "failed", "waiting")


def find_sample_begin(connection: sa.Connection, sampled: Sampled) -> datetime | None:
    """Return the time of the oldest message that is counted, where the period has more; None: all are counted."""
    found = signals.sent_between(sampled.since, sampled.until).c
    row = connection.execute(
        sa.select(sa.func.count(), sa.func.min(found.age_from, type_=messages.c.sent_at.type))
    ).one()
    oldest: datetime | None = row[1]
    return oldest if row[0] >= signals.NEWEST_MAX else None


def count_by_operator(
    connection: sa.Connection, sampled: Sampled, operator: Callable[[str], str | None]
) -> dict[str | None, Outcomes]:
    """Return the outcomes of sent messages by operator, most messages first. `operator`: of the first seven digits."""
    column = messages.c
    found = sampled.columns(
        prefix=sa.literal_column(f"substr(messages.mobile, 1, {PREFIX_DIGITS})", sa.String),
        mobile=column.mobile,
        sent=column.send_state.is_(None),
        delivered=is_reported(DeliveryStatus.DELIVERED),
        failed=is_reported(DeliveryStatus.FAILED),
        waiting=waits(),
    )
    counts = [sa.func.count().filter(found[name]).label(name) for name in _COUNTED]
    # Of each prefix one number: where numbers are encrypted, its first digits are the prefix.
    one = sa.func.min(found.mobile, type_=column.mobile.type).label("mobile")
    totals: dict[str | None, Outcomes] = {}
    for row in connection.execute(sa.select(one, *counts).where(found.sent).group_by(found.prefix)):
        name = operator(row.mobile[:PREFIX_DIGITS])
        before = totals.get(name, Outcomes())
        totals[name] = Outcomes(**{each: getattr(before, each) + getattr(row, each) for each in _COUNTED})
    return dict(sorted(totals.items(), key=lambda item: (-item[1].sent, item[0] or "")))


def count_refusals(connection: sa.Connection, sampled: Sampled) -> list[tuple[str | None, int]]:
    """Return (the platform's words, messages that it refused with them), most first."""
    refused = has_status(MessageStatus.REFUSED, None)
    found = sampled.columns(reason=messages.c.error_message, refused=refused)
    count = sa.func.count()
    query = sa.select(found.reason, count).where(found.refused).group_by(found.reason)
    rows = connection.execute(query.order_by(count.desc(), found.reason).limit(_LISTED_MAX))
    return [(row[0], row[1]) for row in rows]


def count_vendor_statuses(connection: sa.Connection, sampled: Sampled) -> list[tuple[str, DeliveryStatus, int]]:
    """Return (status as pushed, its meaning, receipts that have it), most first."""
    ids = sa.select(sampled.columns().id)
    value, count = receipts.c.vendor_status, sa.func.count()
    query = sa.select(value, count).where(receipts.c.message_id.in_(ids)).group_by(value)
    rows = connection.execute(query.order_by(count.desc(), value).limit(_LISTED_MAX))
    return [(row[0], delivery_status(row[0]), row[1]) for row in rows]
