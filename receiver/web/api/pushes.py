"""`/pushes`: the journal, and replay."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import marshmallow as ma
from flask.views import MethodView

from receiver.core import Kind
from receiver.intake import service
from receiver.messages import queries
from receiver.messages.queries import PushRow
from receiver.web import runtime
from receiver.web.api.common import (
    Blueprint,
    OneOf,
    OurTime,
    answer_page,
    documents,
    link,
    list_schema,
    next_page,
    operation,
)
from receiver.web.auth import caller
from receiver.web.lists.filters import PUSH_OUTCOMES, PushFilterSchema
from receiver.web.lists.pages import find_push

blueprint = Blueprint("pushes", __name__, description="The journal: every push as received.")

_KINDS = [kind.value for kind in Kind]


class PushSchema(ma.Schema):
    """One request of the platform."""

    id = ma.fields.String(required=True, metadata={"format": "uuid", "example": "019ab3c1-7f2e-7d10-8a4b-3c5d6e7f8091"})
    account = ma.fields.String(required=True)
    kind = ma.fields.Raw(required=True, metadata={"anyOf": [{"type": "string", "enum": _KINDS}, {"type": "null"}]})
    outcome = ma.fields.String(required=True, validate=OneOf(PUSH_OUTCOMES))
    error = ma.fields.String(
        required=True, allow_none=True, metadata={"description": "Every fault, as `field: reason`."}
    )
    flags = ma.fields.List(
        ma.fields.String(),
        required=True,
        metadata={"description": "Parsing notes: `gb18030`, `damaged`, `fraction_dropped`, `clock`, `path`."},
    )
    method = ma.fields.String(required=True)
    query = ma.fields.String(required=True, allow_none=True, metadata={"description": "With scope `pii` only."})
    received_at = OurTime(required=True)
    remote_addr = ma.fields.String(required=True)
    content_type = ma.fields.String(required=True, allow_none=True)
    body_base64 = ma.fields.String(required=True, allow_none=True, metadata={"description": "With scope `pii` only."})


@blueprint.route("/pushes")
class Pushes(MethodView):
    """The journal."""

    @operation(
        blueprint,
        "list_pushes",
        links={"next_page": next_page("list_pushes"), "newest": link("get_push", push_id="items/0/id")},
    )
    @documents(blueprint, 401, 403, 422, 503)
    @blueprint.arguments(PushFilterSchema, location="query")
    @blueprint.response(200, list_schema(PushSchema, "PushList"))
    def get(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return pushes, newest first."""
        if caller().sees_numbers:
            runtime().audit(caller().name, "pushes.read")
        return answer_page(
            "pushes", arguments, lambda connection, page, _: queries.list_pushes(connection, page), _shown
        )


@blueprint.route("/pushes/<string:push_id>")
class PushDetail(MethodView):
    """One push."""

    @operation(blueprint, "get_push", links={"replay": link("replay_push", push_id="id")})
    @documents(blueprint, 401, 403, 404, 503)
    @blueprint.response(200, PushSchema)
    def get(self, push_id: str) -> dict[str, Any]:
        """Return one push, by the `X-Push-Id` of its acknowledgement."""
        push = find_push(push_id)
        if caller().sees_numbers:
            runtime().audit(caller().name, "push.read", push_id=str(push.id))
        return _shown(push)


@blueprint.route("/pushes/<string:push_id>/replay")
class PushReplay(MethodView):
    """Parse a push again."""

    @operation(blueprint, "replay_push", links={"push": link("get_push", push_id="id")})
    @documents(blueprint, 401, 403, 404, 503)
    @blueprint.response(200, PushSchema)
    def post(self, push_id: str) -> dict[str, Any]:
        """Parse a push again with the current settings.

        Adds missing data. A different result replaces the rows that only this push created. If an accepted push can no
        longer be parsed, its rows stay.
        """
        services = runtime()
        service.replay(services.trail, services.admission, caller().name, find_push(push_id))
        return _shown(find_push(push_id))


def _shown(push: PushRow) -> dict[str, Any]:
    in_full = caller().sees_numbers
    return {
        **{name: getattr(push, name) for name in PushRow.__slots__ if name not in ("query", "body", "endpoint")},
        "query": push.query.decode("latin-1") if in_full else None,
        "body_base64": b64encode(push.body).decode() if in_full else None,
    }
