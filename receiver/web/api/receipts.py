"""`/receipts`: delivery receipts."""

from __future__ import annotations

from typing import Any

from flask.views import MethodView

from receiver.messages import queries
from receiver.web.api.common import (
    Blueprint,
    answer_page,
    audit_list,
    documents,
    inbound_event_links,
    list_schema,
    operation,
    row_json,
    row_schema,
)
from receiver.web.lists.filters import ReceiptFilterSchema

blueprint = Blueprint("receipts", __name__, description="Delivery receipts as pushed by the platform.")


@blueprint.route("/receipts")
class Receipts(MethodView):
    """List receipts."""

    @operation(blueprint, "list_receipts", links=inbound_event_links("list_receipts"))
    @documents(blueprint, 401, 403, 422, 503)
    @blueprint.arguments(ReceiptFilterSchema, location="query")
    @blueprint.response(200, list_schema(row_schema(queries.ReceiptRow, "Receipt"), "ReceiptList"))
    def get(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return receipts, newest first."""
        audit_list("receipts", arguments)
        return answer_page(
            "receipts", arguments, lambda connection, page, _: queries.list_receipts(connection, page), row_json
        )
