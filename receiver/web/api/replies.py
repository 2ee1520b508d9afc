"""`/replies`: replies from phones."""

from __future__ import annotations

from typing import Any

from flask.views import MethodView

from receiver.messages import queries
from receiver.web.api.common import (
    Blueprint,
    answer_page,
    audit_look_up,
    documents,
    inbound_event_links,
    list_schema,
    operation,
    row_json,
    row_schema,
)
from receiver.web.lists.filters import ReplyFilterSchema

blueprint = Blueprint("replies", __name__, description="Replies (MO) as pushed by the platform.")


@blueprint.route("/replies")
class Replies(MethodView):
    """List replies."""

    @operation(blueprint, "list_replies", links=inbound_event_links("list_replies"))
    @documents(blueprint, 401, 403, 422, 503)
    @blueprint.arguments(ReplyFilterSchema, location="query")
    @blueprint.response(200, list_schema(row_schema(queries.ReplyRow, "Reply"), "ReplyList"))
    def get(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return replies, newest first."""
        audit_look_up("replies.read", mobile=arguments.get("mobile"))
        return answer_page(
            "replies", arguments, lambda connection, page, _: queries.list_replies(connection, page), row_json
        )
