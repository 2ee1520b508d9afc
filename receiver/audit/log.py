"""The audit log: who did what, as a hash chain.

An entry's hash is SHA-256 over the previous hash and the entry's content. Its position is 1, 2, 3 and so on, assigned
under the lock of the one row of `audit_chain`: positions have no gaps and follow the order of commits.

Triggers prevent changes of entries. They are a hurdle; the chain is the proof (`audit.verification`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.core import DatabaseMisconfigured
from receiver.db.engine import insert
from receiver.db.tables import audit, audit_chain, audit_followers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BEGINNING = bytes(32)  # the hash before the first entry
PRUNED = "audit.prune"


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """A position in the chain."""

    position: int
    at: datetime
    hash: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One action and its actor. Numbers are in `detail` as keyed hashes only."""

    id: int
    at: datetime
    actor: str
    action: str
    detail: Mapping[str, Any] | None
    position: int | None  # these two are None where another than this program has written the entry
    hash: bytes | None
    mobile_hmac: str | None


def hash_of(before: bytes, entry: Mapping[str, Any] | Entry, position: int) -> bytes:
    """Return the hash of an entry at that position, after one with the hash `before`."""
    values = entry if not isinstance(entry, Entry) else {name: getattr(entry, name) for name in _HASHED}
    at = values["at"].astimezone(UTC).isoformat(timespec="microseconds")
    said = [position, values["id"], at, values["actor"], values["action"], values["detail"]]
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(before + text.encode()).digest()


_HASHED = ("id", "at", "actor", "action", "detail")


# --- Writing ------------------------------------------------------------------------------------------


def write_audit(connection: sa.Connection, *, at: datetime, actor: str, action: str, detail: Mapping[str, Any]) -> Link:
    """Append an entry to the chain, in the transaction of the action; return its link.

    `detail` holds no number: use a keyed hash. The next writer waits until this transaction ends. Raises
    DatabaseMisconfigured if the chain's end is missing.
    """
    position, before = _lock_end(connection)
    entry: dict[str, Any] = {
        "id": _next_id(connection),
        "at": at,
        "actor": actor,
        "action": action,
        "detail": json.loads(json.dumps(dict(detail), default=str)) or None,
    }
    link = Link(position=position + 1, at=at, hash=hash_of(before, entry, position + 1))
    number = mobile_hmac_of(entry["detail"])
    connection.execute(sa.insert(audit).values(**entry, position=link.position, hash=link.hash, mobile_hmac=number))
    _move_end(connection, link.position, link.hash)
    return link


def _lock_end(connection: sa.Connection) -> tuple[int, bytes]:
    """Take the turn of this chain's writers; return its last position and hash."""
    end = connection.execute(sa.select(audit_chain).with_for_update()).one_or_none()
    if end is None:
        raise DatabaseMisconfigured(
            "the audit chain's end (table audit_chain) is missing; see the runbook, `receiver verify`"
        )
    return end.last_position, bytes(end.last_hash)


def mobile_hmac_of(detail: Mapping[str, Any] | None) -> str | None:
    """Return the keyed hash of the number in an entry; it has a column of its own for searches."""
    return (detail or {}).get("mobile_hmac")


def _next_id(connection: sa.Connection) -> int:
    # Known before the row is made, since it is hashed with it.
    if connection.dialect.name == "postgresql":
        return int(
            connection.execute(sa.select(sa.func.nextval(sa.func.pg_get_serial_sequence("audit", "id")))).scalar_one()
        )
    last = connection.exec_driver_sql("SELECT seq FROM sqlite_sequence WHERE name = 'audit'").scalar()
    return (last or 0) + 1


def _move_end(connection: sa.Connection, position: int, last_hash: bytes) -> None:
    connection.execute(sa.update(audit_chain).values(last_position=position, last_hash=last_hash))


def prune_audit(
    connection: sa.Connection, before: datetime, *, now: datetime | None = None, actor: str = "cli", limit: int = 10_000
) -> int:
    """Delete the oldest entries, at most `limit`: those before that time, up to the first that is newer.

    The chain begins behind them from then on. An entry records that, with the last one's position and hash, so that any
    other change of the beginning is detected. Returns how many were deleted; 0: none is left to delete.
    """
    end_position, _ = _lock_end(connection)
    chain = connection.execute(sa.select(audit_chain)).one()
    first_kept = connection.scalar(
        sa.select(audit.c.position)
        .where(audit.c.position > chain.horizon_position, audit.c.at >= before)
        .order_by(audit.c.position)
        .limit(1)
    )
    last = min((first_kept or end_position + 1) - 1, chain.horizon_position + limit)
    if last <= chain.horizon_position:
        return 0
    last_hash = connection.execute(sa.select(audit.c.hash).where(audit.c.position == last)).scalar_one()
    connection.execute(sa.update(audit_chain).values(horizon_position=last, horizon_hash=last_hash))
    gone = connection.execute(sa.delete(audit).where(audit.c.position <= last)).rowcount
    detail = {"last_position": last, "last_hash": bytes(last_hash).hex(), "entries": gone, "before": before.isoformat()}
    write_audit(connection, at=now or datetime.now(UTC), actor=actor, action=PRUNED, detail=detail)
    return gone


# --- Sending on ---------------------------------------------------------------------------------------

_SYSLOG = "syslog"
_SHIPPING_LOCK = 0x726376725F6175  # one process at a time


def take_shipping_turn(connection: sa.Connection) -> bool:
    """Return whether this connection may ship the audit, until it closes.

    The embedded database has one server process anyway.
    """
    if connection.dialect.name != "postgresql":
        return True
    return bool(connection.scalar(sa.select(sa.func.pg_try_advisory_lock(_SHIPPING_LOCK))))


def find_shipped(connection: sa.Connection) -> int:
    """Return the position up to which the audit was sent on."""
    column = audit_followers.c
    return connection.scalar(sa.select(column.position).where(column.name == _SYSLOG)) or 0


def note_shipped(connection: sa.Connection, position: int) -> None:
    """Record the last shipped position; it never goes back."""
    column = audit_followers.c
    statement = insert(connection.dialect.name, audit_followers).values(name=_SYSLOG, position=position)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[column.name], set_={"position": position}, where=column.position < position
        )
    )


def find_unshipped_since(connection: sa.Connection) -> datetime | None:
    """Return the time of the oldest entry not shipped; None: all were."""
    unshipped = audit.c.position > find_shipped(connection)
    found: datetime | None = connection.scalar(
        sa.select(audit.c.at).where(unshipped).order_by(audit.c.position).limit(1)
    )
    return found


# --- Reading ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditFilter:
    """A filter of entries; None: all."""

    actor: str | None = None
    action: str | None = None
    mobile_hmac: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def list_entries(
    connection: sa.Connection, asked: AuditFilter, *, limit: int, before: int | None = None
) -> list[Entry]:
    """Return the newest entries first; those with an id below `before`."""
    query = sa.select(audit).where(*_conditions(asked))
    if before is not None:
        query = query.where(audit.c.id < before)
    return [_entry(row) for row in connection.execute(query.order_by(audit.c.id.desc()).limit(limit))]


def iter_entries(connection: sa.Connection, asked: AuditFilter, *, chunk_rows: int = 1000) -> Iterator[Entry]:
    """Return every entry, oldest first, at constant memory; of those that are there when it begins."""
    newest = connection.scalar(sa.select(sa.func.max(audit.c.id))) or 0
    after = 0
    while True:
        query = sa.select(audit).where(*_conditions(asked), audit.c.id > after, audit.c.id <= newest)
        entries = [_entry(row) for row in connection.execute(query.order_by(audit.c.id).limit(chunk_rows))]
        yield from entries
        if len(entries) < chunk_rows:
            return
        after = entries[-1].id


def list_links(connection: sa.Connection, after: int, limit: int) -> list[Entry]:
    """Return the links after a position, in order."""
    query = sa.select(audit).where(audit.c.position > after).order_by(audit.c.position).limit(limit)
    return [_entry(row) for row in connection.execute(query)]


def list_audit(connection: sa.Connection, limit: int) -> list[Mapping[str, Any]]:
    """Return the newest entries first, as rows."""
    query = sa.select(*(audit.c[name] for name in _HASHED)).order_by(audit.c.id.desc()).limit(limit)
    return [dict(row) for row in connection.execute(query).mappings()]


def _conditions(asked: AuditFilter) -> list[sa.ColumnElement[bool]]:
    column = audit.c
    conditions = [
        column[name] == value
        for name in ("actor", "action", "mobile_hmac")
        if (value := getattr(asked, name)) is not None
    ]
    if asked.since is not None:
        conditions.append(column.at >= asked.since)
    if asked.until is not None:
        conditions.append(column.at < asked.until)
    return conditions


def _entry(row: Any) -> Entry:
    values = {name: getattr(row, name) for name in _HASHED}
    return Entry(**values, position=row.position, hash=row.hash, mobile_hmac=row.mobile_hmac)


# --- The hurdle ---------------------------------------------------------------------------------------

_REFUSED = "entries of the audit stay as they are"


def create_statements(dialect: str) -> Iterator[str]:
    """Yield the statements that create the triggers.

    They permit no change of an entry except its chaining, and no deletion except behind the chain's beginning.
    """
    if dialect != "postgresql":
        refuse = f"BEGIN SELECT RAISE(ABORT, '{_REFUSED}'); END"
        same = " AND ".join(f"NEW.{name} IS OLD.{name}" for name in _HASHED)
        yield (
            "CREATE TRIGGER audit_keep_update BEFORE UPDATE ON audit"
            f" WHEN NOT (OLD.position IS NULL AND OLD.hash IS NULL AND {same}) {refuse}"
        )
        yield (
            "CREATE TRIGGER audit_keep_delete BEFORE DELETE ON audit WHEN OLD.position IS NULL"  # noqa: S608
            f" OR OLD.position > coalesce((SELECT horizon_position FROM audit_chain), 0) {refuse}"
        )
        yield f"CREATE TRIGGER audit_keep_chain BEFORE DELETE ON audit_chain {refuse}"
        return
    same = " AND ".join(f"NEW.{name} IS NOT DISTINCT FROM OLD.{name}" for name in _HASHED if name != "detail")
    yield f"""
        CREATE OR REPLACE FUNCTION audit_keep() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'UPDATE' AND OLD.position IS NULL AND OLD.hash IS NULL AND {same}
                AND NEW.detail::text IS NOT DISTINCT FROM OLD.detail::text THEN RETURN NEW; END IF;
            IF TG_OP = 'DELETE' AND OLD.position <= (SELECT horizon_position FROM audit_chain) THEN RETURN OLD; END IF;
            RAISE EXCEPTION '{_REFUSED}' USING ERRCODE = 'integrity_constraint_violation';
        END $$
    """  # noqa: S608
    yield f"""
        CREATE OR REPLACE FUNCTION audit_keep_whole() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION '{_REFUSED}' USING ERRCODE = 'integrity_constraint_violation'; END $$
    """
    yield (
        "CREATE TRIGGER audit_keep_entry BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION audit_keep()"
    )
    for table, events in (("audit", "TRUNCATE"), ("audit_chain", "DELETE OR TRUNCATE")):
        yield (
            f"CREATE TRIGGER {table}_keep_whole BEFORE {events} ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION audit_keep_whole()"
        )


def drop_statements(dialect: str) -> Iterator[str]:
    """Return the statements that remove the triggers where they are; functions stay, and are made over."""
    if dialect != "postgresql":
        for name in ("update", "delete", "chain"):
            yield f"DROP TRIGGER IF EXISTS audit_keep_{name}"
        return
    yield "DROP TRIGGER IF EXISTS audit_keep_entry ON audit"
    for table in ("audit", "audit_chain"):
        yield f"DROP TRIGGER IF EXISTS {table}_keep_whole ON {table}"
