"""`/audit`: the audit log."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from flask.views import MethodView

from receiver.audit import as_fields
from receiver.web.api.common import (
    Blueprint,
    documents,
    list_schema,
    next_page,
    operation,
)
from receiver.web.auth import caller
from receiver.web.error_codes import ErrorCode
from receiver.web.errors import Denied
from receiver.web.lists.filters import AuditFilterSchema
from receiver.web.lists.pages import as_page, read_audit

blueprint = Blueprint("audit", __name__, description="The audit log: who read and who changed what.")


class AuditEntrySchema(ma.Schema):
    """One entry."""

    id = ma.fields.String(required=True)
    position = ma.fields.Integer(
        required=True, allow_none=True, metadata={"description": "Position in the hash chain; null: not of the chain."}
    )
    at = ma.fields.String(required=True, metadata={"format": "date-time"})
    actor = ma.fields.String(required=True)
    action = ma.fields.String(required=True)
    detail = ma.fields.Dict(required=True)
    hash = ma.fields.String(
        required=True, allow_none=True, metadata={"description": "SHA-256 over the entry and the hash before it."}
    )


@blueprint.route("/audit")
class Audit(MethodView):
    """The audit entries."""

    @operation(blueprint, "list_audit", links={"next_page": next_page("list_audit")})
    @documents(blueprint, 401, 403, 422, 503)
    @blueprint.arguments(AuditFilterSchema, location="query")
    @blueprint.response(200, list_schema(AuditEntrySchema, "AuditList"))
    def get(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return audit entries, newest first. Not for keys bound to accounts: entries concern all accounts."""
        if caller().accounts is not None:
            raise Denied(
                403, ErrorCode.ACCOUNT_CLOSED, "this key is bound to accounts, and the audit log covers all accounts"
            )
        entries, next_cursor = read_audit(arguments)
        return as_page([as_fields(entry) for entry in entries], next_cursor)
