"""Counts what fails by the address it comes from, in this process' memory, in bounds."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from ipaddress import ip_address, ip_network

_IPV6_PREFIX_BITS = 64  # one network: whoever has one address there has them all


class Throttle:
    """Tells which addresses have failed too often of late. Safe for many threads.

    An address begins anew once its span is over. Beyond `addresses_max`, the one that began first is forgotten.
    """

    def __init__(self, *, failures_max: int, seconds: float, addresses_max: int = 10_000) -> None:
        self._failures_max = failures_max
        self._seconds = seconds
        self._addresses_max = addresses_max
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()  # how many, and when the span ends
        self._counting = threading.Lock()

    def note(self, address: str) -> None:
        """Count one failure."""
        now, place = time.monotonic(), _place_of(address)
        with self._counting:
            count, ends_at = self._failures.get(place, (0, 0.0))
            if ends_at <= now:
                self._failures.pop(place, None)
                count, ends_at = 0, now + self._seconds
            self._failures[place] = (count + 1, ends_at)
            if len(self._failures) > self._addresses_max:
                self._failures.popitem(last=False)

    def wait_seconds(self, address: str) -> int:
        """Return how long an address that has failed too often has still to wait; 0: it has not."""
        now = time.monotonic()
        with self._counting:
            count, ends_at = self._failures.get(_place_of(address), (0, 0.0))
        return max(1, round(ends_at - now)) if count >= self._failures_max and ends_at > now else 0


def _place_of(address: str) -> str:
    try:
        parsed = ip_address(address)
    except ValueError:
        return ""  # a Unix socket's peers are one
    if parsed.version == 6 and parsed.ipv4_mapped is None:
        return str(ip_network((parsed.packed, _IPV6_PREFIX_BITS), strict=False))
    return address
