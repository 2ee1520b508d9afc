"""A push of our own, to see that pushes get through: it goes all the way, and is in no report."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from receiver.core import new_id

if TYPE_CHECKING:
    from datetime import datetime

# How its body begins: it says nothing of the platform, least of all while that is silent. A number with places left
# out makes no message of its own, so such a push is in no report either.
SELF_TEST_BODY = b"mobile=100%2A%2A%2A%2A0000&taskid=self-test-"


@dataclass(frozen=True, kw_only=True, slots=True)
class SelfTestAnswer:
    """What a push was answered with."""

    status: int
    location: str | None  # where to, of a redirect
    push_id: str | None  # these two are a receiver's own headers
    outcome: str | None

    @property
    def kept(self) -> bool:
        """Return whether it came from a receiver that has made the push durable."""
        return self.push_id is not None and self.outcome in ("accepted", "spooled")


def push_self_test(connection: http.client.HTTPConnection, target: str, *, at: datetime) -> SelfTestAnswer:
    """Push a receipt of that moment, in the platform's time zone, and close the connection. Raises OSError."""
    rest = urlencode({"status": "1", "receivetime": f"{at:%Y-%m-%d %H:%M:%S}"})
    body = SELF_TEST_BODY + f"{new_id()}&{rest}".encode()
    form = {"Content-Type": "application/x-www-form-urlencoded;charset=utf-8"}
    try:
        connection.request("POST", target, body, form)
        answer = connection.getresponse()
        return SelfTestAnswer(
            status=answer.status,
            location=answer.headers.get("Location"),
            push_id=answer.headers.get("X-Push-Id"),
            outcome=answer.headers.get("X-Push-Outcome"),
        )
    except http.client.HTTPException as error:
        raise OSError("what answered speaks no HTTP") from error
    finally:
        connection.close()
