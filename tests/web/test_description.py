"""The description of the API is what tools of any language read: its patterns, its examples, what it leaves open."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import pytest

from receiver.web.auth import POLICIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask.testing import FlaskClient

# What a pattern may consist of so that ECMA-262 compiles it with the flag u, and means what Python does.
_ECMA = re.compile(
    r"""(?x)(?:
      [^\\()\[\]{}*+?|^$./]                                     # itself
    | [.^$|/)]
    | \\(?:[dDwWsSbB^$\\.*+?()\[\]{}|/] | u[0-9a-fA-F]{4})
    | \((?:\?[:=!]|(?!\?))
    | \[\^?(?:[^\\\[\]] | \\(?:[dDwWsS^\\\[\]/-] | u[0-9a-fA-F]{4}))+\]
    | (?:[*+?] | \{[0-9]+(?:,[0-9]*)?\})\??
    )*"""
)


@pytest.fixture
def document(client: FlaskClient) -> Any:
    return client.get("/api/v1/openapi.json").json


def find_all(node: Any, name: str) -> Iterator[Any]:
    """Every value of that name, at any depth."""
    if isinstance(node, list):
        for part in node:
            yield from find_all(part, name)
    elif isinstance(node, dict):
        for key, part in node.items():
            if key == name:
                yield part
            yield from find_all(part, name)


def operations(document: Any) -> Iterator[tuple[str, Any]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                yield f"{method.upper()} {path}", operation


def media_of(operation: Any) -> Iterator[Any]:
    """What an operation takes and answers as JSON where it succeeds."""
    answers = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
    for part in (operation.get("requestBody", {}), *answers):
        yield from (content for media, content in part.get("content", {}).items() if media == "application/json")


@pytest.mark.parametrize("pattern", [r"^a\Z", r"\A1", r"(?P<name>a)", r"(?i)a", r"a\'", r"[[a]]", r"(?<=a)b", "a{"])
def test_pattern_that_other_languages_read_differently_is_noticed(pattern: str) -> None:
    assert not _ECMA.fullmatch(pattern)


def test_every_pattern_is_one_of_ecma_262(document: Any) -> None:
    patterns = {pattern for pattern in find_all(document, "pattern") if isinstance(pattern, str)}
    assert "^[0-9]{1,18}$" in patterns
    assert [pattern for pattern in patterns if not _ECMA.fullmatch(pattern)] == []
    if node := shutil.which("node"):
        program = "for (const pattern of JSON.parse(process.argv[1])) new RegExp(pattern, 'u')"
        subprocess.run([node, "-e", program, json.dumps(sorted(patterns))], check=True, timeout=60)


def test_every_body_has_an_example_that_is_valid(document: Any) -> None:
    seen = 0
    for name, operation in operations(document):
        for content in media_of(operation):
            values = [one["value"] for one in content.get("examples", {}).values()] or [content["example"]]
            schema = content["schema"] | {"components": document["components"]}
            faults = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
            for value in values:
                assert [fault.message for fault in faults.iter_errors(value)] == [], name
                seen += 1
    assert seen > 25


def test_every_parameter_that_is_needed_has_an_example_that_is_valid(document: Any) -> None:
    seen = set()
    for item in document["paths"].values():
        lists = [
            item.get("parameters", []),
            *(one.get("parameters", []) for key, one in item.items() if key != "parameters"),
        ]
        for parameter in (one for several in lists for one in several if one.get("required")):
            example = parameter.get("example", parameter["schema"].get("example"))
            jsonschema_rs.Draft202012Validator(parameter["schema"], validate_formats=True).validate(example)
            seen.add(parameter["name"])
    assert {"message_id", "push_id", "name", "from", "to"} <= seen


@pytest.mark.parametrize("which", ["one", "many"])
def test_examples_of_recording_are_taken(
    which: str, document: Any, client: FlaskClient, bearer: dict[str, str]
) -> None:
    content = document["paths"]["/api/v1/messages"]["post"]["requestBody"]["content"]["application/json"]
    assert client.post("/api/v1/messages", json=content["examples"][which]["value"], headers=bearer).status_code == 201


def test_requests_are_closed_and_answers_open(document: Any) -> None:
    def referred(*parts: Any) -> set[str]:
        return {reference.rpartition("/")[2] for part in parts for reference in find_all(part, "$ref")}

    schemas = document["components"]["schemas"]
    closed = {name for name, schema in schemas.items() if schema.get("additionalProperties") is False}
    assert closed == referred(*(operation.get("requestBody") for _, operation in operations(document)))
    assert closed.isdisjoint(referred(*(operation["responses"] for _, operation in operations(document))))
    assert {"Send", "NewWebhook", "MessageFilter"} <= closed


def test_every_component_is_used(document: Any) -> None:
    used = {reference.rpartition("/")[2] for reference in find_all(document, "$ref")}
    assert set(document["components"]["schemas"]) == used


def test_every_operation_says_which_scope_it_requires(document: Any) -> None:
    scopes = set()
    for name, operation in operations(document):
        found = re.search(r"Requires a key with the scope `([a-z:]+)`\.$", operation["description"])
        assert found, name
        scopes.add(found[1])
    assert {"read", "messages:write", "messages:send", "reports", "export", "pushes", "webhooks", "audit"} == scopes
    assert len(POLICIES) > len(scopes)


def test_every_item_of_a_list_to_record_is_typed(document: Any) -> None:
    body = document["paths"]["/api/v1/messages"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["oneOf"][1]["items"] == {"$ref": "#/components/schemas/Send"}


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-01", "2026-11-23T09:14:03+08:00", "2026-11-23T09:14:03Z", "2026-11-23 09:14:03", "2026-11-23T09:14",
        "2026-11-23T01:14:03.120Z", "2026-11-23T09:14:03+0800",
    ],
)  # fmt: skip
def test_times_of_every_documented_form_are_described_and_taken(
    text: str, document: Any, client: FlaskClient, bearer: dict[str, str]
) -> None:
    parameters = document["paths"]["/api/v1/messages"]["get"]["parameters"]
    (schema,) = (one["schema"] for one in parameters if one["name"] == "sent_from")
    assert jsonschema_rs.Draft202012Validator(schema, validate_formats=True).is_valid(text)
    assert client.get("/api/v1/messages", query_string={"sent_from": text}, headers=bearer).status_code == 200


def test_servers_are_beside_the_document_wherever_it_is_served(client: FlaskClient) -> None:
    assert client.get("/api/v1/openapi.json").json["servers"] == [{"url": "/"}]
    under = client.get("/api/v1/openapi.json", environ_overrides={"SCRIPT_NAME": "/sms"})
    assert under.json["servers"] == [{"url": "/sms"}]


def test_policy_of_changes_is_in_the_description(document: Any) -> None:
    assert "clients must ignore fields that they do not" in document["info"]["description"].replace("\n", " ")
