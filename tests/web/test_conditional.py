"""An answer that the client has is not sent again, and others are compressed; what is new says where it is."""

from __future__ import annotations

import gzip
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import time_machine

from receiver.messages.recording import record_sent
from tests.harness.factories import NOON, make_push, make_send
from tests.harness.journal import save_pushes
from tests.webhooks.test_webhooks import ALLOW

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask.testing import FlaskClient

    from receiver.runtime import Runtime

SEND = {"task_id": "7", "mobile": "15080921090"}
HOOK = {"name": "shop", "url": "http://127.0.0.1:9/hooks", "format": "webhooks"}


@pytest.fixture
def runtime(make_runtime: Callable[..., Runtime]) -> Runtime:
    """A runtime whose webhooks may be on this machine."""
    return make_runtime(webhooks_allow=ALLOW)


@pytest.fixture
def paths(client: FlaskClient, runtime: Runtime, bearer: dict[str, str]) -> list[str]:
    push = make_push(task_id="7")
    save_pushes(runtime.database, [push])
    message = client.post("/api/v1/messages", json=SEND, headers=bearer).json["id"]
    client.post("/api/v1/webhooks", json=HOOK, headers=bearer)
    return [
        "/api/v1/openapi.json", f"/api/v1/messages/{message}", f"/api/v1/pushes/{push.id}", "/api/v1/webhooks/shop",
        "/api/v1/messages",
    ]  # fmt: skip


def test_answer_that_the_client_has_is_not_sent_again(
    paths: list[str], client: FlaskClient, bearer: dict[str, str]
) -> None:
    for path in paths:
        first = client.get(path, headers=bearer)
        tag = first.headers["ETag"]
        again = client.get(path, headers=bearer | {"If-None-Match": tag})
        assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", tag), path
        weak = client.get(path, headers=bearer | {"If-None-Match": f"W/{tag}"})  # as a proxy that compresses makes it
        assert weak.status_code == 304, path
        other = client.get(path, headers=bearer | {"If-None-Match": '"another"'})
        assert (other.status_code, other.data) == (200, first.data), path


def test_etag_is_another_when_time_alone_has_changed_the_message(
    client: FlaskClient, runtime: Runtime, bearer: dict[str, str]
) -> None:
    runtime.database.write(lambda connection: record_sent(connection, [make_send(sent_at=NOON)], recorded_at=NOON))
    with time_machine.travel(NOON + timedelta(seconds=59), tick=False) as clock:
        first = client.get("/api/v1/messages/1", headers=bearer)
        clock.shift(2)
        later = client.get("/api/v1/messages/1", headers=bearer | {"If-None-Match": first.headers["ETag"]})
    assert (first.json["late"], later.status_code, later.json["late"]) == (False, 200, True)


def test_etag_needs_the_key_like_the_answer(paths: list[str], client: FlaskClient, bearer: dict[str, str]) -> None:
    tag = client.get(paths[1], headers=bearer).headers["ETag"]
    assert client.get(paths[1], headers={"If-None-Match": tag}).status_code == 401


def test_error_and_stream_have_no_etag(client: FlaskClient, bearer: dict[str, str]) -> None:
    for path in ("/api/v1/messages/99", "/api/v1/exports/messages?format=ndjson"):
        assert "ETag" not in client.get(path, headers=bearer).headers, path


def test_json_is_compressed_for_who_accepts_it(
    paths: list[str],
    client: FlaskClient,
    runtime: Runtime,
    bearer: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_pushes(runtime.database, [make_push(task_id=str(number)) for number in range(10)])
    for path in ("/api/v1/messages", "/api/v1/openapi.json"):
        plain = client.get(path, headers=bearer)
        assert (plain.headers["Vary"], plain.headers.get("Content-Encoding")) == ("Accept-Encoding", None)
        answer = client.get(path, headers=bearer | {"Accept-Encoding": "br, gzip"})
        assert (answer.headers["Vary"], answer.headers["Content-Encoding"]) == ("Accept-Encoding", "gzip")
        assert int(answer.headers["Content-Length"]) == len(answer.data) < len(plain.data) / 2
        assert gzip.decompress(answer.data) == plain.data
        tag = answer.headers["ETag"]
        assert tag == f"W/{plain.headers['ETag']}"
        with monkeypatch.context() as patched:
            patched.delattr(gzip, "compress")  # nothing is compressed that is not sent
            again = client.get(path, headers=bearer | {"Accept-Encoding": "gzip", "If-None-Match": tag})
        assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", tag)
        assert "Content-Encoding" not in again.headers
        refused = client.get(path, headers=bearer | {"Accept-Encoding": "gzip;q=0, identity"})
        assert refused.data == plain.data
    short = client.get(paths[3], headers=bearer | {"Accept-Encoding": "gzip"})
    assert (len(short.data) < 1024, short.headers.get("Content-Encoding")) == (True, None)


def test_what_is_new_says_where_it_is(client: FlaskClient, bearer: dict[str, str]) -> None:
    for path, body in (("messages", SEND), ("webhooks", HOOK)):
        created = client.post(f"/api/v1/{path}", json=body, headers=bearer)
        assert created.status_code == 201
        found = client.get(created.headers["Location"], headers=bearer)
        key = "id" if path == "messages" else "name"
        assert (found.status_code, found.json[key]) == (200, created.json[key])
    again = client.post("/api/v1/messages", json=SEND, headers=bearer)
    assert (again.status_code, again.headers.get("Location")) == (200, None)
    under = client.post(
        "/api/v1/messages", json=SEND | {"task_id": "8"}, headers=bearer, environ_overrides={"SCRIPT_NAME": "/sms"}
    )
    assert under.headers["Location"] == f"/sms/api/v1/messages/{under.json['id']}"
