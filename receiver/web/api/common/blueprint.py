"""Blueprints of the API, request parsing, and helpers for the OpenAPI description."""

from __future__ import annotations

import gzip
from json import JSONDecodeError
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import marshmallow as ma
from flask import current_app, g, request, url_for
from flask_smorest import Blueprint as SmorestBlueprint
from webargs.flaskparser import FlaskParser

from receiver.web.api.common.schemas import PROBLEMS, ProblemSchema
from receiver.web.errors import MEDIA_TYPE, Invalid, Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flask import Request, Response


_COMPRESSED_FROM_BYTES = 1024
_COMPRESSION_LEVEL = 3  # a page of 1000 messages: 440 kB become 35 in 4 ms; level 6 needs 12 ms for 30 kB


class Parser(FlaskParser):
    """Rejects unknown parameters instead of ignoring them."""

    DEFAULT_UNKNOWN_BY_LOCATION = {"query": ma.RAISE, "json": ma.RAISE, "headers": ma.EXCLUDE}  # noqa: RUF012  (as in the base class)

    def load_querystring(self, req: Request, schema: ma.Schema) -> Any:
        """Return the query's parameters. Raises Invalid if one is repeated: only one of its values would count."""
        if repeated := [name for name, values in req.args.lists() if len(values) > 1]:
            raise Invalid({f"#/{name}": "given more than once" for name in repeated})
        return super().load_querystring(req, schema)

    def _raw_load_json(self, req: Request) -> Any:
        return read_json() if req.get_data() else ma.missing


class Blueprint(SmorestBlueprint):  # type: ignore[misc]  # flask-smorest has no types
    """A resource of the API."""

    ARGUMENTS_PARSER = Parser()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.after_request(_link_next_page)
        self.after_request(shortened)

    def route(self, rule: str, **options: Any) -> Any:
        """Serve a path, with or without a trailing slash."""
        return super().route(rule, strict_slashes=False, **options)

    @staticmethod
    def _make_doc_response_schema(schema: Any) -> Any:
        """Return what describes an answer: the class of its schema, so that the copies of a description stay small.

        A description is copied whole for each decorator of a view, with each field of each instance in it. All those
        copies took 9 MB.
        """
        return type(schema) if isinstance(schema, ma.Schema) else schema


def _link_next_page(response: Response) -> Response:
    """Return the response with a link to the next page (RFC 8288), by path: a proxy's scheme and host are its own.

    It is what the client has asked for, with another cursor: a search by POST has its filters elsewhere, and no link.
    """
    cursor = g.get("next_cursor")
    if cursor is not None and request.method in ("GET", "HEAD"):
        given = {name: value for name, value in request.args.items() if name != "after"}  # of events: the same
        query = urlencode(given | {"cursor": cursor})
        response.headers["Link"] = f'<{quote(request.script_root + request.path)}?{query}>; rel="next"'
    return response


def shortened(response: Response) -> Response:
    """Return a JSON response as short as the client can take it: not at all if it has just that, or compressed."""
    if response.is_json:
        _require_changed(response)
        _compress(response)
    return response


def _require_changed(response: Response) -> None:
    """Give the response the ETag of its body, and leave out a body that the client has (RFC 9110)."""
    if request.method in ("GET", "HEAD") and response.status_code == 200:
        response.add_etag()
        response.make_conditional(request)


def _compress(response: Response) -> None:
    response.vary.add("Accept-Encoding")
    accepts = request.accept_encodings.quality("gzip") > 0
    if not accepts or len(body := response.get_data()) < _COMPRESSED_FROM_BYTES:
        return
    if response.status_code != 304:  # its body is not sent, its ETag is that of the compressed one
        response.set_data(gzip.compress(body, _COMPRESSION_LEVEL))
        response.headers["Content-Encoding"] = "gzip"
    if (tag := response.get_etag()[0]) is not None:
        response.set_etag(tag, weak=True)  # of the same JSON in other bytes


def location(endpoint: str, **values: Any) -> dict[str, str]:
    """Return the header that says where something new is."""
    return {"Location": url_for(endpoint, **values)}


def read_json() -> Any:
    """Return the parsed JSON body of the current request. Raises Unreadable."""
    if not request.is_json:
        raise Unreadable(415, "the body is not declared as JSON: send Content-Type: application/json")
    try:
        return current_app.json.loads(request.get_data())
    except JSONDecodeError as error:
        raise Unreadable(400, f"not JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise Unreadable(400, f"not UTF-8 at byte {error.start + 1}: JSON must be UTF-8") from None


def documents(blueprint: Blueprint, *statuses: int) -> Callable[[Any], Any]:
    """Return a decorator that documents the errors of a call."""

    def decorate(view: Any) -> Any:
        for status in (*statuses, *((429,) if 401 in statuses else ())):
            view = blueprint.alt_response(
                status, schema=ProblemSchema, description=PROBLEMS[status], content_type=MEDIA_TYPE
            )(view)
        return view

    return decorate


def operation(blueprint: Blueprint, name: str, links: Mapping[str, Any] | None = None) -> Callable[[Any], Any]:
    """Return a decorator that sets the operation id and the links of a call."""
    doc: dict[str, Any] = {"operationId": name}
    if links:
        doc["responses"] = {200: {"links": links}}
    decorate: Callable[[Any], Any] = blueprint.doc(**doc)
    return decorate


def link(name: str, **parameters: str) -> dict[str, Any]:
    """Return an OpenAPI link; `parameters` maps names to the places of their values in the answer's body."""
    return {
        "operationId": name,
        "parameters": {parameter: f"$response.body#/{place}" for parameter, place in parameters.items()},
    }


def next_page(name: str, parameter: str = "cursor") -> dict[str, Any]:
    """Return the link to the next page of a list."""
    return link(name, **{parameter: "next_cursor"}) | {"description": "With the same filters."}


def inbound_event_links(name: str, one: str) -> dict[str, Any]:
    """Return the links of a list of receipts or replies; `one`: what an item is."""
    return {
        "next_page": next_page(name),
        "newest": link(f"get_{one}", **{f"{one}_id": "items/0/id"}),
        "message": link("get_message", message_id="items/0/message_id"),
        "push": link("get_push", push_id="items/0/push_id"),
    }


def documents_text(blueprint: Blueprint, content_type: str) -> Callable[[Any], Any]:
    """Return a decorator that documents another content type, chosen by `Accept`."""
    decorate: Callable[[Any], Any] = blueprint.alt_response(200, schema={"type": "string"}, content_type=content_type)
    return decorate
