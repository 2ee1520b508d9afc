"""Erases all data of one phone number from the journal, messages, receipts, replies, notes, look-ups: nothing else.

The journal has raw bytes, perhaps encrypted. So every row is read, and searched for the digits: plain or
percent-encoded, full width or not, with or without a country code. Each row that contains them is then parsed as usual.
A row is erased if it is a push of the number, a push of a masked number that belongs to one of its messages, or
unreadable and contains it. A push of another number that contains this one (a reply: "call me at …") is another
person's data: it stays, and is counted as a mention.

One transaction erases everything as of one moment. It keeps the report counts and leaves a tombstone with the number's
keyed hash. Later data of the number is stored as usual.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from unicodedata import normalize
from urllib.parse import unquote_to_bytes
from uuid import UUID

import sqlalchemy as sa

from receiver.core import UNREAD, DatabaseMisconfigured, Kind, Push, Unreadable, first_id_of
from receiver.db.encryption import cipher_of
from receiver.db.engine import Database, lift_statement_timeout
from receiver.db.set_aside import read_rows
from receiver.db.tables import (
    TASKLESS_WHERE,
    attempts,
    audit,
    deliveries,
    delivery_history,
    forward_queue,
    look_ups,
    masked_key_where,
    messages,
    notes,
    pushes,
    receipts,
    replies,
    timers,
    tombstones,
)
from receiver.maintenance.prune import delete_messages
from receiver.messages import projection
from receiver.messages.projection import lock_tasks
from receiver.messages.projector import catch_up
from receiver.messages.queries import content_of
from receiver.messages.recording import match_recorded
from receiver.messages.search import may_contain
from receiver.reporting import rollup

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

_PAGE_ROWS = 1000  # journal rows read at once
_DELETED_AT_ONCE = 1000

MaskedKey = tuple[str, str, str]  # account, task id, number with its `*`


@dataclass(frozen=True, kw_only=True, slots=True)
class NumberTraces:
    """Where a number occurs."""

    push_ids: set[UUID] = field(default_factory=set)
    rows: Mapping[str, int] = field(default_factory=dict)  # rows to erase, by table
    mentions: Mapping[str, int] = field(default_factory=dict)  # rows of others that contain it, by table


class NumberPatterns:
    """Recognizes a number in bytes, texts and pushes."""

    def __init__(self, mobile: str, masked: Collection[MaskedKey], read_again: Callable[[Push], Push]) -> None:
        self.mobile = mobile
        self._masked = frozenset(masked)
        self._read_again = read_again
        numbers = sorted({mobile, *(number for _, _, number in masked)})
        self._in_bytes = re.compile("|".join(map(_pattern, numbers)).encode())
        digits = r"\W{0,8}".join(mobile)
        before = r"(?<![0-9])(?:00?)?(?:86)?\W{0,8}0?\W{0,8}"
        self._in_text = re.compile(rf"{before}{digits}(?![0-9])")

    def may_be_in(self, *parts: bytes) -> bool:
        """Return whether these bytes contain the digits."""
        return any(self._in_bytes.search(part) for part in parts)

    def named_in(self, text: str) -> bool:
        """Return whether a text contains the number, also in full-width digits."""
        return self._in_text.search(normalize("NFKC", text)) is not None

    def is_of(self, push: Push) -> bool:
        """Return whether a push belongs to the number, by the rules above."""
        reading = self._read_again(push).reading
        if isinstance(reading, Unreadable):
            return self.named_in_push(push)
        return reading.mobile == self.mobile or (push.account, reading.task_id, reading.mobile) in self._masked

    def named_in_push(self, push: Push) -> bool:
        """Return whether a push contains the number anywhere."""
        raw = [unquote_to_bytes(part) for part in (push.query, push.body)]
        texts = (part.decode(encoding, "replace") for part in raw for encoding in _ENCODINGS)
        return any(self.named_in(_JSON_ESCAPE.sub(_unescaped, text)) for text in texts)


_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)

# Separators allowed between digits, see `parse_mobile`: in ASCII, percent-encoded or JSON-escaped; other characters as
# their bytes (in GB18030 every second byte is ASCII).
_SEPARATORS = (
    r"(?:[ \t\n\v\f\r+.(){}[\]-]|[\x80-\xff][0-9@-~]?|%[89A-Fa-f][0-9A-Fa-f][0-9@-~]?"
    r"|%0[9A-Da-d]|%2[089BDEbde]|%[57][BDbd]|\\+(?:u[0-9A-Fa-f]{4}|[tnrvf])){0,16}"
)

_ENCODINGS = ("utf-8", "gb18030")  # for full-width digits; plain digits are ASCII in both
_TO_FULL_WIDTH = 0xFEE0


_JSON_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|[tnrvf])")


def _unescaped(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16)) if escape[1] else " "


def _pattern(number: str) -> str:
    """Return a regular expression for every spelling of a number in bytes."""
    return _SEPARATORS.join(map(_written, number))


def _written(character: str) -> str:
    """Return the spellings of one digit; `*` is a masked digit."""
    if character == "*":
        return r"(?:[*xX]|%2[Aa]|%[57]8)"
    forms = [character, f"%3{character}", rf"\\+u003{character}", rf"\\+u[fF][fF]1{character}"]
    for encoding in _ENCODINGS:
        wide = chr(ord(character) + _TO_FULL_WIDTH).encode(encoding)
        forms += ["".join(map(r"\x{:02x}".format, wide)), "".join(map(_percent_encoded, wide))]
    return f"(?:{'|'.join(forms)})"


def _percent_encoded(byte: int) -> str:
    return "%" + "".join(f"[{digit}{digit.lower()}]" for digit in f"{byte:02X}")


def find_traces(
    database: Database,
    mobile: str,
    read_again: Callable[[Push], Push],
    on_progress: Callable[[int], None] = lambda _: None,
) -> NumberTraces:
    """Return what `erase_number` would erase. Reads the whole journal.

    `on_progress` receives the number of rows read since the last call.

    Raises DatabaseUnavailable or DatabaseMisconfigured.
    """
    catch_up(database)
    with database.reading() as connection:
        patterns = NumberPatterns(mobile, _masked_of(connection, mobile), read_again)
    mine: set[UUID] = set()
    named: set[UUID] = set()
    first: UUID | None = UUID(int=0)
    while first is not None:
        with database.reading() as connection:  # one transaction per page, so that the log can be truncated
            first, mine_there, named_there = _search_page(connection, patterns, first)
        mine |= mine_there
        named |= named_there
        on_progress(_PAGE_ROWS)
    with database.reading() as connection:
        lift_statement_timeout(connection)
        return NumberTraces(
            push_ids=mine, rows=_rows(connection, patterns, mine), mentions=_mentions(connection, patterns, named)
        )


def erase_number(
    database: Database,
    mobile: str,
    read_again: Callable[[Push], Push],
    *,
    found: NumberTraces,
    since: datetime,
    now: datetime,
    actor: str,
    reason: str | None,
    mobile_hmac: str,
) -> dict[str, int]:
    """Erase what was found and what has arrived since; return the rows by table. All or nothing.

    `since`: start of the search. Raises DatabaseUnavailable, DatabaseMisconfigured or RowRejected.
    """

    def work(connection: sa.Connection) -> dict[str, int]:
        if connection.dialect.name == "postgresql":
            # One snapshot of journal and messages: a concurrent push is in both or in neither.
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            # Before the snapshot is taken: no push that is erased here is being projected, no note being written.
            connection.exec_driver_sql("LOCK TABLE projection, notes IN EXCLUSIVE MODE")
            lift_statement_timeout(connection)
        projection.catch_up(connection, passes_gaps=connection.dialect.name != "postgresql")
        patterns = NumberPatterns(mobile, _masked_of(connection, mobile), read_again)
        mine = found.push_ids | _search_since(connection, patterns, since) | _find_first_pushes(connection, mobile)
        rows = _rows(connection, patterns, mine)
        if any(rows.values()):
            _delete(connection, patterns, mine)
            values = {"mobile_hmac": mobile_hmac, "forgotten_at": now, "actor": actor, "reason": reason, "counts": rows}
            connection.execute(sa.insert(tombstones).values(values))
        return rows

    return database.write(work)


# --- Search ----------------------------------------------------------------------------------------------


def _ids_of(mobile: str) -> sa.Select[tuple[int]]:
    return sa.select(messages.c.id).where(messages.c.mobile == mobile)


def _taskless(mobile: str) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the conditions for the number's replies that belong to no message."""
    return (TASKLESS_WHERE, replies.c.masked_mobile == mobile)


def _masked_of(connection: sa.Connection, mobile: str) -> set[MaskedKey]:
    """Return the masked numbers that belong to messages of this number."""
    found: set[MaskedKey] = set()
    for table in (receipts, replies):
        query = sa.select(table.c.account, table.c.task_id, table.c.masked_mobile)
        query = query.where(table.c.message_id.in_(_ids_of(mobile)), masked_key_where(table))
        found |= {(row.account, row.task_id, row.masked_mobile) for row in connection.execute(query)}
    return found


def _find_first_pushes(connection: sa.Connection, mobile: str) -> set[UUID]:
    """Return the pushes that first brought the receipts and replies of the number."""
    found = set(connection.scalars(sa.select(replies.c.push_id).where(*_taskless(mobile))))
    for table in (receipts, replies):
        found |= set(connection.scalars(sa.select(table.c.push_id).where(table.c.message_id.in_(_ids_of(mobile)))))
    return found


def _search_page(
    connection: sa.Connection, patterns: NumberPatterns, first: UUID
) -> tuple[UUID | None, set[UUID], set[UUID]]:
    """Search one page of the journal from the id `first` on.

    Return the first id of the next page (None: no more), the number's pushes, and other pushes that contain it.
    """
    lift_statement_timeout(connection)
    following = sa.select(pushes.c.id).where(pushes.c.id >= first).order_by(pushes.c.id).offset(_PAGE_ROWS).limit(1)
    end: UUID | None = connection.scalar(following)
    within = [pushes.c.id >= first, *([] if end is None else [pushes.c.id < end])]
    mine: set[UUID] = set()
    named: set[UUID] = set()
    # Only the needed columns: a row with damage in another column is still found.
    columns = (pushes.c.id, pushes.c.account, pushes.c.endpoint, pushes.c.query, pushes.c.body)
    unread: list[str] = []
    found = read_rows(
        connection,
        sa.select(*columns).where(*within),
        pushes,
        lambda row: _as_push(row) if patterns.may_be_in(row.body, row.query) else None,
        tell=unread.append,
    )
    for push in filter(None, found):
        if patterns.is_of(push):
            mine.add(push.id)
        elif patterns.named_in_push(push):
            named.add(push.id)
    if unread:
        raise DatabaseMisconfigured(
            f"these rows are unreadable and may belong to the number: {', '.join(unread)}; restore or delete them"
        )
    return end, mine, named


def _as_push(row: Any) -> Push:
    known = {kind.value: kind for kind in Kind}
    return Push(
        id=row.id,
        account=row.account,
        endpoint=known.get(row.endpoint),
        method="",
        query=row.query,
        body=row.body,
        content_type=None,
        remote_addr="",
        received_at=_NO_TIME,
        reading=UNREAD,
    )


def _search_since(connection: sa.Connection, patterns: NumberPatterns, since: datetime) -> set[UUID]:
    """Return the number's pushes that have arrived since `since`."""
    found: set[UUID] = set()
    first: UUID | None = first_id_of(since)
    while first is not None:
        first, mine, _ = _search_page(connection, patterns, first)
        found |= mine
    return found


def _rows(connection: sa.Connection, patterns: NumberPatterns, push_ids: Collection[UUID]) -> dict[str, int]:
    """Return the number of rows to erase, by table."""
    of_messages = _ids_of(patterns.mobile)
    counted = {
        table.name: connection.scalar(sa.select(sa.func.count()).select_from(table).where(column.in_(of_messages))) or 0
        for table, column in _OF_MESSAGES
    }
    taskless = sa.select(sa.func.count()).select_from(replies).where(*_taskless(patterns.mobile))
    counted[replies.name] += connection.scalar(taskless) or 0
    there = sum(
        connection.scalar(sa.select(sa.func.count()).select_from(pushes).where(pushes.c.id.in_(part))) or 0
        for part in _parts(push_ids)
    )
    return {"pushes": there, **counted, "look_ups": len(_look_up_tokens(connection, patterns))}


_OF_MESSAGES = (
    (messages, messages.c.id),
    (receipts, receipts.c.message_id),
    (replies, replies.c.message_id),
    (attempts, attempts.c.message_id),
    (notes, notes.c.message_id),
)


def _look_up_tokens(connection: sa.Connection, patterns: NumberPatterns) -> list[str]:
    """Return the look-ups whose digits contain the number: a look-up finds numbers that adjoin other digits too."""
    rows = connection.execute(sa.select(look_ups.c.token, look_ups.c.text))
    return [row.token for row in rows if patterns.mobile in "".join(filter(str.isdecimal, normalize("NFKC", row.text)))]


def _mentions(connection: sa.Connection, patterns: NumberPatterns, named: Collection[UUID]) -> dict[str, int]:
    """Return the number of other rows that contain the number: pushes, replies, notes and audit entries."""
    of_others = sa.and_(
        messages.c.mobile.is_distinct_from(patterns.mobile), sa.not_(sa.and_(*_taskless(patterns.mobile)))
    )
    end, cipher = patterns.mobile[-4:], cipher_of(connection.dialect)
    written = (
        sa.select(replies.c.content, replies.c.content_sealed)
        .outerjoin(messages, messages.c.id == replies.c.message_id)
        .where(of_others, replies.c.content.contains(end) if cipher is None else may_contain(cipher.grams(end)))
    )
    noted_on_others = sa.select(notes.c.text).where(notes.c.message_id.not_in(_ids_of(patterns.mobile)))
    noted = sa.select(audit.c.detail).where(sa.cast(audit.c.detail, sa.Text).contains(patterns.mobile[-4:]))
    return {
        "pushes": len(named),
        "replies": sum(patterns.named_in(content_of(row)) for row in connection.execute(written)),
        "notes": sum(map(patterns.named_in, connection.scalars(noted_on_others))),
        "audit": sum(patterns.named_in(str(detail)) for detail in connection.scalars(noted)),
    }


# --- Deletion -------------------------------------------------------------------------------------------


def _delete(connection: sa.Connection, patterns: NumberPatterns, push_ids: set[UUID]) -> None:
    key = messages.c.task_id, messages.c.mobile, messages.c.account
    locked = sa.select(*key).where(messages.c.mobile == patterns.mobile).order_by(*key)
    tasks = {(row.account, row.task_id) for row in connection.execute(locked) if row.task_id is not None}
    lock_tasks(connection, tasks, shared=True)
    connection.execute(locked.with_for_update()).all()
    rollup.keep_forgotten(connection, patterns.mobile)
    of_messages = _ids_of(patterns.mobile)
    for column in (
        attempts.c.message_id,
        timers.c.message_id,
        forward_queue.c.message_id,
        deliveries.c.message_id,
        deliveries.c.order_key,
        delivery_history.c.message_id,
    ):
        connection.execute(sa.delete(column.table).where(column.in_(of_messages)))
    delete_messages(connection, of_messages)
    connection.execute(sa.delete(replies).where(*_taskless(patterns.mobile)))
    # A masked number of the same task may now match only one other number.
    match_recorded(connection, tasks)
    tokens = _look_up_tokens(connection, patterns)
    connection.execute(sa.delete(look_ups).where(look_ups.c.token.in_(tokens)))
    for part in _parts(push_ids):
        _delete_pushes(connection, part)


def _delete_pushes(connection: sa.Connection, push_ids: list[UUID]) -> None:
    """Delete journal rows and their pending deliveries."""
    for column in (forward_queue.c.push_id, deliveries.c.push_id, delivery_history.c.push_id, pushes.c.id):
        connection.execute(sa.delete(column.table).where(column.in_(push_ids)))


def _parts(push_ids: Collection[UUID]) -> list[list[UUID]]:
    ids = sorted(push_ids)
    return [ids[begin : begin + _DELETED_AT_ONCE] for begin in range(0, len(ids), _DELETED_AT_ONCE)]
