"""Notes of the staff on a message, and whether its case is handled. Rows are only added: the newest mark decides."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import sqlalchemy as sa

from receiver.core import NotFound
from receiver.db.tables import messages, notes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from datetime import datetime

NOTE_MAX_CHARS = 1000
_SHOWN_MAX = 200  # entries shown of one case
SCANNED_MAX = 2000  # entries read for one page of cases, so that a search has a bounded cost


class NoteKind(StrEnum):
    """What an entry says."""

    NOTE = "note"
    HANDLED = "handled"
    REOPENED = "reopened"


@dataclass(frozen=True, kw_only=True, slots=True)
class Note:
    """One entry of a case."""

    id: int
    message_id: int
    kind: NoteKind
    user_name: str
    text: str  # empty for a mark
    created_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseMark:
    """What a list shows of a case."""

    handled: bool
    notes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedCase:
    """One case in the list of cases, by an entry of it."""

    entry: Note
    handled: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class CasePage:
    """One page of cases."""

    cases: Sequence[ListedCase]
    before: int | None  # from where the next page goes on; None: that was the end


def add_note(
    connection: sa.Connection, message_id: int, kind: NoteKind, *, user_name: str, text: str = "", now: datetime
) -> int:
    """Add an entry to the case of a message; return its id. Raises NotFound if the message is gone."""
    if connection.dialect.name == "postgresql":
        # Before the message is looked for: who erases a number holds this lock, and must find every note of it.
        connection.exec_driver_sql("LOCK TABLE notes IN ROW EXCLUSIVE MODE")
    of_message = sa.select(messages.c.account).where(messages.c.id == message_id).with_for_update(read=True)
    account = connection.scalar(of_message)
    if account is None:
        raise NotFound("the message is gone")
    values = {
        "message_id": message_id,
        "account": account,
        "kind": kind.value,
        "user_name": user_name,
        "text": text,
        "created_at": now,
    }
    added: int = connection.execute(sa.insert(notes).values(values).returning(notes.c.id)).scalar_one()
    return added


def list_notes(connection: sa.Connection, message_ids: Collection[int]) -> list[Note]:
    """Return the newest entries of these messages, oldest first."""
    query = sa.select(notes).where(notes.c.message_id.in_(message_ids)).order_by(notes.c.id.desc()).limit(_SHOWN_MAX)
    return [_as_note(row) for row in connection.execute(query)][::-1]


def is_handled(entries: Sequence[Note]) -> bool:
    """Return whether a case is handled, by its entries, oldest first."""
    return next((note.kind for note in reversed(entries) if note.kind is not NoteKind.NOTE), None) is NoteKind.HANDLED


def find_marks(connection: sa.Connection, message_ids: Collection[int]) -> Mapping[int, CaseMark]:
    """Return the marks of those of these messages that have entries, in one query."""
    column = notes.c

    def newest(kind: NoteKind) -> sa.ColumnElement[int]:
        return sa.func.coalesce(sa.func.max(sa.case((column.kind == kind.value, column.id))), 0)

    count = sa.func.sum(sa.case((column.kind == NoteKind.NOTE.value, 1), else_=0))
    handled = newest(NoteKind.HANDLED) > newest(NoteKind.REOPENED)
    query = sa.select(column.message_id, count.label("notes"), handled.label("handled"))
    rows = connection.execute(query.where(column.message_id.in_(message_ids)).group_by(column.message_id))
    return {row.message_id: CaseMark(handled=bool(row.handled), notes=int(row.notes)) for row in rows}


def list_cases(
    connection: sa.Connection,
    *,
    limit: int,
    before: int | None = None,
    text: str | None = None,
    handled: bool | None = None,
    accounts: tuple[str, ...] | None = None,
) -> CasePage:
    """Return at most `limit` cases, those with the newest entry first; with `text`, each note that contains it.

    Reads at most SCANNED_MAX entries: a page may have fewer cases, or none, and still go on.
    """
    column = notes.c
    within = sa.select(notes).order_by(column.id.desc()).limit(SCANNED_MAX)
    if before is not None:
        within = within.where(column.id < before)
    if accounts is not None:
        within = within.where(column.account.in_(accounts))
    scanned, found = 0, []
    rows = _with_marks(connection, within)
    for entry, listed in rows:
        scanned += 1
        fits = listed.entry.kind is NoteKind.NOTE and text.lower() in listed.entry.text.lower() if text else entry
        if fits and handled in (None, listed.handled):
            found.append(listed)
        if len(found) > limit:
            return CasePage(cases=found[:limit], before=found[limit - 1].entry.id)
        last = listed.entry.id
    return CasePage(cases=found, before=last if scanned == SCANNED_MAX else None)


def _with_marks(connection: sa.Connection, within: sa.Select[tuple[object, ...]]) -> Iterator[tuple[bool, ListedCase]]:
    """Yield each entry: whether it is the newest of its case, and the entry with its case's mark."""
    entry, other = within.subquery(), notes.alias()
    of_case = other.c.message_id == entry.c.message_id
    newest = sa.select(sa.func.max(other.c.id)).where(of_case).scalar_subquery()
    marks = sa.select(other.c.kind).where(of_case, other.c.kind != NoteKind.NOTE.value)
    mark = marks.order_by(other.c.id.desc()).limit(1).scalar_subquery()
    query = sa.select(entry, (newest == entry.c.id).label("is_newest"), mark.label("mark")).order_by(entry.c.id.desc())
    for row in connection.execute(query):
        yield bool(row.is_newest), ListedCase(entry=_as_note(row), handled=row.mark == NoteKind.HANDLED.value)


def move_notes(connection: sa.Connection, *, old: int, new: int) -> None:
    """Give the entries of a message to the one that it becomes a part of."""
    connection.execute(sa.update(notes).where(notes.c.message_id == old).values(message_id=new))


def _as_note(row: sa.Row[tuple[object, ...]]) -> Note:
    return Note(
        id=row.id,
        message_id=row.message_id,
        kind=NoteKind(row.kind),
        user_name=row.user_name,
        text=row.text,
        created_at=row.created_at,
    )
