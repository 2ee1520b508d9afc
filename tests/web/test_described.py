"""The check of every answer against the API's description can itself fail, and names what is wrong."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from werkzeug.test import EnvironBuilder, TestResponse

from tests.harness.described import require_described

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask import Flask

REPLIES = "/api/v1/replies"
REPLY: dict[str, Any] = {
    "id": "1", "message_id": None, "account": "default", "task_id": "3313746", "mobile": "15080921090",
    "content": "TD", "opt_out": True, "opt_out_review": False, "replied_at": "2026-11-23T01:14:03Z",
    "received_at": "2026-11-23T01:14:03.120Z",
    "last_seen_at": "2026-11-23T01:14:03.120Z", "copies": 1, "extra": {}, "push_id": "x",
}  # fmt: skip
NOT_FOUND = {
    "type": "/api/v1/errors#not_found", "title": "not found", "status": 404, "code": "not_found", "detail": "nothing",
}  # fmt: skip


def answer(
    body: Any, *, path: str = REPLIES, method: str = "GET", status: str = "200 OK", media: str = "application/json"
) -> TestResponse:
    request = EnvironBuilder(path, method=method).get_request()
    pieces = iter([json.dumps(body).encode()])
    return TestResponse(pieces, status, {"Content-Type": media}, request)  # type: ignore[arg-type]


def page(**changes: Any) -> dict[str, Any]:
    return {"items": [REPLY | changes], "next_cursor": None, "has_more": False}


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (answer(page(), status="418 I'M A TEAPOT"), f"GET {REPLIES}: 418 is not described"),
        (answer(page(), media="text/html"), f"GET {REPLIES}: 200 comes as text/html"),
        (
            answer({"items": [], "has_more": False}),
            f'GET {REPLIES}: 200 does not match its schema: #/: "next_cursor" is a required',
        ),
        (answer(page(opt_out="no")), f"GET {REPLIES}: 200 does not match its schema: #/items/0/opt_out: "),
        (answer(page(replied_at="today")), f"GET {REPLIES}: 200 does not match its schema: #/items/0/replied_at: "),
        (answer(page(colour="red")), f"GET {REPLIES}: 200 does not match its schema: #/items/0: Additional"),
        (
            answer({"code": "x"}, path="/api/v1/pushes/1", status="404", media="application/problem+json"),
            "GET /api/v1/pushes/1: 404 does not match its schema: ",
        ),
        (answer({}, path="/api/v1/messages/7"), "GET /api/v1/messages/7: 200 does not match its schema: "),
    ],
)
def test_answer_that_is_not_as_described_is_refused(given: TestResponse, fault: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(fault)):
        require_described(given)


@pytest.mark.parametrize(
    "given",
    [
        answer(page()),
        answer(page(), method="HEAD"),
        answer(NOT_FOUND, path="/api/v1/pushes/1", status="404", media="application/problem+json"),
        answer("", path="/api/v1/nothing", status="404", media="text/html"),
        answer("", method="DELETE", status="405", media="text/html"),
        answer("", path="/healthz", media="text/plain"),
    ],
)
def test_answer_that_is_as_described_or_of_no_described_call_is_taken(given: TestResponse) -> None:
    require_described(given)


def test_stream_is_left_to_whoever_reads_it() -> None:
    read: list[int] = []

    def pieces() -> Iterator[bytes]:
        read.append(1)
        yield b"id\r\n"

    request = EnvironBuilder("/api/v1/exports/replies").get_request()
    given = TestResponse(pieces(), "200 OK", {"Content-Type": "text/csv; charset=utf-8"}, request)  # type: ignore[arg-type]
    require_described(given)
    assert read == []
    assert given.text == "id\r\n"


def test_every_client_of_a_test_checks(app: Flask, bearer: dict[str, str]) -> None:
    app.view_functions["replies.Replies"] = lambda: {"items": []}
    with pytest.raises(AssertionError, match=f"GET {REPLIES}: 200 does not match"):
        app.test_client().get(REPLIES, headers=bearer)
