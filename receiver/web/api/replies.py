"""`/replies`: what people wrote back."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from flask.views import MethodView

from receiver.messages import queries
from receiver.web.api.common import (
    Blueprint,
    PlatformTime,
    SightingFilterSchema,
    SightingSchema,
    StrictBoolean,
    Text,
    answer_page,
    audit_look_up,
    documents,
    list_schema,
    operation,
    shown,
    sighting_links,
)

blueprint = Blueprint("replies", __name__, description="Replies (MO), as the platform pushed them.")


class ReplyFilterSchema(SightingFilterSchema):
    """What replies can be narrowed to."""

    q = Text(metadata={"description": "Text that the content contains, in any case."})
    opt_out = StrictBoolean(metadata={"description": "Whether the reply asks for no more."})
    opt_out_review = StrictBoolean(
        metadata={"description": "Whether it may ask for no more, so that somebody should look."}
    )


class ReplySchema(SightingSchema):
    """A reply (mobile-originated message)."""

    task_id = ma.fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "Null where the platform gave none; then there is no message either."},
    )
    content = ma.fields.String(required=True, metadata={"description": "As written; NUL is shown as ␀."})
    opt_out = ma.fields.Boolean(
        required=True, metadata={"description": "The whole reply is one of `RECEIVER_OPT_OUT_WORDS`."}
    )
    opt_out_review = ma.fields.Boolean(
        required=True, metadata={"description": "It is not, but contains one or is nearly one."}
    )
    replied_at = PlatformTime(required=True)


@blueprint.route("/replies")
class Replies(MethodView):
    """The list."""

    @operation(blueprint, "list_replies", links=sighting_links("list_replies"))
    @documents(blueprint, 401, 403, 422, 503)
    @blueprint.arguments(ReplyFilterSchema, location="query")
    @blueprint.response(200, list_schema(ReplySchema, "ReplyList"))
    def get(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """List replies, newest first."""
        audit_look_up("replies.read", mobile=arguments.get("mobile"))
        return answer_page(
            "replies", arguments, lambda connection, page, _: queries.list_replies(connection, page), shown
        )
