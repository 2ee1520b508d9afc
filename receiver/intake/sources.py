"""Recent sources of pushes: addresses with counts, from the newest rows of the journal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from receiver.core import first_id_of
from receiver.db.tables import pushes

if TYPE_CHECKING:
    from datetime import datetime

READ_MAX_PUSHES = 1_000_000
_ADDRESSES_MAX = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class PushSource:
    """One address that pushed."""

    address: str
    pushes: int
    last_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class PushSources:
    """Every address that pushed, the most frequent first."""

    found: list[PushSource]
    complete: bool  # False: the period has more pushes than were read; older ones are missing


def find_sources(connection: sa.Connection, *, since: datetime, read_max: int = READ_MAX_PUSHES) -> PushSources:
    """Return the addresses of pushes since `since`, from at most `read_max` of the newest."""
    newest = (
        sa.select(pushes.c.remote_addr, pushes.c.received_at)
        .where(pushes.c.id >= first_id_of(since))
        .order_by(pushes.c.id.desc())
        .limit(read_max)
        .subquery()
    )
    count, last = sa.func.count(), sa.func.max(newest.c.received_at)
    rows = connection.execute(
        sa.select(newest.c.remote_addr, count, last)
        .group_by(newest.c.remote_addr)
        .order_by(count.desc(), newest.c.remote_addr)
        .limit(_ADDRESSES_MAX)
    ).all()
    return PushSources(
        found=[PushSource(address=address, pushes=number, last_at=last_at) for address, number, last_at in rows],
        complete=sum(number for _, number, _ in rows) < read_max,
    )
