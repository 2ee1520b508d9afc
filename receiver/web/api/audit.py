"""`/audit`: the audit log."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import marshmallow as ma
from flask.views import MethodView

from receiver.audit import AuditFilter, as_fields, list_entries
from receiver.core.cursors import Cursors
from receiver.web import runtime
from receiver.web.api.common import (
    Blueprint,
    InputTime,
    MobileField,
    PageSchema,
    Text,
    documents,
    list_schema,
    next_page,
    operation,
)
from receiver.web.auth import caller
from receiver.web.errors import Denied

blueprint = Blueprint("audit", __name__, description="The audit log: who read and who changed what.")


class AuditFilterSchema(PageSchema):
    """Filters of the audit log."""

    actor = Text(metadata={"description": "`user:NAME`, `key:NAME`, `cli`, …"})
    action = Text(metadata={"description": "`look_up`, `number.reveal`, `denied`, …"})
    mobile = MobileField(metadata={"description": "Entries about this number, which is stored as a keyed hash."})
    since = InputTime(metadata={"description": "Then or later."})
    until = InputTime(metadata={"description": "Before then."})


class AuditEntrySchema(ma.Schema):
    """One entry."""

    id = ma.fields.String(required=True)
    position = ma.fields.Integer(
        required=True, allow_none=True, metadata={"description": "Position in the hash chain; null: not added yet."}
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
            raise Denied(403, "account_closed", "this key is bound to accounts, and the audit log covers all accounts")
        return answer_audit(arguments)


def audit_filter_of(arguments: dict[str, Any]) -> AuditFilter:
    """Return the filter of loaded arguments; a number becomes its keyed hash."""
    wanted = {name: value for name, value in arguments.items() if name in ("actor", "action", "since", "until")}
    mobile = arguments.get("mobile")
    return AuditFilter(**wanted, mobile_hmac=None if mobile is None else runtime().mobile_hmac(mobile))


def answer_audit(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return one page of entries, newest first; the read is audited too. Raises InvalidCursor."""
    services, audit_filter, limit = runtime(), audit_filter_of(arguments), arguments["limit"]
    cursors = Cursors(services.shared_secret("cursor"), "audit", asdict(audit_filter))
    before = int(cursors.read(arguments["cursor"])[0]) if "cursor" in arguments else None
    services.audit(caller().name, "audit.read", mobile=arguments.get("mobile"))
    found = services.ask(lambda connection: list_entries(connection, audit_filter, limit=limit + 1, before=before))
    next_cursor = cursors.make(found[limit - 1].id) if len(found) > limit else None
    return {"items": [as_fields(entry) for entry in found[:limit]], "next_cursor": next_cursor}
