"""Input that no honest client sends is refused on every route alike: never an error of ours."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from receiver.observability import metrics
from receiver.web.api import PREFIX, RowIdConverter

if TYPE_CHECKING:
    from flask import Flask
    from flask.testing import FlaskClient

_ODD = {
    "nested lists": (b"[" * 100_000, 400),
    "nested objects": (b'{"a":' * 2000, 400),
    "nested as deep as it can be read": (b'{"a":' * 900 + b"1" + b"}" * 900, None),
    "nested lists as deep as they can be read": (b"[" * 900 + b"]" * 900, None),
    "a number of many digits": (b'{"a": %s}' % (b"1" * 5000), 400),
    "half a character as a key": (b'{"\\ud800": 1}', 422),
    "half a character as a key, within": (b'[{"a": {"\\uDfff": 1}, "\\uDfff": 1}]', None),
    "half a character in bytes": (b'{"\xed\xa0\x80": 1}', 400),
    "no UTF-8": (b'{"\xff": 1}', 400),
    "NaN": (b'{"account": NaN, "limit": Infinity}', 422),
}


@pytest.mark.parametrize("odd", _ODD)
def test_odd_json_is_refused_on_every_route(odd: str, client: FlaskClient, bearer: dict[str, str]) -> None:
    body, expected = _ODD[odd]
    for method, path, _ in list_routes(client):
        answer = client.open(path, method=method, data=body, content_type="application/json", headers=bearer)
        fits = answer.status_code == expected if expected else answer.status_code < 500
        assert fits, (method, path, answer.text)


def test_half_a_character_in_any_field_is_refused(client: FlaskClient, bearer: dict[str, str]) -> None:
    for method, path, names in list_routes(client):
        assert names, path
        for name in names:
            answer = client.open(path, method=method, json={name: "a\ud800"}, headers=bearer)
            assert answer.status_code == 422, (method, path, name, answer.text)


def list_routes(client: FlaskClient) -> list[tuple[str, str, list[str]]]:
    """Method, path and the names of fields of every route that takes JSON."""
    document = client.get(f"{PREFIX}/openapi.json").json
    routes = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            content = operation.get("requestBody", {}).get("content", {}) if isinstance(operation, dict) else {}
            if "application/json" in content:
                names = list_names(content["application/json"]["schema"], document["components"]["schemas"])
                routes.append((method.upper(), path.replace("{name}", "none"), names))
    assert len(routes) >= 6
    return routes


def list_names(schema: dict[str, Any], known: dict[str, Any]) -> list[str]:
    if "$ref" in schema:
        return list_names(known[schema["$ref"].rpartition("/")[2]], known)
    several = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    return [*schema.get("properties", ()), *(name for one in several for name in list_names(one, known))]


def test_whole_character_as_a_pair_and_a_mark_of_byte_order_are_read(
    client: FlaskClient, bearer: dict[str, str]
) -> None:
    send = {"task_id": "1", "mobile": "15080921090", "reference": "\U0001f600"}
    answer = client.post(
        f"{PREFIX}/messages", data=b"\xef\xbb\xbf" + json.dumps(send).encode(), content_type="application/json",
        headers=bearer,
    )  # fmt: skip
    assert (answer.status_code, answer.json["reference"]) == (201, "\U0001f600")


def test_name_with_a_nul_is_nowhere(app: Flask, client: FlaskClient, bearer: dict[str, str]) -> None:
    urls = app.url_map.bind("localhost")
    asked = 0
    for rule in app.url_map.iter_rules():
        names = {name for name, converter in rule._converters.items() if type(converter) is not RowIdConverter}
        if not names or rule.endpoint.startswith("push."):
            continue
        values = {name: "a\0" if name in names else "1" for name in rule.arguments} | dict(rule.defaults or {})
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            path = urls.build(rule.endpoint, values, method=method)
            assert "%00" in path
            answer = client.open(path, method=method, json={}, headers=bearer)
            assert answer.status_code == 404, (method, path, answer.text)
            asked += 1
    assert asked >= 14


def test_secret_with_a_nul_is_a_wrong_one(client: FlaskClient) -> None:
    def refused() -> float:
        return metrics.REGISTRY.get_sample_value("receiver_push_refusals_total", {"reason": "secret"}) or 0

    before = refused()
    assert client.post("/push/a%00").status_code == 404
    assert refused() == before + 1
