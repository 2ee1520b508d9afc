"""`/replies`: replies from phones."""

from __future__ import annotations

from typing import Any

from flask.views import MethodView

from receiver.core import NotFound
from receiver.messages import queries
from receiver.web import runtime
from receiver.web.api.common import (
    Blueprint,
    answer_page,
    audit_look_up,
    documents,
    inbound_event_links,
    link,
    list_schema,
    operation,
    row_json,
    row_schema,
)
from receiver.web.auth import caller
from receiver.web.lists.filters import ReplyFilterSchema

blueprint = Blueprint("replies", __name__, description="Replies (MO) as pushed by the platform.")

ReplySchema = row_schema(queries.ReplyRow, "Reply")


@blueprint.route("/replies")
class Replies(MethodView):
    """List replies."""

    @operation(blueprint, "list_replies", links=inbound_event_links("list_replies", "reply"))
    @documents(blueprint, 401, 403, 422, 503)
    @blueprint.arguments(ReplyFilterSchema, location="query")
    @blueprint.response(200, list_schema(ReplySchema, "ReplyList"))
    def get(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return replies, newest first."""
        audit_look_up("replies.read", mobile=arguments.get("mobile"))
        return answer_page(
            "replies", arguments, lambda connection, page, _: queries.list_replies(connection, page), row_json
        )


@blueprint.route("/replies/<row_id:reply_id>")
class Reply(MethodView):
    """One reply."""

    @operation(
        blueprint,
        "get_reply",
        links={"message": link("get_message", message_id="message_id"), "push": link("get_push", push_id="push_id")},
    )
    @documents(blueprint, 401, 403, 404, 503)
    @blueprint.response(200, ReplySchema)
    def get(self, reply_id: str) -> dict[str, Any]:
        """Return one reply."""
        found = runtime().ask(lambda connection: queries.find_reply(connection, int(reply_id), caller().accounts))
        if found is None:
            raise NotFound("there is no reply with this id")
        audit_look_up("reply.read", reply_id=reply_id)
        return row_json(found)
