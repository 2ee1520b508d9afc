"""`/receipts`: delivery receipts."""

from __future__ import annotations

from typing import Any

from flask.views import MethodView

from receiver.core import NotFound
from receiver.messages import queries
from receiver.web import runtime
from receiver.web.api.common import (
    Blueprint,
    answer_page,
    audit_list,
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
from receiver.web.lists.filters import ReceiptFilterSchema

blueprint = Blueprint("receipts", __name__, description="Delivery receipts as pushed by the platform.")

ReceiptSchema = row_schema(queries.ReceiptRow, "Receipt")


@blueprint.route("/receipts")
class Receipts(MethodView):
    """List receipts."""

    @operation(blueprint, "list_receipts", links=inbound_event_links("list_receipts", "receipt"))
    @documents(blueprint, 401, 403, 422, 503)
    @blueprint.arguments(ReceiptFilterSchema, location="query")
    @blueprint.response(200, list_schema(ReceiptSchema, "ReceiptList"))
    def get(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return receipts, newest first."""
        audit_list("receipts", arguments)
        return answer_page(
            "receipts", arguments, lambda connection, page, _: queries.list_receipts(connection, page), row_json
        )


@blueprint.route("/receipts/<row_id:receipt_id>")
class Receipt(MethodView):
    """One receipt."""

    @operation(
        blueprint,
        "get_receipt",
        links={"message": link("get_message", message_id="message_id"), "push": link("get_push", push_id="push_id")},
    )
    @documents(blueprint, 401, 403, 404, 503)
    @blueprint.response(200, ReceiptSchema)
    def get(self, receipt_id: str) -> dict[str, Any]:
        """Return one receipt."""
        found = runtime().ask(lambda connection: queries.find_receipt(connection, int(receipt_id), caller().accounts))
        if found is None:
            raise NotFound("there is no receipt with this id")
        if caller().sees_numbers:
            audit_look_up("receipt.read", receipt_id=receipt_id)
        return row_json(found)
