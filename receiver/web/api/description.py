"""The API's description of itself (OpenAPI 3.1): what follows from schemas, policies and names of fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.common import resolve_schema_instance
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from flask_smorest.spec.plugins import FlaskPlugin

from receiver.auth.api_keys import Scope
from receiver.web.auth import policy_for
from receiver.web.lists.filters import StrictSchema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import marshmallow as ma
    from werkzeug.routing import Rule

ABOUT = """\
Delivery states of messages sent through the SMS platform. Numbers, also inside reply texts, are masked unless the key
has the scope `pii`; looking up by the full number works without it.

**Changes.** Within `v1`, nothing is removed or renamed, and no value changes its type or meaning. Added may be: calls,
optional parameters, fields of answers, kinds of events, codes of errors. So clients must ignore fields that they do not
know. The changelog names every change. What a `v2` would end is announced there first, and its answers carry the header
`Deprecation` (RFC 9745).
"""

# Values for examples, by the names of fields: a name means the same everywhere. The first that fits a schema is taken.
_TIME, _WHOLE_SECONDS = "2026-11-23T01:14:03.120Z", "2026-11-23T01:14:03Z"
_PUSH_ID = "019ab3c1-7f2e-7d10-8a4b-3c5d6e7f8091"
_VALUES: Mapping[str, tuple[Any, ...]] = {
    "account": ("default",),
    "accounts": (["default"],),
    "accepted": (1200,),
    "action": ("look_up",),
    "actor": ("key:shop",),
    "attempts": (12,),
    "closing": (8800,),
    "code": ("invalid", "1234"),
    "content": ("TD",),
    "content_type": ("application/x-www-form-urlencoded",),
    "conversion_rate": (0.82,),
    "copies": (1,),
    "days_left": (7.3,),
    "delivered": (1180, True),
    "delivery_rate": (0.983333,),
    "event": ("receipt.received",),
    "events": (["receipt.received"],),
    "failed": (20,),
    "flags": (["path"],),
    "format": ("webhooks",),
    "hash": ("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",),
    "id": ("17",),
    "ids": (["17"],),
    "last_error": (None,),
    "latency_p50_seconds": (3,),
    "latency_p95_seconds": (9,),
    "latency_p99_seconds": (41,),
    "latency_seconds": (4.0,),
    "lag_seconds": (0.0,),
    "match_rate": (1.0,),
    "matched": (True,),
    "message_id": ("17",),
    "method": ("POST",),
    "mobile": ("150****1090",),
    "name": ("shop",),
    "next_cursor": (None, ".eJwVxLENgDAMBMBd3ELQv5NgkznoEEUw3n8FxBV3CTLd5tGYAYCw.i-SpEBD02D-teNNJt87H"),
    "opening": (10000,),
    "position": (4711,),
    "prefix": ("1508092",),
    "push_id": (_PUSH_ID,),
    "receipt_count": (1,),
    "receipt_id": ("17",),
    "reference": ("order-17",),
    "remain_point": (8800,),
    "reply_id": ("17",),
    "remote_addr": ("192.0.2.7",),
    "replied_at": (_WHOLE_SECONDS,),
    "replayed": (1,),
    "reported_at": (_WHOLE_SECONDS,),
    "seconds": (0.08,),
    "secret": ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",),
    "sent": (1200,),
    "sent_at": ("2026-11-23T01:13:59.000Z",),
    "status": ("delivered", 201, 202, 200),
    "taken": (True,),
    "task_id": ("3313746",),
    "template_id": ("540",),
    "timezone": ("Asia/Shanghai",),
    "title": ("invalid",),
    "url": ("https://shop.example.com/hooks",),
    "used_per_day": (1200.0,),
    "usual_per_hour": (3.0,),
    "vendor_status": ("1",),
    "verified": (984,),
}
_TYPES: Mapping[type, str] = {
    str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object", type(None): "null",
}  # fmt: skip
_OF_TYPE: Mapping[str, Any] = {"boolean": False, "integer": 0, "number": 0.0, "object": {}, "null": None}
_OF_FORMAT: Mapping[str, str] = {"date-time": _TIME, "date": "2026-11-23"}


_ETAG = {
    "description": "Of the body: sent back as `If-None-Match`, it saves the same one.",
    "schema": {"type": "string"},
}
_UNCHANGED = {"description": "The body still has the `ETag` that was sent as `If-None-Match`."}
_LOCATION = {"description": "The address of what is new, if it is one.", "schema": {"type": "string"}}
_LINK = {"description": 'The next page, if there is one, as `rel="next"` (RFC 8288).', "schema": {"type": "string"}}


class _Converter(OpenAPIConverter):
    """Leaves the schemas of answers open: a client may not break on a field that is added."""

    def schema2jsonschema(self, schema: Any) -> Any:
        """Return a schema as JSON Schema."""
        described = super().schema2jsonschema(schema)  # type: ignore[no-untyped-call]
        if not isinstance(resolve_schema_instance(schema), StrictSchema):
            described.pop("additionalProperties", None)
        return described


class Plugin(MarshmallowPlugin):
    """Describes marshmallow schemas."""

    Converter = _Converter

    def init_spec(self, spec: Any) -> None:
        """Prepare to describe."""
        super().init_spec(spec)
        assert self.converter is not None  # noqa: S101  (made just now)
        for function in (_pattern_of_any_language, _reference):
            self.converter.add_attribute_function(function)  # type: ignore[no-untyped-call]


def _pattern_of_any_language(_converter: Any, _field: ma.fields.Field[Any], ret: Mapping[str, Any]) -> dict[str, str]:
    """Return a pattern as JSON Schema has it (ECMA-262), where Python's end of a text is unknown."""
    return {"pattern": ret["pattern"].replace(r"\Z", "$")} if "pattern" in ret else {}


def _reference(_converter: Any, field: ma.fields.Field[Any], **_kwargs: Any) -> dict[str, str]:
    """Return the schema that a field's metadata names, for what no marshmallow field describes."""
    return {"$ref": field.metadata["$ref"]} if "$ref" in field.metadata else {}


def complete(document: dict[str, Any], rules: Iterable[Rule]) -> dict[str, Any]:
    """Return a description with what its parts imply: the scope that each call requires, and examples."""
    schemas = document["components"]["schemas"]
    schemas.pop("PaginationMetadata", None)  # flask-smorest's own, which no call has
    for rule in rules:
        for method, operation in document["paths"].get(FlaskPlugin.flaskpath2openapi(rule.rule), {}).items():
            if method == "parameters":
                _give_examples(operation, schemas)
                continue
            scope = policy_for(rule.endpoint, method.upper())
            said = [operation["description"]] if operation.get("description") else []
            if isinstance(scope, Scope):
                said.append(f"Requires a key with the scope `{scope.value}`.")
            operation["description"] = "\n\n".join(said)
            _give_examples(operation.get("parameters", []), schemas)
            _describe_headers(method, operation)
            answers = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
            for part in (operation.get("requestBody", {}), *answers):
                for media, content in part.get("content", {}).items():
                    if media == "application/json" and "examples" not in content:
                        content.setdefault("example", example_of(content["schema"], schemas))
    return document


def _describe_headers(method: str, operation: dict[str, Any]) -> None:
    """Describe the headers that answers have by their kind."""
    answers = operation["responses"]
    if method == "get" and "application/json" in answers["200"].get("content", {}):
        headers = answers["200"].setdefault("headers", {})
        headers["ETag"] = _ETAG
        answers["304"] = _UNCHANGED
        if any(parameter["name"] == "cursor" for parameter in operation.get("parameters", [])):
            headers["Link"] = _LINK
    if "201" in answers:
        answers["201"].setdefault("headers", {})["Location"] = _LOCATION


def _give_examples(parameters: Iterable[dict[str, Any]], schemas: Mapping[str, Any]) -> None:
    """Give examples to the parameters that every call needs."""
    for parameter in parameters:
        if parameter.get("required"):
            parameter.setdefault("example", example_of(parameter["schema"], schemas, parameter["name"]))


def example_of(schema: Mapping[str, Any], schemas: Mapping[str, Any], name: str = "") -> Any:
    """Return a valid value of a schema: its own example, else one by its name, else one by its type.

    Of an object, the required fields and those that have an example of their own.
    """
    if "$ref" in schema:
        return example_of(schemas[schema["$ref"].rpartition("/")[2]], schemas, name)
    if "example" in schema:
        return schema["example"]
    for value in _VALUES.get(name, ()):
        if _fits(value, schema):
            return value
    if several := schema.get("anyOf") or schema.get("oneOf"):
        return example_of(several[0], schemas, name)
    if "enum" in schema:
        return schema["enum"][0]
    if "properties" in schema:
        required = schema.get("required", ())
        return {
            field: example_of(described, schemas, field)
            for field, described in schema["properties"].items()
            if field in required or "example" in described
        }
    return _of_type(schema, schemas, name)


def _of_type(schema: Mapping[str, Any], schemas: Mapping[str, Any], name: str) -> Any:
    types = schema.get("type", "string")
    if isinstance(types, list):
        if "null" in types and "format" not in schema:
            return None
        types = types[0]
    if types == "array":
        return [example_of(schema["items"], schemas)] if schema["items"].get("$ref") else []
    if types == "string":
        return _OF_FORMAT.get(schema.get("format", ""), name.replace("_", " "))
    return schema.get("minimum", _OF_TYPE[types])


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    types = schema.get("type", ())
    return _TYPES[type(value)] in ([types] if isinstance(types, str) else types) and value in schema.get(
        "enum", (value,)
    )
