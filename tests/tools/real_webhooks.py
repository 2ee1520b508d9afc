"""Every kind of webhook that a server sends verifies with the libraries of Standard Webhooks and Svix."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.hooks import Hook, hook
from tests.tools.environments import PROGRAMS, node_command, node_place, program, run
from tests.tools.rows import MOBILE, Push

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.tools.house import House

_EVENTS = {
    "receipt.received",
    "reply.received",
    "message.status_changed",
    "message.no_receipt",
    "message.not_delivered",
    "receiver.test",
}
_SIGNED = ("webhook-id", "webhook-timestamp", "webhook-signature")
_CONTENT = "好的 😀\u2028“é”"


class Sent:
    """What a server has sent to an endpoint, and its secret."""

    def __init__(self, house: House, taken: Hook, *, pii: bool) -> None:
        made = {
            "name": "shop-pii" if pii else "shop",
            "url": taken.url(),
            "format": "webhooks",
            "pii": pii,
            "not_delivered_after_seconds": 1,
        }
        self.secret = house.send("POST", "webhooks", made)["secret"]
        now = datetime.now(UTC)
        ago = {"late": timedelta(seconds=5), "lost": timedelta(minutes=59, seconds=55)}
        for name, age in ago.items():
            sent_at = (now - age).isoformat()
            house.send("POST", "messages", {"task_id": f"hook-{name}-{pii}", "mobile": MOBILE, "sent_at": sent_at})
        for push in (Push(f"hook-{pii}", status="1"), Push(f"hook-{pii}", content=_CONTENT)):
            house.process.push(push.body)
        house.send("POST", f"webhooks/{made['name']}/test", {})
        taken.wait(lambda: {json.loads(sent.body)["type"] for sent in taken.taken} >= _EVENTS)
        self.posts: list[dict[str, Any]] = [
            {
                "body": sent.body.decode(),
                "headers": {name.lower(): value for name, value in sent.headers.items() if name.lower() in _SIGNED},
            }
            for sent in taken.taken
        ]


@pytest.fixture(scope="module", params=[False, True], ids=["masked", "in full"])
def sent(request: pytest.FixtureRequest, house: House) -> Iterator[Sent]:
    with hook() as taken:
        yield Sent(house, taken, pii=request.param)


@pytest.mark.parametrize("library", ["standardwebhooks", "svix"])
@pytest.mark.parametrize("language", ["python", "node"])
def test_library_verifies_every_kind_and_refuses_what_is_changed_or_old(
    sent: Sent, tmp_path: Path, library: str, language: str
) -> None:
    command = [program("load", "python"), str(PROGRAMS / "verify.py")]
    if language == "node":
        (node_place(tmp_path) / "verify.mjs").write_text((PROGRAMS / "verify.mjs").read_text())
        command = [*node_command(), "verify.mjs"]
    given = {"library": library, "secret": sent.secret, "posts": sent.posts}
    found: list[dict[str, Any]] = json.loads(run(command, tmp_path, {}, stdin=json.dumps(given)))
    assert [one["payload"] for one in found] == [json.loads(post["body"]) for post in sent.posts]
    assert all(one["changed"] and one["old"] for one in found)
