"""Everything of one number goes, and nothing of anybody else: from the journal, messages, receipts, replies, look-ups.

The journal is bytes as the platform wrote them, so the database only narrows it down to rows in which the digits stand
in a row, plain or percent-encoded, of full width or not, with or without a country code; what each of them says is read
as ever. A row goes if it is a push of that number, if it is one of a masked number that belongs to a message of it, or
if nobody could read it and it names the number. A push of another number that names this one (a reply: "call me at …")
is that other person's: it stays, and is counted as a mention.

One transaction, as of one moment, takes all of it, and leaves what it counts in the reports and a tombstone with the
number's keyed hash. What comes for that number afterwards is new, and kept.
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
from receiver.db.set_aside import read_rows
from receiver.db.tables import (
    TASKLESS_WHERE,
    attempts,
    audit,
    deliveries,
    forward_queue,
    look_ups,
    masked_key_where,
    messages,
    pushes,
    receipts,
    replies,
    timers,
    tombstones,
)
from receiver.maintenance.prune import delete_messages
from receiver.messages import match_recorded
from receiver.messages.projection import lock_tasks
from receiver.messages.queries import content_of
from receiver.messages.search import may_contain
from receiver.reporting import rollup

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from receiver.db.engine import Database

_PAGE_ROWS = 20_000  # of the journal, looked through by one statement
_DELETED_AT_ONCE = 1000

MaskedKey = tuple[str, str, str]  # account, task id, number with its `*`


@dataclass(frozen=True, kw_only=True, slots=True)
class NumberTraces:
    """Where a number was found."""

    push_ids: set[UUID] = field(default_factory=set)
    rows: Mapping[str, int] = field(default_factory=dict)  # what goes, by table
    mentions: Mapping[str, int] = field(default_factory=dict)  # what names it and stays, by table


class NumberPatterns:
    """The number, as it is recognised in bytes, texts and pushes."""

    def __init__(self, mobile: str, masked: Collection[MaskedKey], read_again: Callable[[Push], Push]) -> None:
        self.mobile = mobile
        self._masked = frozenset(masked)
        self._read_again = read_again
        numbers = sorted({mobile, *(number for _, _, number in masked)})
        # PostgreSQL's is of bytes that `encode` has written out: those beyond ASCII as a backslash and three digits.
        self.pattern = _pattern(numbers, byte=r"\\{:03o}", any_byte=r"\\[23][0-7]{2}")
        self._in_bytes = re.compile(_pattern(numbers, byte=r"\x{:02x}", any_byte=r"[\x80-\xff]").encode())
        digits = r"\W{0,8}".join(mobile)
        before = r"(?<![0-9])(?:00?)?(?:86)?\W{0,8}0?\W{0,8}"
        self._in_text = re.compile(rf"{before}{digits}(?![0-9])")

    def may_be_in(self, *parts: bytes) -> bool:
        """Return whether the digits stand in these bytes, whatever is around them."""
        return any(self._in_bytes.search(part) for part in parts)

    def named_in(self, text: str) -> bool:
        """Return whether a text names the number, be it in digits of full width."""
        return self._in_text.search(normalize("NFKC", text)) is not None

    def is_of(self, push: Push) -> bool:
        """Return whether a push is the number's, as the module says."""
        reading = self._read_again(push).reading
        if isinstance(reading, Unreadable):
            return self.named_in_push(push)
        return reading.mobile == self.mobile or (push.account, reading.task_id, reading.mobile) in self._masked

    def named_in_push(self, push: Push) -> bool:
        """Return whether the number stands anywhere in what was pushed."""
        raw = [unquote_to_bytes(part) for part in (push.query, push.body)]
        texts = (part.decode(encoding, "replace") for part in raw for encoding in _ENCODINGS)
        return any(self.named_in(_JSON_ESCAPE.sub(_unescaped, text)) for text in texts)


_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)

# What may stand between the digits of a number, see `parse_mobile`: in ASCII, percent-encoded or escaped as in JSON;
# any other character as its bytes, of which GB18030 has every second within ASCII.
_SEPARATORS = (
    "(?:[ \t\n\v\f\r+.(){}[\\]-]|BYTE[0-9@-~]?|%[89A-Fa-f][0-9A-Fa-f][0-9@-~]?"
    "|%0[9A-Da-d]|%2[089BDEbde]|%[57][BDbd]|\\\\+(?:u[0-9A-Fa-f]{4}|[tnrvf])){0,16}"
)

_ENCODINGS = ("utf-8", "gb18030")  # of digits of full width; in each of them, others are as in ASCII
_TO_FULL_WIDTH = 0xFEE0


_JSON_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|[tnrvf])")


def _unescaped(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16)) if escape[1] else " "


def _pattern(numbers: Iterable[str], *, byte: str, any_byte: str) -> str:
    """Return a regular expression of the ways in which these may be written; `byte`: how it has one beyond ASCII."""
    separators = _SEPARATORS.replace("BYTE", any_byte)
    return "|".join(separators.join(_written(character, byte) for character in number) for number in numbers)


def _written(character: str, byte: str) -> str:
    """Return the ways in which a place of a number may be written, `*` for any that was left out."""
    if character == "*":
        return r"(?:[*xX]|%2[Aa]|%[57]8)"
    forms = [character, f"%3{character}", rf"\\+u003{character}", rf"\\+u[fF][fF]1{character}"]
    for encoding in _ENCODINGS:
        wide = chr(ord(character) + _TO_FULL_WIDTH).encode(encoding)
        forms += ["".join(map(byte.format, wide)), "".join(map(_percent_encoded, wide))]
    return f"(?:{'|'.join(forms)})"


def _percent_encoded(byte: int) -> str:
    return "%" + "".join(f"[{digit}{digit.lower()}]" for digit in f"{byte:02X}")


def find(
    database: Database,
    mobile: str,
    read_again: Callable[[Push], Push],
    tell: Callable[[int], None] = lambda _: None,
) -> NumberTraces:
    """Say what `forget` would take. Reads the whole journal; `tell` hears how many rows of it since the last time.

    Raises StoreUnavailable or StoreUnfit.
    """
    with database.reading() as connection:
        wanted = NumberPatterns(mobile, _masked_of(connection, mobile), read_again)
    mine: set[UUID] = set()
    named: set[UUID] = set()
    first: UUID | None = UUID(int=0)
    while first is not None:
        with database.reading() as connection:  # each page anew, so that no log is held back meanwhile
            first, mine_there, named_there = _search_page(connection, wanted, first)
        mine |= mine_there
        named |= named_there
        tell(_PAGE_ROWS)
    with database.reading() as connection:
        _take_time(connection)
        return NumberTraces(
            push_ids=mine, rows=_rows(connection, wanted, mine), mentions=_mentions(connection, wanted, named)
        )


def forget(
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
    """Take what was found, and what has come since then; give the rows by table. All of it, or nothing.

    `since`: when the search began. Raises StoreUnavailable, StoreUnfit or StoreRejected.
    """

    def work(connection: sa.Connection) -> dict[str, int]:
        if connection.dialect.name == "postgresql":
            # Journal and messages as of one moment: a push that comes meanwhile is in both, or in neither.
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            _take_time(connection)
        wanted = NumberPatterns(mobile, _masked_of(connection, mobile), read_again)
        mine = found.push_ids | _search_since(connection, wanted, since) | _brought(connection, mobile)
        rows = _rows(connection, wanted, mine)
        if any(rows.values()):
            _delete(connection, wanted, mine)
            values = {"mobile_hmac": mobile_hmac, "forgotten_at": now, "actor": actor, "reason": reason, "counts": rows}
            connection.execute(sa.insert(tombstones).values(values))
        return rows

    return database.write(work)


# --- Where it is ----------------------------------------------------------------------------------------------


def _take_time(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")


def _ids_of(mobile: str) -> sa.Select[tuple[int]]:
    return sa.select(messages.c.id).where(messages.c.mobile == mobile)


def _taskless(mobile: str) -> tuple[sa.ColumnElement[bool], ...]:
    """Say which replies are the number's own, and no message's."""
    return (TASKLESS_WHERE, replies.c.masked_mobile == mobile)


def _masked_of(connection: sa.Connection, mobile: str) -> set[MaskedKey]:
    """Return the masked numbers that belong to messages of this one."""
    found: set[MaskedKey] = set()
    for table in (receipts, replies):
        query = sa.select(table.c.account, table.c.task_id, table.c.masked_mobile)
        query = query.where(table.c.message_id.in_(_ids_of(mobile)), masked_key_where(table))
        found |= {(row.account, row.task_id, row.masked_mobile) for row in connection.execute(query)}
    return found


def _brought(connection: sa.Connection, mobile: str) -> set[UUID]:
    """Return the pushes that first brought the receipts and replies of its messages, and its other replies."""
    found = set(connection.scalars(sa.select(replies.c.push_id).where(*_taskless(mobile))))
    for table in (receipts, replies):
        found |= set(connection.scalars(sa.select(table.c.push_id).where(table.c.message_id.in_(_ids_of(mobile)))))
    return found


def _search_page(
    connection: sa.Connection, wanted: NumberPatterns, first: UUID
) -> tuple[UUID | None, set[UUID], set[UUID]]:
    """Look through a page of the journal from one id on.

    Give the id of the next one (None: this was the last), the pushes that are the number's, and those that name it.
    """
    _take_time(connection)
    following = sa.select(pushes.c.id).where(pushes.c.id >= first).order_by(pushes.c.id).offset(_PAGE_ROWS).limit(1)
    end: UUID | None = connection.scalar(following)
    within = [pushes.c.id >= first, *([] if end is None else [pushes.c.id < end])]
    mine: set[UUID] = set()
    named: set[UUID] = set()
    # Of its columns no more than it is known by: one that is damaged elsewhere is found all the same.
    columns = (pushes.c.id, pushes.c.account, pushes.c.endpoint, pushes.c.query, pushes.c.body)
    query = sa.select(*columns).where(*within, *_holding(connection, wanted))
    unread: list[str] = []
    rows: list[Any] = read_rows(connection, query, pushes, tell=unread.append)
    for row in rows:
        if cipher_of(connection.dialect) is not None and not wanted.may_be_in(row.body, row.query):
            continue
        push = _as_push(row)
        if wanted.is_of(push):
            mine.add(push.id)
        elif wanted.named_in_push(push):
            named.add(push.id)
    if unread:
        raise DatabaseMisconfigured(
            f"these cannot be read, and may be the number's: {', '.join(unread)}; restore or delete them"
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


def _search_since(connection: sa.Connection, wanted: NumberPatterns, since: datetime) -> set[UUID]:
    """Return the number's pushes that have come since then."""
    found: set[UUID] = set()
    first: UUID | None = first_id_of(since)
    while first is not None:
        first, mine, _ = _search_page(connection, wanted, first)
        found |= mine
    return found


def _holding(connection: sa.Connection, wanted: NumberPatterns) -> tuple[sa.ColumnElement[bool], ...]:
    """Say of rows of the journal whether the digits stand in them: more rows than are meant, and never fewer.

    Of rows that are sealed the database cannot say it.
    """
    if cipher_of(connection.dialect) is not None:
        return ()
    if connection.dialect.name == "postgresql":
        texts = (sa.func.encode(column, "escape") for column in (pushes.c.body, pushes.c.query))
        return (sa.or_(*(text.op("~", is_comparison=True)(wanted.pattern) for text in texts)),)
    driver: Any = connection.connection.driver_connection
    driver.create_function("may_hold", 2, wanted.may_be_in)
    return (sa.func.may_hold(pushes.c.body, pushes.c.query) == 1,)


def _rows(connection: sa.Connection, wanted: NumberPatterns, push_ids: Collection[UUID]) -> dict[str, int]:
    """Count what goes, by table."""
    of_messages = _ids_of(wanted.mobile)
    counted = {
        table.name: connection.scalar(sa.select(sa.func.count()).select_from(table).where(column.in_(of_messages))) or 0
        for table, column in _OF_MESSAGES
    }
    taskless = sa.select(sa.func.count()).select_from(replies).where(*_taskless(wanted.mobile))
    counted[replies.name] += connection.scalar(taskless) or 0
    there = sum(
        connection.scalar(sa.select(sa.func.count()).select_from(pushes).where(pushes.c.id.in_(part))) or 0
        for part in _parts(push_ids)
    )
    return {"pushes": there, **counted, "look_ups": len(_look_up_tokens(connection, wanted))}


_OF_MESSAGES = (
    (messages, messages.c.id),
    (receipts, receipts.c.message_id),
    (replies, replies.c.message_id),
    (attempts, attempts.c.message_id),
)


def _look_up_tokens(connection: sa.Connection, wanted: NumberPatterns) -> list[str]:
    rows = connection.execute(sa.select(look_ups.c.token, look_ups.c.text))
    return [row.token for row in rows if wanted.named_in(row.text)]


def _mentions(connection: sa.Connection, wanted: NumberPatterns, named: Collection[UUID]) -> dict[str, int]:
    """Count what names the number and is not its own: what others wrote, and reasons in the audit."""
    of_others = sa.and_(messages.c.mobile.is_distinct_from(wanted.mobile), sa.not_(sa.and_(*_taskless(wanted.mobile))))
    end, sealer = wanted.mobile[-4:], cipher_of(connection.dialect)
    written = (
        sa.select(replies.c.content, replies.c.content_sealed)
        .outerjoin(messages, messages.c.id == replies.c.message_id)
        .where(of_others, replies.c.content.contains(end) if sealer is None else may_contain(sealer.grams(end)))
    )
    noted = sa.select(audit.c.detail).where(sa.cast(audit.c.detail, sa.Text).contains(wanted.mobile[-4:]))
    return {
        "pushes": len(named),
        "replies": sum(wanted.named_in(content_of(row)) for row in connection.execute(written)),
        "audit": sum(wanted.named_in(str(detail)) for detail in connection.scalars(noted)),
    }


# --- Taking it away -------------------------------------------------------------------------------------------


def _delete(connection: sa.Connection, wanted: NumberPatterns, push_ids: set[UUID]) -> None:
    key = messages.c.task_id, messages.c.mobile, messages.c.account
    locked = sa.select(*key).where(messages.c.mobile == wanted.mobile).order_by(*key)
    tasks = {(row.account, row.task_id) for row in connection.execute(locked) if row.task_id is not None}
    lock_tasks(connection, tasks, shared=True)
    connection.execute(locked.with_for_update()).all()
    rollup.keep_forgotten(connection, wanted.mobile)
    of_messages = _ids_of(wanted.mobile)
    for column in (
        attempts.c.message_id,
        timers.c.message_id,
        forward_queue.c.message_id,
        deliveries.c.message_id,
        deliveries.c.order_key,
    ):
        connection.execute(sa.delete(column.table).where(column.in_(of_messages)))
    delete_messages(connection, of_messages)
    connection.execute(sa.delete(replies).where(*_taskless(wanted.mobile)))
    # Another number of the same task may be the only one now that fits a masked one.
    match_recorded(connection, tasks)
    tokens = _look_up_tokens(connection, wanted)
    connection.execute(sa.delete(look_ups).where(look_ups.c.token.in_(tokens)))
    for part in _parts(push_ids):
        _delete_pushes(connection, part)


def _delete_pushes(connection: sa.Connection, push_ids: list[UUID]) -> None:
    """Delete rows of the journal, and what waits to be told of them."""
    for column in (forward_queue.c.push_id, deliveries.c.push_id, pushes.c.id):
        connection.execute(sa.delete(column.table).where(column.in_(push_ids)))


def _parts(push_ids: Collection[UUID]) -> list[list[UUID]]:
    ids = sorted(push_ids)
    return [ids[begin : begin + _DELETED_AT_ONCE] for begin in range(0, len(ids), _DELETED_AT_ONCE)]
