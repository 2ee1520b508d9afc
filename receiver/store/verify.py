"""Holds the journal against what was read from it: receipts, replies, states, masked numbers.

Reads everything once, in one snapshot of a live database and at constant memory: what the journal says and what the
rows say are added up, per bucket, as sums of digests that come out the same in any order. Only where a bucket differs
is it read again, to name what differs.

What is pruned proves nothing any more. So the journal counts from the horizon of its kind on, and of a row that it has
only later copies of, no more is asked than that there are at least so many. A horizon in the future is a fault, and
excuses nothing: then it counts from the oldest row on that is there.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import sqlalchemy as sa

from receiver.domain import (
    DeliveryStatus,
    MessageState,
    Outcome,
    Receipt,
    Unreadable,
    first_id_of,
    fold,
    mask_mobile,
    match_masked,
)
from receiver.store import rollup
from receiver.store.horizons import list_ahead, list_supported
from receiver.store.prune import Kind, list_horizons
from receiver.store.read import PUSH_COLUMNS, as_push_row
from receiver.store.sealed import Mobile, sealer_of
from receiver.store.set_aside import read_rows, require_texts
from receiver.store.tables import masked_key_where, masked_of_task_where, messages, pushes, receipts, replies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from receiver.domain import Push
    from receiver.store.database import Database

_BUCKETS = 4096
_DIGEST_BYTES = 16
_CHUNK_ROWS = 5000
_NAMED_MAX = 20
# A push that waited in a spool for up to so long may have been saved after, and pruned before, a later copy of it.
_OUT_OF_ORDER = timedelta(days=1)
_CLOCKS_APART = timedelta(days=1)  # the platform's and ours

_NO_ID = UUID(int=0)
_STATUSES = frozenset(DeliveryStatus)

# Kind, account, task id (empty: none), number, time, and what the vendor's status or the content's digest says.
Key = tuple[str, str, str, str, str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was proved, or not."""

    name: str
    ok: bool
    count: int  # rows that were looked at
    details: tuple[str, ...] = ()  # what is wrong, numbers masked; at most the first twenty


def verify(
    database: Database,
    read_again: Callable[[Push], Push],
    tell: Callable[[int], None] = lambda _: None,
    *,
    now: datetime | None = None,
) -> Iterator[Finding]:
    """Prove that journal, receipts, replies and states agree. `tell` hears how many rows were read since the last time.

    `read_again` reads a push with the present settings: one that they read differently from when it came is named.
    Raises StoreUnavailable or StoreUnfit.
    """
    with database.reading() as connection:
        if database.postgresql:
            connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        now = now or datetime.now(UTC)
        ahead = list_ahead(connection, now)
        yield Finding(
            name="what was pruned lies in the past",
            ok=not ahead,
            count=len(list_horizons(connection)),
            details=tuple(f"in the future: {each}; see `receiver doctor`" for each in ahead),
        )
        work = _Verification(connection, read_again, tell, list_supported(connection, now))
        yield from work.sightings()
        yield work.states()
        yield work.masked()
        yield work.unread()
        wrong = rollup.differences(connection)
        yield Finding(
            name="delivery report adds up", ok=not wrong, count=work.messages_read, details=tuple(wrong[:_NAMED_MAX])
        )


class _Verification:
    def __init__(
        self,
        connection: sa.Connection,
        read_again: Callable[[Push], Push],
        tell: Callable[[int], None],
        horizons: Mapping[Kind, datetime],
    ) -> None:
        self._connection = connection
        self._read_again = read_again
        self._tell = tell
        self.messages_read = 0
        self._horizons = horizons
        # Of rows that began before the horizon: the digest of each that was seen after it, and its copies.
        self._begun_before: dict[int, int] = {}
        self._unread: list[str] = []  # rows that no reader can read

    def sightings(self) -> Iterator[Finding]:
        """Every accepted push has its receipt or reply, counted as often as it came; and there are no others."""
        sums = [0] * _BUCKETS
        journal_rows = 0
        replayed: set[UUID] = set()
        misread: list[str] = []
        if self._horizons:
            self._begun_before = {_digest(key): copies for key, copies in self._rows_begun_before()}
        later_copies: Counter[int] = Counter()
        for push_id, key, was_replayed in self._journal(misread):
            journal_rows += 1
            if was_replayed:
                replayed.add(push_id)
            elif key is not None:
                digest = _digest(key)
                if digest in self._begun_before:
                    later_copies[digest] += 1
                else:
                    sums[digest % _BUCKETS] += digest
        yield Finding(
            name="journal can be read as it was",
            ok=not misread,
            count=journal_rows,
            details=tuple(misread[:_NAMED_MAX]),
        )
        rows = 0
        for key, copies, push_id in self._rows():
            rows += 1
            digest = _digest(key)
            # A row that a replay made began with one copy that no push has counted.
            sums[digest % _BUCKETS] -= digest * (copies - (push_id in replayed))
        differing = {bucket for bucket, total in enumerate(sums) if total}
        differing |= {digest % _BUCKETS for digest, came in later_copies.items() if came > self._begun_before[digest]}
        details = self._name(differing, replayed) if differing else ()
        yield Finding(name="receipts and replies follow from the journal", ok=not details, count=rows, details=details)

    def states(self) -> Finding:
        """Every message's state is that of its receipts."""
        wrong: list[str] = []
        rows = 0
        columns = (messages.c.id, messages.c.task_id, messages.c.mobile, messages.c.status, messages.c.reported_at)
        for chunk in self._chunks(sa.select(*columns, messages.c.seen), messages.c.id):
            found: dict[int, list[Receipt]] = defaultdict(list)
            query = sa.select(receipts.c.message_id, receipts.c.vendor_status, receipts.c.reported_at)
            between = query.where(receipts.c.message_id.between(chunk[0].id, chunk[-1].id))
            of_chunk: list[Any] = read_rows(self._connection, between, receipts, tell=self._unread.append)
            for row in of_chunk:
                found[row.message_id].append(
                    Receipt(mobile="", task_id="", vendor_status=row.vendor_status, reported_at=row.reported_at)
                )
            for row in chunk:
                rows += 1
                if not self._follows(row, fold(found.pop(row.id, []))):
                    wrong.append(f"message {row.id} (task {row.task_id}, {mask_mobile(row.mobile)}): state differs")
            wrong += [f"message {message_id} does not exist and has receipts" for message_id in found]
        self.messages_read = rows
        return Finding(name="states follow from receipts", ok=not wrong, count=rows, details=tuple(wrong[:_NAMED_MAX]))

    def _follows(self, row: Any, state: MessageState) -> bool:
        """Whether a message's state is that of its receipts, or what is left of them after pruning may have made it."""
        if (state.status, state.reported_at, state.seen) == (row.status, row.reported_at, row.seen):
            return True
        horizon = self._horizons.get(Kind.RECEIPTS)
        if horizon is None or row.reported_at is None:
            return False
        if row.status not in _STATUSES:
            return False
        known = MessageState(status=DeliveryStatus(row.status), reported_at=row.reported_at, seen=row.seen)
        still_decides = (state.reported_at, state.status) == (row.reported_at, row.status)
        return known.merge(state) == known and (still_decides or row.reported_at < horizon + _CLOCKS_APART)

    def unread(self) -> Finding:
        """Every row that the others looked at could be read."""
        found = sorted(set(self._unread))
        return Finding(
            name="every row can be read", ok=not found, count=self.messages_read, details=tuple(found[:_NAMED_MAX])
        )

    def masked(self) -> Finding:
        """Every masked number belongs to the one recorded message that fits it, or to none."""
        wrong: list[str] = []
        rows = 0
        for table in (receipts, replies):
            columns = (table.c.id, table.c.account, table.c.task_id, table.c.masked_mobile, table.c.message_id)
            for chunk in self._chunks(sa.select(*columns).where(masked_of_task_where(table)), table.c.id):
                for row in chunk:
                    rows += 1
                    candidates = sa.select(messages.c.id, messages.c.mobile).where(
                        messages.c.task_id == row.task_id,
                        messages.c.account == row.account,
                        messages.c.recorded_at.isnot(None),
                    )
                    fitting = match_masked(
                        row.masked_mobile, [(found.id, found.mobile) for found in self._connection.execute(candidates)]
                    )
                    if fitting != row.message_id:
                        wrong.append(
                            f"{table.name} {row.id} (task {row.task_id}): belongs to {fitting or 'no message'}"
                        )
        return Finding(
            name="masked numbers belong where they fit", ok=not wrong, count=rows, details=tuple(wrong[:_NAMED_MAX])
        )

    def _name(self, buckets: set[int], replayed: set[UUID]) -> tuple[str, ...]:
        """Read the differing buckets again, key by key."""
        counts: Counter[Key] = Counter()
        for _, key, was_replayed in self._journal([]):
            if key is not None and not was_replayed and _digest(key) % _BUCKETS in buckets:
                counts[key] += 1
        copies_of, at_most = self._copies(buckets, replayed)
        named = []
        for key in sorted(counts.keys() | copies_of.keys()):
            came, copies_found = counts[key], copies_of.get(key)
            if key in at_most and came <= copies_of[key]:
                continue
            if came != (copies_found or 0):
                kind, _, task_id, mobile, at, _ = key
                said = "no row" if copies_found is None else f"copies {copies_found}"
                named.append(f"{kind} of task {task_id}, {mask_mobile(mobile)}, {at}: pushed {came} times, {said}")
        return tuple(named[:_NAMED_MAX])

    def _copies(self, buckets: set[int], replayed: set[UUID]) -> tuple[dict[Key, int], set[Key]]:
        """Give the copies of these buckets' rows, and those rows of which some may be pruned."""
        copies_of: dict[Key, int] = {}
        at_most: set[Key] = set()
        for key, copies, push_id in self._rows():
            if _digest(key) % _BUCKETS in buckets:
                copies_of[key] = copies - (push_id in replayed)
                if push_id < self._first_id(key[0], _OUT_OF_ORDER):
                    at_most.add(key)
        for key, copies in self._rows_begun_before():
            if _digest(key) % _BUCKETS in buckets:
                copies_of[key] = copies
                at_most.add(key)
        return copies_of, at_most

    def _journal(self, misread: list[str]) -> Iterator[tuple[UUID, Key | None, bool]]:
        sealer = sealer_of(self._connection.dialect)
        query = sa.select(*PUSH_COLUMNS, pushes.c.replayed_at).where(pushes.c.outcome == Outcome.ACCEPTED)
        if (horizon := self._horizons.get(Kind.PUSHES)) is not None:
            query = query.where(pushes.c.id >= first_id_of(horizon))
        for chunk in self._chunks(query, pushes.c.id, self._read_push):
            for row in chunk:
                push = row.push
                reading = push.reading
                if isinstance(reading, Unreadable):
                    misread.append(f"push {row.id} was accepted, and would be quarantined now: {reading.error}")
                    yield row.id, None, row.replayed_at is not None
                    continue
                if isinstance(reading, Receipt):
                    at, said = reading.reported_at, reading.vendor_status
                else:
                    digest = reading.content_sha256
                    at, said = reading.replied_at, (digest if sealer is None else sealer.digest(digest)).hex()
                kind = str(push.kind)
                if (horizon := self._horizon(kind)) is not None and row.received_at < horizon:
                    continue  # its row may be pruned
                key = (kind, push.account, reading.task_id or "", reading.mobile, at.isoformat(), said)
                yield row.id, key, row.replayed_at is not None

    def _read_push(self, row: Any) -> _Journaled:
        push = self._read_again(as_push_row(row).as_push())
        return _Journaled(id=row.id, received_at=row.received_at, replayed_at=row.replayed_at, push=push)

    def _horizon(self, kind: str) -> datetime | None:
        """From when on the journal must agree with the rows of a kind: both are whole."""
        own = Kind.RECEIPTS if kind == "receipt" else Kind.REPLIES
        return max(filter(None, (self._horizons.get(Kind.PUSHES), self._horizons.get(own))), default=None)

    def _first_id(self, kind: str, later: timedelta = timedelta(0)) -> UUID:
        """The lowest id that a push of that kind may have to count."""
        horizon = self._horizon(kind)
        return _NO_ID if horizon is None else first_id_of(horizon + later)

    def _rows(self) -> Iterator[tuple[Key, int, UUID]]:
        """Give the rows that began after the horizon, with their copies and the push that brought them."""
        yield from self._sighted(begun_before=False)

    def _rows_begun_before(self) -> Iterator[tuple[Key, int]]:
        """Give the rows that began before it and were seen after it, and how many later copies they may have: few."""
        for key, copies, _ in self._sighted(begun_before=True):
            yield key, copies - 1

    def _sighted(self, *, begun_before: bool) -> Iterator[tuple[Key, int, UUID]]:
        for table, kind, at, said in (
            (receipts, "receipt", receipts.c.reported_at, receipts.c.vendor_status),
            (replies, "reply", replies.c.replied_at, replies.c.content_sha256),
        ):
            masked = masked_key_where(table)
            horizon = self._horizon(kind)
            if begun_before and horizon is None:
                continue
            query = sa.select(
                table.c.id,
                table.c.push_id,
                table.c.copies,
                at.label("at"),
                said.label("said"),
                sa.case((masked, table.c.account), else_=messages.c.account).label("account"),
                sa.case((masked, table.c.task_id), else_=messages.c.task_id).label("task_id"),
                sa.type_coerce(sa.case((masked, table.c.masked_mobile), else_=messages.c.mobile), Mobile).label(
                    "mobile"
                ),
            ).select_from(table.outerjoin(messages, messages.c.id == table.c.message_id))
            if begun_before:
                query = query.where(table.c.push_id < self._first_id(kind), table.c.last_seen_at >= horizon)
            elif horizon is not None:
                query = query.where(table.c.push_id >= self._first_id(kind))
            for chunk in self._chunks(query, table.c.id, partial(_as_sighted, kind)):
                for row in chunk:
                    yield row.key, row.copies, row.push_id

    def _chunks(
        self, query: sa.Select[Any], by: sa.Column[Any], convert: Callable[[Any], Any] = lambda row: row
    ) -> Iterator[list[Any]]:
        """Read a query in the order of its id, a chunk at a time: no statement is long, no result large."""
        after = None
        while True:
            page = query if after is None else query.where(by > after)
            rows = read_rows(
                self._connection, page.order_by(by).limit(_CHUNK_ROWS), by.table, convert, tell=self._unread.append
            )
            if rows:
                self._tell(len(rows))
                yield rows
            if len(rows) < _CHUNK_ROWS:
                return
            after = rows[-1].id


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sighted:
    """A receipt or reply, as it is compared."""

    id: int
    key: Key
    copies: int
    push_id: UUID


def _as_sighted(kind: str, row: Any) -> _Sighted:
    said = row.said if isinstance(row.said, str) else row.said.hex()
    parts = (kind, row.account or "", row.task_id or "", row.mobile or "", row.at.isoformat(), said)
    require_texts(*parts)
    return _Sighted(id=row.id, key=parts, copies=int(row.copies), push_id=row.push_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Journaled:
    """A row of the journal, as it is read now."""

    id: UUID
    received_at: datetime
    replayed_at: datetime | None
    push: Push


def _digest(key: Key) -> int:
    # Secrecy is not asked of it, evenness is.
    return int.from_bytes(hashlib.blake2b("\0".join(key).encode(), digest_size=_DIGEST_BYTES).digest())
