"""Answers of the API held against its own description."""

from __future__ import annotations

import functools
import gzip
import json
import re
from typing import TYPE_CHECKING, Any

import jsonschema_rs
from flask import Flask
from flask.testing import FlaskClient

from receiver.web import api

if TYPE_CHECKING:
    from collections.abc import Mapping

    from werkzeug.test import TestResponse

_JSON = re.compile(r"application/([a-z]+\+)?json")
_NO_BODY = (204, 304)


class DescribedClient(FlaskClient):
    """A client that takes no answer of the API which its description does not foresee."""

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        response = super().open(*args, **kwargs)
        for answer in (*response.history, response):
            require_described(answer)
        return response


def require_described(response: TestResponse) -> None:
    """Raise AssertionError, naming path, status and fault, where the description does not foresee this answer.

    What the description does not name (a path, a method of it) is passed over. Only JSON is read: a stream is left to
    the test that reads it.
    """
    method, path = response.request.method, response.request.path
    answers = _find_answers(method, path)
    if answers is None:
        return
    where = f"{method} {path}: {response.status_code}"
    content = answers.get(str(response.status_code))
    assert content is not None, f"{where} is not described, only {', '.join(answers)}"
    if method == "HEAD" or response.status_code in _NO_BODY:
        return
    assert response.mimetype in content, f"{where} comes as {response.mimetype}, described is {', '.join(content)}"
    if not _JSON.fullmatch(response.mimetype):
        return
    data = response.get_data()
    body = json.loads(gzip.decompress(data) if response.headers.get("Content-Encoding") == "gzip" else data)
    faults = [
        f"#/{'/'.join(map(str, error.instance_path))}: {error.message}"
        for error in content[response.mimetype].iter_errors(body)
    ]
    assert not faults, f"{where} does not match its schema: {'; '.join(faults)}"


Answers = dict[str, dict[str, jsonschema_rs.Draft202012Validator]]
"""By status and content type, what checks a body."""


def _find_answers(method: str, path: str) -> Answers | None:
    for pattern, operations in _described():
        if pattern.fullmatch(path):
            return operations.get("GET" if method == "HEAD" else method)
    return None


@functools.cache
def _described() -> list[tuple[re.Pattern[str], Mapping[str, Answers]]]:
    """The operations of the description by path; made once, as is each check of a body."""
    app = Flask("described")
    api.register(app)
    document = FlaskClient(app, app.response_class).get(f"{api.PREFIX}/openapi.json").json
    components = _closed(document["components"])
    paths = sorted(document["paths"].items(), key=lambda item: item[0].count("{"))  # a fixed path before a template
    return [
        (
            re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))),
            {
                method.upper(): {
                    status: {
                        media: _validator(described["schema"], components)
                        for media, described in answer.get("content", {}).items()
                    }
                    for status, answer in operation["responses"].items()
                }
                for method, operation in item.items()
                if method != "parameters"
            },
        )
        for path, item in paths
    ]


def _validator(schema: Any, components: Any) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(_closed(schema) | {"components": components}, validate_formats=True)


def _closed(node: Any) -> Any:
    """Take no member of an object that its schema does not name: an answer is to have nothing undescribed."""
    if isinstance(node, list):
        return [_closed(part) for part in node]
    if not isinstance(node, dict):
        return node
    closed = {name: _closed(part) for name, part in node.items()}
    if isinstance(node.get("properties"), dict) and node.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed
