"""A server with awkward rows, and what its API says of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from tests.harness.waiting import await_true
from tests.tools.rows import AWKWARD_SENDS, MORE_PLAIN_SENDS, PLAIN_SENDS, RECEIPTS, REPLIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness.server import ServeProcess

Row = dict[str, Any]
LISTS = ("messages", "receipts", "replies")
SETTINGS = {
    "RECEIVER_WEBHOOKS_ALLOW": "127.0.0.0/8,::1/128",
    # So that no message becomes late between two readings that are held against each other.
    "RECEIVER_LATE_AFTER_SECONDS": "1",
    "RECEIVER_NO_RECEIPT_AFTER_HOURS": "1",
}
_SCOPES = ("read", "export", "reports", "messages:write", "pushes", "webhooks")
_ITEMS_AT_ONCE = 1000


@dataclass
class House:
    """A running server with its rows."""

    process: ServeProcess
    reporting_url: str = ""  # of a role that may read the views; none where the database is embedded

    def __post_init__(self) -> None:
        self.url = f"http://127.0.0.1:{self.process.port}"
        self._headers = self.process.make_key(*_SCOPES, "pii")
        self._masked = self.process.make_key(*_SCOPES)
        self.key = self._headers["Authorization"].removeprefix("Bearer ")

    @property
    def environment(self) -> dict[str, str]:
        """The variables that the recipes read."""
        return {
            "SMS_URL": self.url,
            "SMS_KEY": self.key,
            "REPORTING_URL": self.reporting_url,
        }

    @property
    def login(self) -> dict[str, Any]:
        """The parts of `reporting_url`."""
        parts = urlsplit(self.reporting_url)
        return {
            "host": parts.hostname,
            "port": parts.port,
            "user": parts.username,
            "password": parts.password,
            "database": parts.path.removeprefix("/"),
        }

    def ask(self, path: str, *, masked: bool = False, **parameters: Any) -> Any:
        """Return what the API answers, as JSON; `masked`: without numbers in full."""
        query = f"?{urlencode(parameters)}" if parameters else ""
        headers = self._masked if masked else self._headers
        answer = self.process.request("GET", f"/api/v1/{path}{query}", headers=headers)
        assert answer.status == 200, (path, answer.status, answer.body)
        return answer.json

    def send(self, method: str, path: str, content: Any) -> Any:
        """Send JSON to the API, and return what it answers."""
        headers = self._headers | {"Content-Type": "application/json"}
        answer = self.process.request(method, f"/api/v1/{path}", json.dumps(content).encode(), headers)
        assert answer.status in (200, 201), (path, answer.status, answer.body)
        return answer.json

    def masked_rows(self, name: str) -> list[Row]:
        """Return every item of a list as the views show it."""
        return self.rows(name, masked=True)

    def rows(self, name: str, **parameters: Any) -> list[Row]:
        """Return every item of a list or of the events, in the list's own order."""
        return list(self._walk(name, {"limit": _ITEMS_AT_ONCE} | parameters))

    def _walk(self, name: str, parameters: dict[str, Any]) -> Iterator[Row]:
        while True:
            page = self.ask(name, **parameters)
            yield from page["items"]
            if not page["has_more"]:
                return
            parameters["cursor"] = page["next_cursor"]

    def fill(self) -> None:
        """Record the sends and push everything else."""
        for sends in (PLAIN_SENDS, AWKWARD_SENDS, MORE_PLAIN_SENDS):
            answer = self.send("POST", "messages", sends)
            refused = [item for item in answer["items"] if item["status"] != 201]
            assert not refused, refused
        for push in (*RECEIPTS, *REPLIES):
            outcome = self.process.push(push.body).headers["X-Push-Outcome"]
            assert outcome == "accepted", push
        # Nothing is to change by time alone between two readings that are held against each other.
        await_true(lambda: not self.ask("messages", status="pending", late="false", matched="true")["items"])
        self.ask("messages", updated_from="2000-01-01")  # waits until each change has its time
