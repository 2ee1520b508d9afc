"""Numbers, or ranges of numbers, with far more sends than usual: the pattern of SMS pumping.

Pumping requests codes for ranges of numbers that earn from each message; the codes are never used. So the report
compares an hour's sends with the usual rate of the same number or range, and shows how many codes were used.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

import sqlalchemy as sa

from receiver.core import DeliveryStatus
from receiver.db.sql import epoch_seconds
from receiver.db.tables import AGE_FROM, messages
from receiver.reporting.carriers import PREFIX_DIGITS

if TYPE_CHECKING:
    from collections.abc import Sequence

_USUAL = timedelta(days=7)
_SPIKE_TIMES = 5
SPIKE_MIN_SENT = 20  # in an hour: fewer raise no alarm
_HOUR_SECONDS = 3600


class By(StrEnum):
    """The grouping."""

    MOBILE = "mobile"
    PREFIX = "prefix"


@dataclass(frozen=True, kw_only=True, slots=True)
class Busy:
    """One number or prefix in one hour."""

    hour: datetime  # its beginning, UTC
    key: str
    sent: int
    delivered: int
    verified: int
    usual: float  # sent an hour, over the week before

    @property
    def spike(self) -> bool:
        """Return whether it is several times the usual rate, and more than a few."""
        return self.sent >= max(SPIKE_MIN_SENT, _SPIKE_TIMES * self.usual)


def list_busiest(
    connection: sa.Connection,
    by: By,
    *,
    since: datetime,
    until: datetime,
    min_sent: int,
    limit: int,
    accounts: Sequence[str] | None = None,
) -> list[Busy]:
    """Return the hours, numbers or prefixes with the most sends, busiest first: at least `min_sent` in the hour."""
    column = messages.c
    key = column.mobile if by is By.MOBILE else sa.func.substr(column.mobile, 1, PREFIX_DIGITS)
    age_from = "coalesce(sent_at, recorded_at)"
    seconds = sa.literal_column(epoch_seconds(connection.dialect.name, age_from), sa.BigInteger)
    hour = seconds - seconds % _HOUR_SECONDS
    sent = sa.func.count()
    query = (
        sa.select(
            hour.label("hour"),
            key.label("key"),
            sa.func.min(column.mobile).label("mobile"),  # if numbers are encrypted, it yields the prefix
            sent.label("sent"),
            sent.filter(column.status == DeliveryStatus.DELIVERED.value).label("delivered"),
            sent.filter(column.verified_at.isnot(None)).label("verified"),
        )
        .where(*_sent_within(since, until, accounts))
        .group_by(sa.text("hour"), sa.text("key"))
        .having(sent >= min_sent)
        .order_by(sent.desc(), sa.text("hour DESC"), sa.text("key"))
        .limit(limit)
    )
    rows = connection.execute(query).all()
    usual = {key: _usual(connection, by, key, since, accounts) for key in {row.key for row in rows}}
    return [
        Busy(
            hour=datetime.fromtimestamp(int(row.hour), UTC),
            key=row.mobile if by is By.MOBILE else row.mobile[:PREFIX_DIGITS],
            sent=row.sent,
            delivered=row.delivered,
            verified=row.verified,
            usual=usual[row.key],
        )
        for row in rows
    ]


def _sent_within(since: datetime, until: datetime, accounts: Sequence[str] | None) -> list[sa.ColumnElement[bool]]:
    column = messages.c
    conditions = [since <= AGE_FROM, until > AGE_FROM, column.recorded_at.isnot(None), column.send_state.is_(None)]
    return conditions if accounts is None else [*conditions, column.account.in_(accounts)]


def _usual(connection: sa.Connection, by: By, key: str, before: datetime, accounts: Sequence[str] | None) -> float:
    """Return how many an hour were sent to a number or prefix in the week before."""
    column = messages.c
    # By the index of the numbers: a week of all messages is many more.
    ends = "~"  # after every character of a number, and of a token
    kept = sa.type_coerce(column.mobile, sa.Text)
    of_key = column.mobile == key if by is By.MOBILE else sa.and_(kept >= key, kept < key + ends)
    query = sa.select(sa.func.count()).where(of_key, *_sent_within(before - _USUAL, before, accounts))
    return (connection.scalar(query) or 0) / (_USUAL / timedelta(hours=1))
