"""Every code of an error is a member of ErrorCode, and the API's description lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from receiver.core import LOCAL_LIMIT
from receiver.platform.client import REFUSALS, explain
from receiver.web.error_codes import ErrorCode

if TYPE_CHECKING:
    from flask.testing import FlaskClient


def test_every_refusal_of_a_send_has_a_code_of_the_api() -> None:
    refusals = [*REFUSALS.values(), explain("unknown words"), explain(f"{LOCAL_LIMIT}1 an hour")]
    assert {refusal.code for refusal in refusals} <= set(ErrorCode)


def test_description_lists_the_codes(client: FlaskClient) -> None:
    described = client.get("/api/v1/openapi.json").get_json()
    assert described["components"]["schemas"]["Problem"]["properties"]["code"]["enum"] == list(ErrorCode)
