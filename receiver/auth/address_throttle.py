"""Counts failures by source address, in this process's memory, with a bounded size."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from ipaddress import ip_address, ip_network

_IPV6_PREFIX_BITS = 64  # one network: one host there has all its addresses


class Throttle:
    """Finds addresses with too many recent failures. Safe for many threads.

    The count restarts once its span is over. Beyond `addresses_max`, the oldest address is dropped.
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
        """Return how long an address with too many failures must wait; 0: it need not."""
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
