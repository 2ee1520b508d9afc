"""What every answer says to a browser, and what no answer says of the inside."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NoReturn

import pytest
from flask.testing import FlaskClient

from receiver.web.console import status as now
from tests.conftest import SECRET
from tests.harness.leaks import leaks
from tests.harness.ports import free_port
from tests.harness.server import ServeProcess
from tests.web.console.staff import log_in, one_database

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from flask import Flask

    from receiver.runtime import Runtime

FORM = "mobile=15080921090&taskid=1&status=1&receivetime=2019-07-23+17:00:00"
API = "/api/v1"

# Kind of answer: method, path, whether with a key, status.
ANSWERS: Mapping[str, tuple[str, str, bool, int]] = {
    "ack": ("POST", f"/push/{SECRET}", False, 200),
    "ack of a probe": ("GET", f"/push/{SECRET}", False, 200),
    "refused push": ("POST", "/push/wrong-secret-of-some-length-0000", False, 404),
    "nothing there": ("GET", f"/puhs/{SECRET}/15080921090", False, 404),
    "wrong method": ("POST", "/healthz", False, 405),
    "a list": ("GET", f"{API}/messages", True, 200),
    "an export": ("GET", f"{API}/exports/messages?format=csv", True, 200),
    "no key": ("GET", f"{API}/messages", False, 401),
    "nothing under that id": ("GET", f"{API}/messages/15080921090", True, 404),
    "input that is wrong": ("GET", f"{API}/messages?mobile={SECRET}15080921090", True, 422),
    "body that is none": ("POST", f"{API}/messages", True, 415),
    "description": ("GET", f"{API}/openapi.json", False, 200),
    "documentation": ("GET", f"{API}/docs", False, 200),
    "its script": ("GET", f"{API}/docs/init.js", False, 200),
    "its file that is not there": ("GET", f"{API}/docs/../{SECRET}", False, 404),
    "to the console": ("GET", "/", False, 302),
    "log-in": ("GET", "/console/login", False, 200),
    "a form without its token": ("POST", "/console/login", False, 400),
    "page for staff": ("GET", "/console/messages", False, 303),
    "style": ("GET", "/console/static/console.css", False, 200),
    "health": ("GET", "/healthz", False, 200),
    "readiness": ("GET", "/readyz", False, 200),
    "metrics, not from here": ("GET", "/metrics", False, 403),
}


@one_database
@pytest.mark.parametrize("kind", ANSWERS)
def test_every_kind_of_answer_is_safe_in_a_browser(kind: str, app: Flask, bearer: dict[str, str]) -> None:
    method, path, with_key, status = ANSWERS[kind]
    answer = app.test_client().open(
        path, method=method, headers=bearer if with_key else {}, data=FORM.encode() if method == "POST" else None
    )
    assert answer.status_code == status
    headers = answer.headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in policy
    assert not re.search(r"unsafe-eval|script-src[^;]*unsafe-inline|\*", policy)
    cached = path.endswith((".js", ".css"))
    assert ("max-age=86400" if cached else "no-store") in headers["Cache-Control"]
    assert "charset=utf-8" in headers["Content-Type"] or answer.is_json or not answer.mimetype.startswith("text/html")
    assert leaks(answer.get_data(as_text=True)) == [] or status == 200
    assert SECRET not in answer.get_data(as_text=True)


@one_database
@pytest.mark.parametrize("path", [f"{API}/receipts", "/console/setup", f"/push/{SECRET}"])
def test_fault_of_ours_tells_nothing_of_itself(
    path: str, app: Flask, runtime: Runtime, bearer: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_more: object) -> NoReturn:
        raise ValueError("a fault near 15080921090")

    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.test_client_class = FlaskClient  # no description foresees a fault of ours
    app.view_functions["receipts.Receipts"] = fail
    monkeypatch.setattr(now, "push_urls", fail)
    monkeypatch.setattr(runtime.admission, "admit", fail)
    client = log_in(app, runtime, "admin").client
    answer = client.post(path, data=FORM) if "push" in path else client.get(path, headers=bearer)
    text = answer.get_data(as_text=True)
    assert answer.status_code == 500
    for told in ("Traceback", "ValueError", "a fault near", "15080921090", SECRET, "receiver/", ".py"):
        assert told not in text, told
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_listener_for_the_world_and_what_is_no_request_are_answered_safely(tmp_path: Path) -> None:
    inside = free_port()
    with ServeProcess(tmp_path, environment={"RECEIVER_INTERNAL_BIND": f"127.0.0.1:{inside}"}) as process:
        answers = {
            404: process.request("GET", f"{API}/messages"),
            400: process.exchange(f"GET /{SECRET} HTTP/1.1\r\nbad header 15080921090\r\n\r\n".encode()),
            431: process.exchange(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n"),
        }
    for status, answer in answers.items():
        assert answer.status == status
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert leaks(answer.body.decode()) == []
        assert "html" not in answer.headers["Content-Type"]
