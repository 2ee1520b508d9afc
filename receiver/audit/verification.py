"""Proof that the audit is unchanged: its chain is consistent, ends where it should, and matches the checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from receiver.audit.log import BEGINNING, PRUNED, Entry, hash_of, list_links, mobile_hmac_of
from receiver.core import CheckResult
from receiver.db.tables import audit, audit_chain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from receiver.audit.checkpoints import Checkpoint
    from receiver.db.engine import Database

_CHUNK_ROWS = 5000


def verify_audit(
    database: Database,
    checkpoints: Sequence[Checkpoint] = (),
    tell: Callable[[int], None] = lambda _: None,
    *,
    newest: int | None = None,
) -> CheckResult:
    """Verify the chain from its beginning after pruning to its end, in one snapshot; name the first wrong entry.

    `newest`: only so many, from the end. `checkpoints`: those outside the database, read before this call.
    Raises DatabaseUnavailable or DatabaseMisconfigured.
    """
    with database.reading() as connection:
        if database.postgresql:
            connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        followed, wrong = _follow(connection, checkpoints, tell, newest)
    return CheckResult(
        name="audit is as it was written", ok=wrong is None, count=followed, details=() if wrong is None else (wrong,)
    )


def _follow(
    connection: sa.Connection, checkpoints: Sequence[Checkpoint], tell: Callable[[int], None], newest: int | None
) -> tuple[int, str | None]:
    """Return how many entries were verified, and the first fault."""
    chain = connection.execute(sa.select(audit_chain)).one_or_none()
    if chain is None:
        return 0, "the chain's end (table audit_chain) is missing"
    if wrong := _misplaced_beginning(connection, chain):
        return 0, wrong
    begins, before = chain.horizon_position, bytes(chain.horizon_hash)
    if newest is not None and chain.last_position - newest > begins:
        begins = chain.last_position - newest
        found = connection.scalar(sa.select(audit.c.hash).where(audit.c.position == begins))
        if found is None:
            return 0, f"entry {begins} is missing"
        before = bytes(found)
    position = begins
    noted = {checkpoint.position: checkpoint for checkpoint in checkpoints if checkpoint.position > begins}
    while entries := list_links(connection, position, _CHUNK_ROWS):
        tell(len(entries))
        for entry in entries:
            if wrong := _wrong_with(entry, position + 1, before, noted.get(position + 1)):
                return position - begins, wrong
            position, before = position + 1, entry.hash or b""
    wrong = _wrong_end(chain, position, before, max(noted, default=0))
    return position - begins, wrong or _outside(connection)


def _wrong_with(entry: Entry, position: int, before: bytes, noted: Checkpoint | None) -> str | None:
    """Return what is wrong with the entry that should be at a position; None: nothing."""
    if entry.position != position:
        return f"entry {position} is missing"
    if hash_of(before, entry, position) != entry.hash or entry.mobile_hmac != mobile_hmac_of(entry.detail):
        return f"entry {position} ({entry.at:%Y-%m-%d %H:%M:%S}Z, {entry.actor}) was changed"
    if noted is not None and noted.hash != entry.hash:
        return (
            f"entry {position} is not the one that this node noted at {noted.at:%Y-%m-%d %H:%M:%S}Z:"
            " the chain was rewritten from there or from before"
        )
    return None


def _wrong_end(chain: Any, position: int, last_hash: bytes, last_noted: int) -> str | None:
    """Return what is wrong with the chain's end; None: nothing."""
    if (ends := max(chain.last_position, last_noted)) > position:
        by = "this node noted" if last_noted == ends else "its end says"
        return f"cut off behind entry {position}: {by} that there are {ends}"
    if (chain.last_position, bytes(chain.last_hash)) != (position, last_hash):
        return f"it goes on to entry {position}, and its end says {chain.last_position}"
    return None


def _outside(connection: sa.Connection) -> str | None:
    """Return how many entries are in no place of the chain; None: every one is. No program of ours writes such."""
    count = connection.scalar(sa.select(sa.func.count()).select_from(audit).where(audit.c.position.is_(None)))
    return f"{count} entries without a position are not of the chain" if count else None


def _misplaced_beginning(connection: sa.Connection, chain: Any) -> str | None:
    """Return how the chain's beginning differs from what pruning recorded; None: it does not."""
    if chain.horizon_position == 0:
        return None if bytes(chain.horizon_hash) == BEGINNING else "its beginning is not the first entry's"
    pruned = connection.execute(
        sa.select(audit.c.detail)
        .where(audit.c.action == PRUNED, audit.c.position.isnot(None))
        .order_by(audit.c.position.desc())
        .limit(1)
    ).scalar()
    said = (pruned or {}).get("last_position"), (pruned or {}).get("last_hash")
    if said == (chain.horizon_position, bytes(chain.horizon_hash).hex()):
        return None
    return f"it begins behind entry {chain.horizon_position}, and no entry records that pruning deleted those before"
