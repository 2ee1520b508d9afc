"""Refusals in the audit log. A flood of refusals leaves a few entries, each with a count."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from flask import Flask, current_app

from receiver.core import DatabaseMisconfigured, DatabaseUnavailable
from receiver.observability import get_logger
from receiver.web import runtime

if TYPE_CHECKING:
    from collections.abc import Callable

_log = get_logger(__name__)

WINDOW_SECONDS = 600.0
_KEYS_MAX = 200  # entries in that time; all further ones are counted together
_EXTENSION = "receiver.denials"
_OTHERS = ("others",)
_IPV6_NETWORK_BITS = 64  # the usual size of one site


@dataclass(slots=True)
class _Window:
    began: float
    noted: int = 0
    left_out: int = 0


class Denials:
    """Counts recent refusals by kind, in this process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changing = threading.Lock()
        self._windows: OrderedDict[tuple[str, ...], _Window] = OrderedDict()  # oldest first

    def count(self, *key: str, burst: int = 1) -> tuple[int, bool]:
        """Return how many refusals a new entry stands for, and whether all are of this key.

        0: write no entry; the refusal is counted for the next one. `burst`: entries allowed per window of ten minutes.
        """
        now = self._clock()
        with self._changing:
            self._drop_ended(now, but=key)
            before = self._windows.get(key)
            if before is None and len(self._windows) >= _KEYS_MAX:
                key = _OTHERS
                before = self._windows.get(key)
            if before is None or now - before.began >= WINDOW_SECONDS:
                self._windows.pop(key, None)
                self._windows[key] = _Window(now, noted=1)
                return 1 + (before.left_out if before else 0), key != _OTHERS
            if before.noted < burst:
                before.noted += 1
                return 1, key != _OTHERS
            before.left_out += 1
            return 0, key != _OTHERS

    def _drop_ended(self, now: float, *, but: tuple[str, ...]) -> None:
        """Remove windows that ended; refusals without an entry go into the next entry about many."""
        ended = [key for key, window in self._windows.items() if now - window.began >= WINDOW_SECONDS]
        for key in ended:
            if key not in (but, _OTHERS) and (left_out := self._windows.pop(key).left_out):
                others = self._windows.setdefault(_OTHERS, _Window(now - WINDOW_SECONDS))
                others.left_out += left_out


def register(app: Flask) -> None:
    """Set up the counters of an application."""
    app.extensions[_EXTENSION] = Denials()


def record(actor: str, action: str, *, address: str, route: str, reason: str, burst: int = 1, **detail: Any) -> None:
    """Audit a refusal, unless the same one was audited within ten minutes. If that fails, write a log line."""
    denials: Denials = current_app.extensions[_EXTENSION]
    place = _place(address)
    count, alone = denials.count(actor, place, action, route, reason, burst=burst)
    if not count:
        return
    if not alone:
        actor, action, detail = "many", "denied", {}
        address = route = reason = "many"
    try:
        runtime().audit(
            actor, action, address=address, route=route, reason=reason, count=count if count > 1 else None, **detail
        )
    except (DatabaseUnavailable, DatabaseMisconfigured):
        _log.warning("a refusal could not be audited", actor=actor, route=route, reason=reason)


def is_first(*key: str) -> bool:
    """Return whether a repeated action is to be audited: it was not within ten minutes."""
    denials: Denials = current_app.extensions[_EXTENSION]
    return denials.count(*key)[0] > 0


def _place(address: str) -> str:
    """Return an IPv4 address, or the /64 network of an IPv6 address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(int(parsed) >> (128 - _IPV6_NETWORK_BITS))
