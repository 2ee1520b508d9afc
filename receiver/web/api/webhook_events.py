"""The section `webhooks` of the description: the requests that an endpoint of the format `webhooks` gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from receiver.web.api.description import example_of
from receiver.webhooks.endpoints import EventType
from receiver.webhooks.payloads import EXCHANGE_SECONDS, TEST_EVENT

if TYPE_CHECKING:
    from collections.abc import Mapping

# Each event with the schema of its `data`.
_EVENTS: Mapping[EventType, tuple[str, str]] = {
    EventType.RECEIPT_RECEIVED: ("Receipt", "A receipt that was not seen before."),
    EventType.REPLY_RECEIVED: ("Reply", "A reply that was not seen before."),
    EventType.STATUS_CHANGED: ("Message", "The status of a message has changed; the message as it is now."),
    EventType.NO_RECEIPT: ("Message", "A message has had no receipt for `RECEIVER_NO_RECEIPT_AFTER_HOURS`."),
    EventType.NOT_DELIVERED: ("Message", "A message is not delivered after the seconds that the webhook sets."),
}
_TEXT = {"type": "string"}
_HEADERS = [
    {
        "name": name,
        "in": "header",
        "required": True,
        "description": description,
        "schema": _TEXT,
        "example": example,
    }
    for name, description, example in (
        (
            "webhook-id",
            "Id of the event, the same in every attempt and when it is sent again: drop what you have seen.",
            "msg_019ab3c17f2e7d108a4b3c5d6e7f8091",
        ),
        ("webhook-timestamp", "Time of the attempt, in seconds since 1970. Refuse what is far from now.", "1763860443"),
        (
            "webhook-signature",
            "`v1,` and base64 of HMAC-SHA256, as Standard Webhooks; a second one for a day after a rotation.",
            "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
        ),
    )
]
_ANSWERS = {
    "2XX": {"description": f"Accepted. Answer within {EXCHANGE_SECONDS:g} seconds; the body is not read."},
    "410": {"description": "The webhook is paused until it is resumed; nothing is lost."},
    "429": {"description": "As every other answer; `Retry-After` is kept to, also with 503."},
    "default": {
        "description": "As no answer: tried again after seconds, then hours, for three days; then it is a dead letter."
        " Redirects are not followed."
    },
}
_WHEN = (
    "When the receipt or reply was received. Of other events, when they were made, or made again from what is stored."
)
_ABOUT = (
    "Sent at least once, and in order for each message. Without `pii`, numbers are masked and the content of replies is"
    " `***`."
)


def describe_events(schemas: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section; `schemas`: the components, which have the rows of the API."""
    events: dict[str, tuple[str, Mapping[str, Any]]] = {
        event.value: (summary, {"$ref": f"#/components/schemas/{name}"}) for event, (name, summary) in _EVENTS.items()
    }
    tested: Mapping[str, Any] = {
        "type": "object",
        "required": ["webhook"],
        "properties": {"webhook": _TEXT | {"example": "shop"}},
    }
    events[TEST_EVENT] = ("A test, sent when it is asked for.", tested)
    return {name: {"post": _describe(name, summary, data, schemas)} for name, (summary, data) in events.items()}


def _describe(name: str, summary: str, data: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    payload = {
        "type": "object",
        "required": ["type", "timestamp", "data"],
        "properties": {
            "type": {"type": "string", "enum": [name]},
            "timestamp": {"type": "string", "format": "date-time", "description": _WHEN},
            "data": data,
        },
    }
    content = {"application/json": {"schema": payload, "example": example_of(payload, schemas)}}
    return {
        "operationId": f"on_{name.replace('.', '_')}",
        "summary": summary,
        "description": _ABOUT,
        "tags": ["webhooks"],
        "security": [],  # by its signature
        "parameters": _HEADERS,
        "requestBody": {"required": True, "content": content},
        "responses": _ANSWERS,
    }
