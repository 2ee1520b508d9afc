"""Every code of an error is a member of ErrorCode with a status and a meaning, and a problem's `type` leads to it."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from receiver.app import create_app
from receiver.platform.client import EVERY_REFUSAL
from receiver.web.error_codes import EXPLANATIONS, ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask.testing import FlaskClient

    from receiver.runtime import Runtime


def test_every_refusal_of_a_send_has_a_code_of_the_api() -> None:
    assert {refusal.code for refusal in EVERY_REFUSAL} <= set(ErrorCode)


def test_description_lists_the_codes(client: FlaskClient) -> None:
    described = client.get("/api/v1/openapi.json").get_json()
    assert described["components"]["schemas"]["Problem"]["properties"]["code"]["enum"] == list(ErrorCode)


def test_every_code_has_its_statuses_and_its_place_on_the_page(client: FlaskClient) -> None:
    page = client.get("/api/v1/errors")
    assert (page.status_code, page.mimetype) == (200, "text/html")
    for code in ErrorCode:
        statuses = EXPLANATIONS[code].statuses
        assert all(400 <= status <= 599 for status in statuses)
        assert f'<dt id="{code}"><code>{code}</code> ({", ".join(map(str, statuses))})</dt>' in page.text


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/api/v1/messages?limit=x", "invalid"),
        ("GET", "/api/v1/messages?cursor=x", "invalid_cursor"),
        ("GET", "/api/v1/nothing", "not_found"),
        ("PUT", "/api/v1/messages", "method_not_allowed"),
        ("POST", "/api/v1/messages", "unsupported_media_type"),
    ],
)
def test_type_of_a_problem_opens_and_has_the_code(
    client: FlaskClient, bearer: dict[str, str], method: str, path: str, code: str
) -> None:
    answer = client.open(path, method=method, headers=bearer)
    assert answer.json["code"] == code
    assert answer.status_code in EXPLANATIONS[ErrorCode(code)].statuses
    page, _, anchor = answer.json["type"].partition("#")
    assert f'<dt id="{anchor}"><code>{code}</code>' in client.get(page).text


def test_problem_of_one_item_of_many_has_its_type(client: FlaskClient, bearer: dict[str, str]) -> None:
    answer = client.post("/api/v1/messages", json=[{}], headers=bearer)
    assert answer.json["items"][0]["error"]["type"] == "/api/v1/errors#invalid"


def test_type_begins_with_the_prefix_under_which_the_receiver_is_served(make_runtime: Callable[..., Runtime]) -> None:
    app = create_app(make_runtime(trusted_proxies=(ip_network("127.0.0.0/8"),)))
    answer = app.test_client().get("/api/v1/nothing", headers={"X-Forwarded-Prefix": "/sms"})
    assert answer.json["type"] == "/sms/api/v1/errors#not_found"


def test_problem_of_a_push_leads_nowhere(client: FlaskClient) -> None:
    """The address for pushes may be the only one that its sender reaches."""
    assert client.post("/push/wrong").json["type"] == "about:blank"
