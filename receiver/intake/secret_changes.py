"""Changes of the push secrets: a new one before the old ones, which stay valid; and an old one taken out."""

from __future__ import annotations

import secrets
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from receiver.config import tokens_text
from receiver.core import ReceiverError, iso_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from receiver.audit import AuditTrail
    from receiver.config import Tokens, TokensFile
    from receiver.intake.secret_usage import SecretUse

_NEW_BYTES = 24
SHOWN_CHARS = 4  # by which a secret is named; the rest stays unguessable
IN_USE_FOR = timedelta(hours=24)  # after its last push


@dataclass(frozen=True, kw_only=True, slots=True)
class SecretChange:
    """The push secrets before and after a change."""

    before: Tokens
    after: Tokens
    account: str
    secret: str  # that was made or taken out
    name: str  # of the secret, without the secret: its state

    @property
    def text(self) -> str:
        """Return the new value of the setting."""
        return tokens_text(self.after)

    def save(self, trail: AuditTrail, actor: str, action: str, file: TokensFile | None) -> None:
        """Write the audit entry and, with it, the file; None: the caller puts the new value into place.

        Raises ReceiverError if the file cannot be written, or has changed meanwhile.
        """
        with file.replacing(self.before, self.after) if file else nullcontext():
            trail.audit(actor, action, account=self.account, name=self.name)


def plan_rotation(before: Tokens, account: str | None) -> SecretChange:
    """Return the change that makes a new secret the active one of an account. Raises ReceiverError.

    `account` may be None where there is one account.
    """
    accounts = list(dict.fromkeys(name for name, _ in before))
    if account is None and len(accounts) > 1:
        raise ReceiverError(f"--account: choose one of {', '.join(accounts)}")
    chosen = account or (accounts[0] if accounts else "default")
    if accounts and chosen not in accounts:
        raise ReceiverError(f"--account: no push secret of {chosen}; there are {', '.join(accounts)}")
    secret = secrets.token_hex(_NEW_BYTES)
    first = next((at for at, (name, _) in enumerate(before) if name == chosen), 0)
    after = (*before[:first], (chosen, secret), *before[first:])
    return SecretChange(before=before, after=after, account=chosen, secret=secret, name="active")


def plan_removal(
    before: Tokens, beginning: str | None, uses: Sequence[SecretUse], *, now: datetime, force: bool
) -> SecretChange:
    """Return the change that takes out the secret with a beginning, or None: the one that can go. Raises ReceiverError.

    `uses`: those of `before`, in its order. A secret that is still in use, or its account's last, needs `force`.
    """
    at = _find(before, beginning, uses, now)
    account, secret = before[at]
    use, after = uses[at], (*before[:at], *before[at + 1 :])
    if not after:
        raise ReceiverError("it is the only secret; first make another: receiver push-secret rotate")
    if not force and account not in {name for name, _ in after}:
        raise ReceiverError(f"it is the last secret of {account}, whose pushes would get 404; --force removes it")
    if not force and use.last_used_at is not None and now - use.last_used_at < IN_USE_FOR:
        raise ReceiverError(
            f"a push came by it at {iso_seconds(use.last_used_at)}: paste the new URL into the platform's console "
            "first; --force removes it, and pushes by it get 404"
        )
    return SecretChange(before=before, after=after, account=account, secret=secret, name=use.name)


def _find(before: Tokens, beginning: str | None, uses: Sequence[SecretUse], now: datetime) -> int:
    if beginning is not None and len(beginning) < SHOWN_CHARS:
        raise ReceiverError(f"give at least {SHOWN_CHARS} characters of the secret; see `receiver push-secret list`")
    if beginning is None:
        found, rule = [at for at, use in enumerate(uses) if use.can_go(now)], "can be removed yet"
    else:
        found, rule = [at for at, (_, secret) in enumerate(before) if secret.startswith(beginning)], "begins with that"
    if len(found) == 1:
        return found[0]
    raise ReceiverError(f"{'more than one' if found else 'no'} secret {rule}; see `receiver push-secret list`")


def shown(secret: str) -> str:
    """Return the beginning of a secret, by which people tell it from others."""
    return f"{secret[:SHOWN_CHARS]}…"
