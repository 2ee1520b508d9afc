"""Every address of the application, and who may go there: a new one fails here until it is in this list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from receiver.web import auth
from receiver.web.auth import CONSOLE
from receiver.web.console import session

if TYPE_CHECKING:
    from flask import Flask

# Beside it, the policies' own words: a scope of a key, what a role may do, or how it is open without either.
ROUTES = {
    "GET /": "to all",
    "GET /api/v1/audit": "audit",
    "GET /api/v1/balance": "messages:send",
    "GET /api/v1/docs": "to all",
    "GET /api/v1/docs/": "to all",
    "GET /api/v1/docs/<path:name>": "to all",
    "GET /api/v1/errors": "to all",
    "GET /api/v1/events": "read",
    **{
        f"GET /api/v1/exports/{name}{ending}": "export"
        for name in ("messages", "receipts", "replies")
        for ending in ("", ".csv", ".ndjson", ".parquet", ".xlsx")
    },
    "GET /api/v1/messages": "read",
    "POST /api/v1/messages": "messages:write",
    "GET /api/v1/messages/<row_id:message_id>": "read",
    "POST /api/v1/messages/search": "read",
    "POST /api/v1/messages/verified": "messages:write",
    "GET /api/v1/openapi.json": "to all",
    "GET /api/v1/pushes": "pushes",
    "GET /api/v1/pushes/<string:push_id>": "pushes",
    "POST /api/v1/pushes/<string:push_id>/replay": "pushes",
    "GET /api/v1/receipts": "read",
    "GET /api/v1/receipts/<row_id:receipt_id>": "read",
    "GET /api/v1/replies": "read",
    "GET /api/v1/replies/<row_id:reply_id>": "read",
    "GET /api/v1/reports/billing": "reports",
    "GET /api/v1/reports/busiest": "reports",
    "GET /api/v1/reports/delivery": "reports",
    "GET /api/v1/webhooks": "webhooks",
    "POST /api/v1/webhooks": "webhooks",
    "GET /api/v1/webhooks/<string:name>": "webhooks",
    "DELETE /api/v1/webhooks/<string:name>": "webhooks",
    "PATCH /api/v1/webhooks/<string:name>": "webhooks",
    "GET /api/v1/webhooks/<string:name>/deliveries": "webhooks",
    "GET /api/v1/webhooks/<string:name>/dead": "webhooks",
    "POST /api/v1/webhooks/<string:name>/pause": "webhooks",
    "POST /api/v1/webhooks/<string:name>/replay": "webhooks",
    "POST /api/v1/webhooks/<string:name>/resume": "webhooks",
    "POST /api/v1/webhooks/<string:name>/rotate": "webhooks",
    "POST /api/v1/webhooks/<string:name>/test": "webhooks",
    "POST /api/v1/verify-codes": "messages:send",
    "GET /console": "to all",
    "GET /console/": "to all who have logged in",
    "GET /console/<path:path>": "to all who have logged in",
    "GET /console/account": "to all who have logged in",
    "POST /console/account": "to all who have logged in",
    "GET /console/access": "administer",
    "GET /console/advice": "administer",
    "POST /console/advice": "administer",
    "GET /console/audit": "administer",
    "POST /console/audit": "administer",
    "POST /console/audit/export": "administer",
    "GET /console/banner": "to all who have logged in",
    "GET /console/incidents": "to all who have logged in",
    "GET /console/runbook": "to all who have logged in",
    "GET /console/docs": "to all who have logged in",
    "GET /console/docs/<path:path>": "to all who have logged in",
    "GET /console/docs/images/<name>": "to all who have logged in",
    "GET /console/tail": "read the journal and replay",
    "GET /console/test-message": "send a test message",
    "GET /console/test-message/<row_id:message_id>": "send a test message",
    "POST /console/test-message": "send a test message",
    "GET /console/exports": "read lists",
    "GET /console/opt-outs": "read lists",
    "POST /console/opt-outs/export": "export",
    "GET /console/exports/<name>": "read lists",
    "GET /console/keys": "administer",
    "POST /console/keys": "administer",
    "POST /console/keys/revoke": "administer",
    "POST /console/language": "to all",
    "GET /console/login": "to all",
    "POST /console/login": "to all",
    "POST /console/logout": "after the password, before the second factor",
    "POST /console/look-up": "look up",
    "POST /console/look-up/row": "look up",
    "GET /console/look-up/<token>": "look up",
    "GET /console/look-up/<token>/answer": "look up",
    "GET /console/cases": "read lists",
    "POST /console/messages/<row_id:message_id>/notes": "look up",
    "GET /console/messages": "read lists",
    "POST /console/messages/numbers": "look up",
    "POST /console/replies/numbers": "look up",
    "GET /console/messages/<row_id:message_id>": "read lists",
    "GET /console/messages/<row_id:message_id>/reveal": "look up",
    "POST /console/messages/<row_id:message_id>/reveal": "look up",
    "GET /console/oidc": "to all",
    "GET /console/oidc/done": "to all",
    "GET /console/pushes": "read the journal and replay",
    "GET /console/pushes/<push_id>": "read the journal and replay",
    "POST /console/pushes/<push_id>/replay": "read the journal and replay",
    "POST /console/pushes/numbers": "read the journal and replay",
    "POST /console/pushes/replay": "read the journal and replay",
    "POST /console/pushes/seen": "read the journal and replay",
    "GET /console/replies": "read lists",
    "GET /console/reports": "read reports",
    "GET /console/reports/<name>.csv": "read reports",
    "GET /console/second-factor": "after the password, before the second factor",
    "POST /console/second-factor": "after the password, before the second factor",
    "GET /console/setup": "administer",
    "POST /console/setup/self-test": "administer",
    "GET /console/static/<path:filename>": "to all",
    "GET /console/status": "to all who have logged in",
    "GET /console/webhooks": "administer",
    "POST /console/webhooks": "administer",
    "GET /console/webhooks/<name>": "administer",
    "POST /console/webhooks/<name>": "administer",
    "GET /console/webhooks/<name>/dead": "administer",
    "POST /console/webhooks/change": "administer",
    "GET /console/users": "administer",
    "POST /console/users": "administer",
    "POST /console/users/<name>": "administer",
    "GET /healthz": "to all",
    "GET /metrics": "by address",
    "* /<push_path:written>": "by the secret in the path",
    "GET /readyz": "to all",
}


def test_every_route_is_listed_with_its_policy(app: Flask) -> None:
    found = {}
    for rule in app.url_map.iter_rules():
        methods = sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
        for method in ["*"] if rule.endpoint == "push.push" else methods:  # a push may come by any
            if rule.endpoint.startswith(f"{CONSOLE}."):
                policy = session.POLICIES.get(rule.endpoint)
            else:
                policy = auth.policy_for(rule.endpoint, method)  # type: ignore[assignment]
            found[f"{method} {rule.rule}"] = policy.value if policy else "closed"
    assert found == ROUTES
