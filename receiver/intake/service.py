"""Changes of the journal by staff, audited."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from receiver.db import once
from receiver.intake.replay import replay_push

if TYPE_CHECKING:
    from receiver.audit import AuditTrail
    from receiver.core import Outcome
    from receiver.intake.admission import Admission
    from receiver.messages.queries import PushRow


def replay(trail: AuditTrail, admission: Admission, actor: str, found: PushRow) -> Outcome:
    """Parse a push again with the current settings, and return its outcome. Raises DatabaseUnavailable."""
    push = admission.read_again(found.as_push(), seen_at=max(trail.now(), found.received_at))
    return trail.audited(partial(replay_push, push=push), actor, "push.replay", push_id=str(push.id))


def mark_quarantine_seen(trail: AuditTrail, actor: str) -> None:
    """Note that the quarantined pushes were reviewed: the console's banner then counts only newer ones."""
    trail.audited(partial(once.note, name=once.QUARANTINE_SEEN, now=trail.now()), actor, "quarantine.seen")
