"""`/audit`: who did what."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import marshmallow as ma
from flask.views import MethodView

from receiver.audit import AuditFilter, as_fields, list_entries
from receiver.core import Cursors
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

blueprint = Blueprint("audit", __name__, description="Who looked at what, and who changed what.")


class AuditFilterSchema(PageSchema):
    """What the audit can be narrowed to."""

    actor = Text(metadata={"description": "Who: `user:NAME`, `key:NAME`, `cli`, …"})
    action = Text(metadata={"description": "What: `look_up`, `number.reveal`, `denied`, …"})
    mobile = MobileField(metadata={"description": "About this number, which the audit knows as a keyed hash."})
    since = InputTime(metadata={"description": "Then or later."})
    until = InputTime(metadata={"description": "Before then."})


class AuditEntrySchema(ma.Schema):
    """One entry."""

    id = ma.fields.String(required=True)
    position = ma.fields.Integer(
        required=True, allow_none=True, metadata={"description": "In the chain; null: not taken into it yet."}
    )
    at = ma.fields.String(required=True, metadata={"format": "date-time"})
    actor = ma.fields.String(required=True)
    action = ma.fields.String(required=True)
    detail = ma.fields.Dict(required=True)
    hash = ma.fields.String(required=True, allow_none=True, metadata={"description": "SHA-256, with the one before."})


@blueprint.route("/audit")
class Audit(MethodView):
    """The entries."""

    @operation(blueprint, "list_audit", links={"next_page": next_page("list_audit")})
    @documents(blueprint, 401, 403, 422, 503)
    @blueprint.arguments(AuditFilterSchema, location="query")
    @blueprint.response(200, list_schema(AuditEntrySchema, "AuditList"))
    def get(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """List entries, newest first. Not for a key that is bound to accounts: they are of every one."""
        if caller().accounts is not None:
            raise Denied(403, "account_closed", "this key is bound to accounts, and the audit is of every one")
        return answer_audit(arguments)


def asked_of(arguments: dict[str, Any]) -> AuditFilter:
    """Return what loaded arguments ask for, a number as its keyed hash."""
    wanted = {name: value for name, value in arguments.items() if name in ("actor", "action", "since", "until")}
    mobile = arguments.get("mobile")
    return AuditFilter(**wanted, mobile_hmac=None if mobile is None else runtime().mobile_hmac(mobile))


def answer_audit(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return one page of entries, newest first; that it was read is an entry too. Raises InvalidCursor."""
    parts, asked, limit = runtime(), asked_of(arguments), arguments["limit"]
    cursors = Cursors(parts.shared_secret("cursor"), "audit", asdict(asked))
    before = int(cursors.read(arguments["cursor"])[0]) if "cursor" in arguments else None
    parts.audit(caller().name, "audit.read", mobile=arguments.get("mobile"))
    found = parts.ask(lambda connection: list_entries(connection, asked, limit=limit + 1, before=before))
    next_cursor = cursors.make(found[limit - 1].id) if len(found) > limit else None
    return {"items": [as_fields(entry) for entry in found[:limit]], "next_cursor": next_cursor}
