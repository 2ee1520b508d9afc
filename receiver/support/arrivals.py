"""What the platform has pushed, and what it could not be read from: the newest rows of the journal alone.

Also for commands, which start at once: so this module imports little.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.core import CLOCKS_APART, Outcome, first_id_of
from receiver.db.tables import AGE_FROM, pushes
from receiver.messages.journal import CLOCK_SLACK
from receiver.net.self_test import SELF_TEST_BODY

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

RECORDED = AGE_FROM.isnot(None)


@dataclass(frozen=True, kw_only=True, slots=True)
class LastPush:
    """The newest push of the journal, parsed or not."""

    at: datetime
    remote_addr: str
    outcome: str
    kind: str | None


OF_PLATFORM = sa.func.substr(pushes.c.body, 1, len(SELF_TEST_BODY), type_=sa.LargeBinary) != SELF_TEST_BODY


def find_last_push(
    connection: sa.Connection, accounts: Sequence[str] | None = None, *, now: datetime
) -> LastPush | None:
    """Return the platform's newest push to these accounts that is not in the future; None: there is none."""
    column = pushes.c
    query = sa.select(column.received_at, column.remote_addr, column.outcome, column.kind)
    query = query.where(OF_PLATFORM, _received_by(now), *pushed_to(accounts))
    row = connection.execute(query.order_by(column.id.desc()).limit(1)).one_or_none()
    if row is None:
        return None
    return LastPush(at=row.received_at, remote_addr=row.remote_addr, outcome=row.outcome, kind=row.kind)


def _received_by(now: datetime) -> sa.ColumnElement[bool]:
    """Return the condition that a push is not in the future: otherwise a wrong clock would hide a silence for years."""
    return pushes.c.id < first_id_of(now + CLOCKS_APART)


def sends_since(connection: sa.Connection, since: datetime) -> bool:
    """Return whether any send after that moment was recorded."""
    newest = connection.scalar(sa.select(AGE_FROM).where(RECORDED).order_by(AGE_FROM.desc()).limit(1))
    return newest is not None and newest >= since


def count_quarantined(
    connection: sa.Connection, *, since: datetime | None, at_most: int = 1_000, accounts: Sequence[str] | None = None
) -> int:
    """Return how many pushes received after `since` could not be parsed; `at_most` means that many or more."""
    newest = newest_quarantined(since, at_most, accounts, pushes.c.received_at)
    query = sa.select(sa.func.count()).select_from(newest)
    if since is not None:
        query = query.where(newest.c.received_at > since)
    return connection.scalar(query) or 0


def newest_quarantined(
    since: datetime | None, at_most: int, accounts: Sequence[str] | None, *columns: sa.ColumnElement[Any]
) -> sa.Subquery:
    """Return the newest quarantined pushes since a time, at most so many, with these columns."""
    # As a literal, so that PostgreSQL sees that the partial index holds for it.
    quarantined = pushes.c.outcome == sa.literal(str(Outcome.QUARANTINED), literal_execute=True)
    newest = sa.select(*columns).where(quarantined, *pushed_to(accounts))
    if since is not None:
        newest = newest.where(pushes.c.id >= first_id_of(since - CLOCK_SLACK))
    return newest.order_by(pushes.c.id.desc()).limit(at_most).subquery()


def pushed_to(accounts: Sequence[str] | None) -> list[sa.ColumnElement[bool]]:
    """Return the condition that a push is of these accounts; None: of any."""
    return [] if accounts is None else [pushes.c.account.in_(accounts)]
