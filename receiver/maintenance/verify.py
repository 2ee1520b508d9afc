"""Compares the journal with its results: receipts, replies, states, masked numbers.

What is not projected yet is left out. Everything is read once, in one snapshot of a live database and in constant
memory. Journal and rows are summed up per bucket, as order-independent sums of digests. Only differing buckets
are read again, to name the differences.

The reading of a push, from its arrival or its last replay, is stored with it; later rules do not change it. Journal
rows from older versions have no stored reading and are parsed again. If the result differs, the receipt or reply that
the push brought decides.

Pruned rows cannot be compared. So the journal counts from the horizon of its kind on. For a row older than that, the
journal may only have later copies, and the row must count at least as many. A horizon in the future is a fault; then
the journal counts from the oldest existing row.
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

from receiver.core import (
    CheckResult,
    DeliveryStatus,
    MessageState,
    Outcome,
    Push,
    Receipt,
    first_id_of,
    fold,
    key_digest,
    mask_mobile,
    match_masked,
)
from receiver.db.encryption import Mobile, cipher_of
from receiver.db.set_aside import read_rows, require_texts
from receiver.db.tables import masked_key_where, masked_of_task_where, messages, projection, pushes, receipts, replies
from receiver.maintenance.horizons import list_ahead, list_supported
from receiver.maintenance.pages import iter_pages
from receiver.maintenance.prune import OUT_OF_ORDER
from receiver.maintenance.retention import RetentionKind, list_horizons
from receiver.messages.queries import PUSH_COLUMNS, as_push_row
from receiver.reporting import rollup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from receiver.db.encryption.ciphers import FieldCipher
    from receiver.db.engine import Database

_BUCKETS = 4096
_CHUNK_ROWS = 5000
_NAMED_MAX = 20
_PLATFORM_CLOCK_APART = timedelta(days=1)  # the platform's and ours

_NO_ID = UUID(int=0)
_UNREADABLE = 1  # stands for the digest of an old push that cannot be parsed today
_STATUSES = frozenset(DeliveryStatus)

# Kind, account, task id (empty: none), number, time, and vendor status or content digest.
Key = tuple[str, str, str, str, str, str]


def verify(
    database: Database,
    read_again: Callable[[Push], Push],
    on_progress: Callable[[int], None] = lambda _: None,
    *,
    now: datetime | None = None,
) -> Iterator[CheckResult]:
    """Yield the checks that journal, receipts, replies and states agree.

    `on_progress` receives the number of rows read since the last call. `read_again` parses a push without a stored
    reading.
    Raises DatabaseUnavailable or DatabaseMisconfigured.
    """
    with database.reading() as connection:
        if database.postgresql:
            connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        now = now or datetime.now(UTC)
        ahead = list_ahead(connection, now)
        yield CheckResult(
            name="retention horizons are in the past",
            ok=not ahead,
            count=len(list_horizons(connection)),
            details=tuple(f"in the future: {each}; see `receiver doctor`" for each in ahead),
        )
        work = _Verification(connection, read_again, on_progress, list_supported(connection, now))
        yield from work.events()
        yield work.states()
        yield work.masked()
        yield work.unread()
        wrong = rollup.differences(connection)
        yield CheckResult(
            name="delivery report adds up", ok=not wrong, count=work.messages_read, details=tuple(wrong[:_NAMED_MAX])
        )


class _Verification:
    def __init__(
        self,
        connection: sa.Connection,
        read_again: Callable[[Push], Push],
        on_progress: Callable[[int], None],
        horizons: Mapping[RetentionKind, datetime],
    ) -> None:
        self._connection = connection
        self._read_again = read_again
        self._on_progress = on_progress
        self.messages_read = 0
        self._horizons = horizons
        # Copies of each row from before the horizon that was seen after it, by digest.
        self._begun_before: dict[int, int] = {}
        self._unread: list[str] = []  # unreadable rows

    def events(self) -> Iterator[CheckResult]:
        """Check that each accepted push has its receipt or reply with the right copies, and no other exists."""
        sums = [0] * _BUCKETS
        journal_rows = 0
        replayed: set[UUID] = set()
        if self._horizons:
            self._begun_before = {_digest(key): copies for key, copies in self._rows_begun_before()}
        later_copies: Counter[int] = Counter()
        for push in self._journal():
            journal_rows += 1
            if push.replayed:
                replayed.add(push.id)
            elif push.digest in self._begun_before:
                later_copies[push.digest] += 1
            else:
                sums[push.digest % _BUCKETS] += push.digest
        yield CheckResult(name="journal was looked through", ok=True, count=journal_rows)
        rows = 0
        for key, copies, push_id in self._rows():
            rows += 1
            digest = _digest(key)
            # A row from a replay has one copy that no push counts.
            sums[digest % _BUCKETS] -= digest * (copies - (push_id in replayed))
        differing = {bucket for bucket, total in enumerate(sums) if total}
        differing |= {digest % _BUCKETS for digest, came in later_copies.items() if came > self._begun_before[digest]}
        details = self._name(differing, replayed) if differing else ()
        yield CheckResult(
            name="receipts and replies follow from the journal", ok=not details, count=rows, details=details
        )

    def states(self) -> CheckResult:
        """Check that every message's state follows from its receipts."""
        wrong: list[str] = []
        rows = before = 0
        columns = (messages.c.id, messages.c.task_id, messages.c.mobile, messages.c.status, messages.c.reported_at)
        for chunk in self._chunks(sa.select(*columns, messages.c.seen), messages.c.id):
            found: dict[int, list[Receipt]] = defaultdict(list)
            query = sa.select(receipts.c.message_id, receipts.c.vendor_status, receipts.c.reported_at)
            between = query.where(receipts.c.message_id > before, receipts.c.message_id <= chunk[-1].id)
            before = chunk[-1].id
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
        behind = sa.select(receipts.c.message_id).where(receipts.c.message_id > before).distinct().limit(_NAMED_MAX)
        wrong += [
            f"message {message_id} does not exist and has receipts" for message_id in self._connection.scalars(behind)
        ]
        self.messages_read = rows
        return CheckResult(
            name="states follow from receipts", ok=not wrong, count=rows, details=tuple(wrong[:_NAMED_MAX])
        )

    def _follows(self, row: Any, state: MessageState) -> bool:
        """Return whether a message's state follows from its receipts, or may follow from pruned ones."""
        if (state.status, state.reported_at, state.seen) == (row.status, row.reported_at, row.seen):
            return True
        horizon = self._horizons.get(RetentionKind.RECEIPTS)
        if horizon is None or row.reported_at is None:
            return False
        if row.status not in _STATUSES:
            return False
        known = MessageState(status=DeliveryStatus(row.status), reported_at=row.reported_at, seen=row.seen)
        still_decides = (state.reported_at, state.status) == (row.reported_at, row.status)
        return known.merge(state) == known and (still_decides or row.reported_at < horizon + _PLATFORM_CLOCK_APART)

    def unread(self) -> CheckResult:
        """Check that every row of the other checks was readable."""
        found = sorted(set(self._unread))
        return CheckResult(
            name="every row can be read", ok=not found, count=self.messages_read, details=tuple(found[:_NAMED_MAX])
        )

    def masked(self) -> CheckResult:
        """Check that every masked number belongs to the only recorded message that matches it, or to none."""
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
        return CheckResult(
            name="masked numbers belong where they fit", ok=not wrong, count=rows, details=tuple(wrong[:_NAMED_MAX])
        )

    def _name(self, buckets: set[int], replayed: set[UUID]) -> tuple[str, ...]:
        """Return the differences of these buckets, key by key."""
        rows: dict[int, _Row] = {}
        for row in self._kept_rows(buckets, replayed):
            rows[row.digest] = row
        brought = {row.push_id: row.digest for row in rows.values()}
        came: Counter[int] = Counter()
        first_push: dict[int, UUID] = {}
        read_as: dict[int, int] = {}  # by row digest: the different digest of its first push, parsed today
        for push in self._journal():
            row_digest = brought.get(push.id)
            if not push.kept and row_digest is not None and row_digest != push.digest:
                read_as[row_digest] = push.digest
            if not push.replayed and push.digest % _BUCKETS in buckets:
                came[push.digest] += 1
                first_push.setdefault(push.digest, push.id)
        # Rows of pushes without a stored digest are grouped by what those pushes parse to today.
        groups: dict[int, list[_Row]] = defaultdict(list)
        for digest, row in rows.items():
            groups[read_as.get(digest, digest)].append(row)
        named = []
        for digest in came.keys() | groups.keys():
            group = groups.get(digest, [])
            copies = sum(row.copies for row in group)
            if came[digest] == copies or (came[digest] < copies and any(row.at_most for row in group)):
                continue
            if group:
                kind, _, task_id, mobile, at, _ = group[0].key
                what = f"{kind} of task {task_id}, {mask_mobile(mobile)}, {at}"
                named.append(f"{what}: pushed {came[digest]} times, copies {copies}")
            else:
                named.append(f"push {first_push[digest]}: pushed {came[digest]} times, no row")
        return tuple(sorted(named)[:_NAMED_MAX])

    def _kept_rows(self, buckets: set[int], replayed: set[UUID]) -> Iterator[_Row]:
        """Yield these buckets' rows, with the copies that the journal must have."""
        for key, copies, push_id in self._rows():
            if (digest := _digest(key)) % _BUCKETS in buckets:
                early = push_id < self._first_id(key[0], OUT_OF_ORDER)
                yield _Row(
                    key=key, digest=digest, push_id=push_id, copies=copies - (push_id in replayed), at_most=early
                )
        for key, copies in self._rows_begun_before():
            if (digest := _digest(key)) % _BUCKETS in buckets:
                yield _Row(key=key, digest=digest, push_id=_NO_ID, copies=copies, at_most=True)

    def _journal(self) -> Iterator[_Journaled]:
        query = sa.select(*PUSH_COLUMNS, pushes.c.replayed_at, pushes.c.digest)
        projected = pushes.c.sequence <= sa.select(projection.c.position).scalar_subquery()
        query = query.where(pushes.c.outcome == Outcome.ACCEPTED, sa.or_(pushes.c.sequence.is_(None), projected))
        if (horizon := self._horizons.get(RetentionKind.PUSHES)) is not None:
            query = query.where(pushes.c.id >= first_id_of(horizon))
        for chunk in self._chunks(query, pushes.c.id, self._journaled):
            for push in chunk:
                if (horizon := self._horizon(push.kind)) is not None and push.received_at < horizon:
                    continue  # its row may be pruned
                yield push

    def _journaled(self, row: Any) -> _Journaled:
        push = as_push_row(row)
        kept: bytes | None = row.digest
        digest = kept if kept is not None else self._read_again(push.as_push()).reading_digest
        return _Journaled(
            id=push.id,
            kind=str(push.kind),
            received_at=push.received_at,
            replayed=row.replayed_at is not None,
            kept=kept is not None,
            digest=_UNREADABLE if digest is None else int.from_bytes(digest),
        )

    def _horizon(self, kind: str) -> datetime | None:
        """Return from when on both the journal and the rows of a kind are complete."""
        own = RetentionKind.RECEIPTS if kind == "receipt" else RetentionKind.REPLIES
        return max(filter(None, (self._horizons.get(RetentionKind.PUSHES), self._horizons.get(own))), default=None)

    def _first_id(self, kind: str, later: timedelta = timedelta(0)) -> UUID:
        """Return the lowest id of a push of this kind that counts."""
        horizon = self._horizon(kind)
        return _NO_ID if horizon is None else first_id_of(horizon + later)

    def _rows(self) -> Iterator[tuple[Key, int, UUID]]:
        """Yield the rows from after the horizon, with their copies and first push."""
        yield from self._events(begun_before=False)

    def _rows_begun_before(self) -> Iterator[tuple[Key, int]]:
        """Yield the rows from before the horizon that were seen after it, with their possible later copies."""
        for key, copies, _ in self._events(begun_before=True):
            yield key, copies - 1

    def _events(self, *, begun_before: bool) -> Iterator[tuple[Key, int, UUID]]:
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
                (sa.null() if table is receipts else replies.c.content_sealed).label("content_sealed"),
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
            for chunk in self._chunks(query, table.c.id, partial(_as_event, kind, cipher_of(self._connection.dialect))):
                for row in chunk:
                    yield row.key, row.copies, row.push_id

    def _chunks(
        self, query: sa.Select[Any], by: sa.Column[Any], convert: Callable[[Any], Any] = lambda row: row
    ) -> Iterator[list[Any]]:
        """Yield a query's readable rows in id order, in chunks, so that no statement is long."""
        ask = partial(read_rows, self._connection, table=by.table, convert=convert, tell=self._unread.append)
        for rows in iter_pages(ask, query, by, _CHUNK_ROWS):
            self._on_progress(len(rows))
            yield rows


@dataclass(frozen=True, kw_only=True, slots=True)
class _Event:
    """A receipt or reply to compare."""

    id: int
    key: Key
    copies: int
    push_id: UUID


def _as_event(kind: str, cipher: FieldCipher | None, row: Any) -> _Event:
    said = row.said if isinstance(row.said, str) else _content_digest(row, cipher).hex()
    parts = (kind, row.account or "", row.task_id or "", row.mobile or "", row.at.isoformat(), said)
    require_texts(*parts)
    return _Event(id=row.id, key=parts, copies=int(row.copies), push_id=row.push_id)


def _content_digest(row: Any, cipher: FieldCipher | None) -> bytes:
    """Return the SHA-256 of a reply's content; where that is sealed and another, the one that stands for it."""
    kept: bytes = row.said
    if cipher is None or row.content_sealed is None:
        return kept
    digest = hashlib.sha256(row.content_sealed).digest()
    return digest if cipher.digest(digest) == kept else kept


@dataclass(frozen=True, kw_only=True, slots=True)
class _Journaled:
    """A journal row and its reading."""

    id: UUID
    kind: str
    received_at: datetime
    replayed: bool
    kept: bool  # False: parsed again, the row has no stored digest
    digest: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """A receipt or reply."""

    key: Key
    digest: int
    push_id: UUID
    copies: int
    at_most: bool  # some of its pushes may be pruned


def _digest(key: Key) -> int:
    return int.from_bytes(key_digest(key))
