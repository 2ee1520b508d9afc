"""Gives stamps to messages that others have changed, in transactions of their own: no such row stops the projection."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import sqlalchemy as sa

from receiver.db.set_aside import ROW_FAULTS
from receiver.messages.projection import take_turn
from receiver.messages.stamps import find_unstamped, is_any_unstamped, stamp_some
from receiver.observability import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterable

    from receiver.db.engine import Connection, Database

_log = get_logger(__name__)

# A trigger may refuse a row, or a damaged page; SQLAlchemy's classes follow those of PEP 249.
_REFUSALS = (sa.exc.IntegrityError, sa.exc.InternalError, sa.exc.ProgrammingError, *ROW_FAULTS)
_REFUSED_MAX = 30  # at once: so many are no damage, the program is wrong
# While a long snapshot is open, each look walks the index entries of all that was stamped since it began.
_LOOK_SECONDS, _LOOK_PAUSE = 0.005, 4  # a longer one is followed by a pause of so many times its time


@dataclass(kw_only=True, slots=True)
class _Stamped:
    last_id: int = 0
    rows: int = 0  # with the refused ones
    refused: dict[int, Exception] = field(default_factory=dict)


class Stamping:
    """Stamps on behalf of one process, part by part."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._after = 0  # the id up to which the present pass has come; 0: none has begun
        self._refused: set[int] = set()
        self._look_from = 0.0

    def is_due(self, connection: Connection) -> bool | None:
        """Return whether messages may have no stamp. None: not known, since looks cost much at present."""
        if self._after:
            return True
        begun = time.monotonic()
        if begun < self._look_from:
            return None
        due = is_any_unstamped(connection)
        took = time.monotonic() - begun
        if took > _LOOK_SECONDS:
            self._look_from = begun + (1 + _LOOK_PAUSE) * took
        return due

    def stamp_next(self, *, limit: int) -> bool:
        """Stamp the next messages, at most `limit`; return whether there may be more.

        Raises DatabaseUnavailable or DatabaseMisconfigured.
        """
        after = self._after
        stamped = self._database.write(partial(_stamp, limit=limit, after=after, besides=frozenset(self._refused)))
        if stamped is None:
            return True
        for message_id, error in stamped.refused.items():
            _log.error("message cannot be stamped, its change is not read", id=message_id, error=type(error).__name__)
        self._refused |= stamped.refused.keys()
        # On from the last one, past the dead index entries; then once more from the first, for what came behind.
        self._after = stamped.last_id if stamped.rows == limit else 0
        return bool(self._after or after)


def _stamp(connection: Connection, *, limit: int, after: int, besides: Iterable[int]) -> _Stamped | None:
    """Stamp messages above an id. None: another process has the turn."""
    turn = take_turn(connection, wait=False)
    if turn is None:
        return None
    try:
        with connection.begin_nested():
            ids = stamp_some(connection, turn.stamp, limit=limit, after=after, besides=besides)
        return _Stamped(last_id=max(ids, default=0), rows=len(ids))
    except _REFUSALS:
        stamped = _Stamped()
    for message_id in find_unstamped(connection, limit=limit, after=after, besides=besides):
        stamped.last_id, stamped.rows = message_id, stamped.rows + 1
        try:
            with connection.begin_nested():
                stamp_some(connection, turn.stamp, limit=1, after=message_id - 1, upto=message_id)
        except _REFUSALS as error:
            stamped.refused[message_id] = error
            if len(stamped.refused) > _REFUSED_MAX:
                raise
    return stamped
