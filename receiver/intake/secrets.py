"""The secrets of push URLs: lookup, and use counts that are saved once a minute."""

from __future__ import annotations

import threading
import time
from hmac import compare_digest
from typing import TYPE_CHECKING

from receiver.intake.secret_usage import NewUses

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

_FLUSH_EVERY_SECONDS = 60.0


class PushSecret:
    """One secret and its uses in this process. Thread-safe."""

    __slots__ = ("_counting", "_last_used_at", "_pushes", "_saved", "_secret", "account", "place")

    def __init__(self, account: str, secret: str, place: int) -> None:
        self.account = account
        self.place = place  # among its account's: 0 is the active one, the others retire
        self._secret = secret
        self._counting = threading.Lock()
        self._pushes = self._saved = 0
        self._last_used_at: datetime | None = None

    def count_use(self, at: datetime) -> None:
        """Count a push. Called for every push: it only updates a number and a time."""
        with self._counting:
            self._pushes += 1
            self._last_used_at = at

    def fits(self, given: bytes) -> bool:
        """Return whether the secret equals `given`, in constant time."""
        return compare_digest(self._secret.encode(), given)

    def new_uses(self) -> NewUses:
        """Return the uses that are not saved yet."""
        with self._counting:
            pushes = self._pushes - self._saved
            last = self._last_used_at if pushes else None
        return NewUses(account=self.account, secret=self._secret, pushes=pushes, last_used_at=last)

    def mark_saved(self, uses: NewUses) -> None:
        """Mark these uses as saved, so that none is counted twice."""
        with self._counting:
            self._saved += uses.pushes


class PushSecrets:
    """The configured secrets in their order; the first of each account is the active one."""

    def __init__(self, tokens: Sequence[tuple[str, str]]) -> None:
        places: dict[str, int] = {}
        self._secrets: list[PushSecret] = []
        for account, secret in tokens:
            places[account] = place = places.get(account, -1) + 1
            self._secrets.append(PushSecret(account, secret, place))
        self._known = False  # whether the database has these secrets
        self._flush_from = 0.0  # by time.monotonic()

    def find(self, given: str) -> PushSecret | None:
        """Return the matching secret; None: unknown."""
        text = given.encode(errors="surrogateescape")
        found = None
        for secret in self._secrets:  # compare all of them: constant time
            if secret.fits(text):
                found = secret
        return found

    def flush_uses(self, save: Callable[[Sequence[NewUses]], None], *, at_once: bool = False) -> None:
        """Pass new uses to `save`, at most once a minute. If it raises, the uses are kept for the next call.

        For one thread. A first use after a quiet minute is saved at the next call, so that a moved sender shows soon.
        """
        now = time.monotonic()
        new = [(secret, secret.new_uses()) for secret in self._secrets]
        if (now < self._flush_from and not at_once) or (self._known and not any(uses.pushes for _, uses in new)):
            return
        self._flush_from = now + _FLUSH_EVERY_SECONDS
        save([uses for _, uses in new])
        self._known = True
        for secret, uses in new:
            secret.mark_saved(uses)
