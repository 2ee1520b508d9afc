"""The self-test: a push of our own that takes the whole path and appears in no report."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from receiver.core import new_id
from receiver.net.egress import encode_headers

if TYPE_CHECKING:
    from datetime import datetime

    from receiver.net.egress_client import EgressClient

# The start of its body, by which it does not count as a push of the platform. A masked number makes no message, so it
# is in no report either.
SELF_TEST_BODY = b"mobile=100%2A%2A%2A%2A0000&taskid=self-test-"


@dataclass(frozen=True, kw_only=True, slots=True)
class SelfTestAnswer:
    """The answer to a self-test."""

    status: int
    location: str | None  # of a redirect
    push_id: str | None  # this and `outcome` are headers that only a receiver sends
    outcome: str | None

    @property
    def kept(self) -> bool:
        """Return whether a receiver has made the push durable."""
        return self.push_id is not None and self.outcome in ("accepted", "spooled")


def push_self_test(client: EgressClient, target: str, *, at: datetime, seconds: float) -> SelfTestAnswer:
    """Push a receipt with that time, given in the platform's zone, and close the client. Raises EgressError."""
    rest = urlencode({"status": "1", "receivetime": f"{at:%Y-%m-%d %H:%M:%S}"})
    body = SELF_TEST_BODY + f"{new_id()}&{rest}".encode()
    form = encode_headers({"Content-Type": "application/x-www-form-urlencoded;charset=utf-8"})
    with closing(client):
        answer = client.send("POST", target.encode(), form, body, seconds=seconds)
    return SelfTestAnswer(
        status=answer.status,
        location=answer.header("Location"),
        push_id=answer.header("X-Push-Id"),
        outcome=answer.header("X-Push-Outcome"),
    )
