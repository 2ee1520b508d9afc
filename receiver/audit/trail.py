"""Audited changes: a change and its entry are one transaction."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Any, TypeVar

from receiver.audit.checkpoints import Checkpoint, Checkpoints
from receiver.audit.log import Link, write_audit

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from receiver.db.availability import CircuitBreaker
    from receiver.db.engine import Connection, Database
    from receiver.db.shared_secrets import SharedSecrets

T = TypeVar("T")


class AuditTrail:
    """Writes the audit log of one node. Safe for many threads.

    Each method may raise DatabaseUnavailable or DatabaseMisconfigured.
    """

    def __init__(
        self,
        database: Database,
        *,
        availability: CircuitBreaker,
        secrets: SharedSecrets,
        checkpoints: Checkpoints,
        now: Callable[[], datetime],
    ) -> None:
        self.now = now
        self._database = database
        self._availability = availability
        self._secrets = secrets
        self._checkpoints = checkpoints

    def audit(self, actor: str, action: str, *, mobile: str | None = None, **detail: Any) -> None:
        """Write an audit entry and commit it. A phone number is stored as a keyed hash."""
        self.audited(lambda _: None, actor, action, mobile=mobile, **detail)

    def audited(
        self,
        work: Callable[[Connection], T],
        actor: str,
        action: str,
        *,
        mobile: str | None = None,
        result_as: str | None = None,
        **detail: Any,
    ) -> T:
        """Run a change and write its audit entry in one transaction. Return the result of the change.

        `result_as`: the name by which the entry has the result.
        """
        entry = {name: value for name, value in detail.items() if value is not None}
        if mobile is not None:
            entry["mobile_hmac"] = self.mobile_hmac(mobile)

        def change_and_audit(connection: Connection) -> tuple[T, Link]:
            result = work(connection)
            if result_as is not None:
                entry[result_as] = result
            return result, write_audit(connection, at=self.now(), actor=actor, action=action, detail=entry)

        with self._availability.tracking():
            result, link = self._database.write(change_and_audit)
        self._checkpoints.add(Checkpoint(position=link.position, at=link.at, hash=link.hash))
        return result

    def mobile_hmac(self, mobile: str) -> str:
        """Return the keyed hash of a number for the audit log; only the database's secret can reproduce it."""
        return hmac.new(self._secrets.get("audit"), mobile.encode(), hashlib.sha256).hexdigest()
