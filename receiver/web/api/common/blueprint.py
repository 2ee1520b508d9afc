"""What the resources share: fields, filters, pages, masking."""

from __future__ import annotations

from json import JSONDecodeError
from typing import TYPE_CHECKING, Any

import marshmallow as ma
from flask import current_app, request
from flask_smorest import Blueprint as SmorestBlueprint
from webargs.flaskparser import FlaskParser

from receiver.web.api.common.schemas import PROBLEMS, ProblemSchema
from receiver.web.errors import MEDIA_TYPE, Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flask import Request


class Parser(FlaskParser):
    """Refuses a parameter that nobody knows, where it would otherwise be passed over in silence."""

    DEFAULT_UNKNOWN_BY_LOCATION = {"query": ma.RAISE, "json": ma.RAISE, "headers": ma.EXCLUDE}  # noqa: RUF012  (as in the base class)

    def _raw_load_json(self, req: Request) -> Any:
        return read_json() if req.get_data() else ma.missing


class Blueprint(SmorestBlueprint):  # type: ignore[misc]  # flask-smorest has no types
    """A resource of the API."""

    ARGUMENTS_PARSER = Parser()

    def route(self, rule: str, **options: Any) -> Any:
        """Serve a path, with a slash at its end or without."""
        return super().route(rule, strict_slashes=False, **options)


def read_json() -> Any:
    """Return what the body of the present request says. Raises Unreadable."""
    if not request.is_json:
        raise Unreadable(415, "the body is not declared as JSON: send it with Content-Type: application/json")
    try:
        return current_app.json.loads(request.get_data())
    except JSONDecodeError as error:
        raise Unreadable(400, f"not JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise Unreadable(400, f"not UTF-8 at byte {error.start + 1}: JSON is always UTF-8") from None


# --- Fields -------------------------------------------------------------------------------------------


# --- Schemas ------------------------------------------------------------------------------------------


def documents(blueprint: Blueprint, *statuses: int) -> Callable[[Any], Any]:
    """Document the errors of a call."""

    def decorate(view: Any) -> Any:
        for status in (*statuses, *((429,) if 401 in statuses else ())):
            view = blueprint.alt_response(
                status, schema=ProblemSchema, description=PROBLEMS[status], content_type=MEDIA_TYPE
            )(view)
        return view

    return decorate


def operation(blueprint: Blueprint, name: str, links: Mapping[str, Any] | None = None) -> Callable[[Any], Any]:
    """Name a call for generated clients, and say where its answer leads."""
    doc: dict[str, Any] = {"operationId": name}
    if links:
        doc["responses"] = {200: {"links": links}}
    decorate: Callable[[Any], Any] = blueprint.doc(**doc)
    return decorate


def link(name: str, **parameters: str) -> dict[str, Any]:
    """A call that an answer leads to, its `parameters` by the place of their values in the answer's body."""
    return {
        "operationId": name,
        "parameters": {parameter: f"$response.body#/{place}" for parameter, place in parameters.items()},
    }


def next_page(name: str, parameter: str = "cursor") -> dict[str, Any]:
    """Where a list goes on."""
    return link(name, **{parameter: "next_cursor"}) | {"description": "With the same filters."}


def sighting_links(name: str) -> dict[str, Any]:
    """Where a list of receipts or replies leads."""
    return {
        "next_page": next_page(name),
        "message": link("get_message", message_id="items/0/message_id"),
        "push": link("get_push", push_id="items/0/push_id"),
    }


def documents_text(blueprint: Blueprint, content_type: str) -> Callable[[Any], Any]:
    """Document that the answer comes as this instead of JSON, where `Accept` asks for it."""
    decorate: Callable[[Any], Any] = blueprint.alt_response(200, schema={"type": "string"}, content_type=content_type)
    return decorate


# --- Accounts -----------------------------------------------------------------------------------------


# --- Pages --------------------------------------------------------------------------------------------


# --- Waiting ------------------------------------------------------------------------------------------


# --- What a caller sees -------------------------------------------------------------------------------
