"""The secrets of push URLs: which one was given, and how often each is used, counted here and kept now and then."""

from __future__ import annotations

import threading
import time
from hmac import compare_digest
from typing import TYPE_CHECKING

from receiver.intake.secret_usage import NewUses

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

_KEEP_EVERY_SECONDS = 60.0


class PushSecret:
    """One secret, and what was pushed by it in this process. Safe for many threads."""

    __slots__ = ("_counting", "_kept", "_last_used_at", "_pushes", "_secret", "account", "place")

    def __init__(self, account: str, secret: str, place: int) -> None:
        self.account = account
        self.place = place  # among its account's: 0 is the active one, the others retire
        self._secret = secret
        self._counting = threading.Lock()
        self._pushes = self._kept = 0
        self._last_used_at: datetime | None = None

    def note(self, at: datetime) -> None:
        """Count a push. On the way of each: a number and a time, and nothing that waits."""
        with self._counting:
            self._pushes += 1
            self._last_used_at = at

    def fits(self, given: bytes) -> bool:
        """Return whether this is it, in a time that does not tell how much of it fits."""
        return compare_digest(self._secret.encode(), given)

    def new_uses(self) -> NewUses:
        """Return what has not been kept."""
        with self._counting:
            pushes = self._pushes - self._kept
            last = self._last_used_at if pushes else None
        return NewUses(account=self.account, secret=self._secret, pushes=pushes, last_used_at=last)

    def mark_kept(self, uses: NewUses) -> None:
        """Count no use twice."""
        with self._counting:
            self._kept += uses.pushes


class PushSecrets:
    """The secrets of the settings, in their order: the first of each account is the active one."""

    def __init__(self, tokens: Sequence[tuple[str, str]]) -> None:
        places: dict[str, int] = {}
        self._secrets: list[PushSecret] = []
        for account, secret in tokens:
            places[account] = place = places.get(account, -1) + 1
            self._secrets.append(PushSecret(account, secret, place))
        self._known = False  # to the database
        self._keep_from = 0.0  # by time.monotonic()

    def find(self, given: str) -> PushSecret | None:
        """Return the secret that this is; None: nobody's."""
        text = given.encode(errors="surrogateescape")
        found = None
        for secret in self._secrets:  # all of them, so that the time tells nothing
            if secret.fits(text):
                found = secret
        return found

    def keep_uses(self, save: Callable[[Sequence[NewUses]], None], *, at_once: bool = False) -> None:
        """Hand new uses to `save`, once a minute at most; what it raises is passed on, and they are not lost.

        Called by one thread. A first use after a quiet minute is kept at the next call: whoever has just moved a sender
        over sees it.
        """
        now = time.monotonic()
        new = [(secret, secret.new_uses()) for secret in self._secrets]
        if (now < self._keep_from and not at_once) or (self._known and not any(uses.pushes for _, uses in new)):
            return
        self._keep_from = now + _KEEP_EVERY_SECONDS
        save([uses for _, uses in new])
        self._known = True
        for secret, uses in new:
            secret.mark_kept(uses)
