"""Access control: one table of policies, one check before every request. Routes outside the table are closed."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from flask import after_this_request, current_app, g, request

from receiver.auth import api_keys
from receiver.auth.address_throttle import Throttle
from receiver.auth.api_keys import ApiKey, Scope
from receiver.config import within
from receiver.core import DatabaseMisconfigured, DatabaseUnavailable, still_lasts
from receiver.db.engine import RowRejected
from receiver.intake.admission import client_address
from receiver.web import denials, runtime
from receiver.web.error_codes import ErrorCode
from receiver.web.errors import Denied, answer_for, missing_scope

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from flask import Flask, Response

    from receiver.runtime import Runtime

CONSOLE = "console"  # the blueprint of the staff pages
_GUARD = "receiver.key_guard"
_FAILURES_MAX = 100  # wrong keys from one address
_FAILURES_SECONDS = 60.0
_VALID_SECONDS = 1.0


class Open(Enum):
    """Ways of access without a key."""

    TO_ALL = "to all"
    BY_PUSH_SECRET = "by the secret in the path"  # noqa: S105  (checked by the admission)
    BY_METRICS_ADDRESS = "by address"


# Endpoint (and method, where they differ): the access that it requires.
POLICIES: Mapping[str, Open | Scope | Mapping[str, Scope]] = {
    "push.push": Open.BY_PUSH_SECRET,
    "ops.home": Open.TO_ALL,
    "ops.console": Open.TO_ALL,
    "ops.healthz": Open.TO_ALL,
    "ops.readyz": Open.TO_ALL,
    "ops.metrics_page": Open.BY_METRICS_ADDRESS,
    "docs.page": Open.TO_ALL,
    "docs.page_with_slash": Open.TO_ALL,
    "docs.asset": Open.TO_ALL,
    "docs.errors": Open.TO_ALL,
    "api-docs.openapi_json": Open.TO_ALL,
    "reports.Busiest": {"GET": Scope.REPORTS},
    "messages.MessageVerified": {"POST": Scope.MESSAGES_WRITE},
    "messages.Messages": {"GET": Scope.READ, "POST": Scope.MESSAGES_WRITE},
    "messages.Message": Scope.READ,
    "messages.MessageSearch": Scope.READ,
    "receipts.Receipts": Scope.READ,
    "receipts.Receipt": Scope.READ,
    "replies.Replies": Scope.READ,
    "replies.Reply": Scope.READ,
    "events.Events": Scope.READ,
    **{
        f"exports.{name}{form}": Scope.EXPORT
        for name in ("Messages", "Receipts", "Replies")
        for form in ("", "Csv", "Ndjson", "Parquet", "Xlsx")
    },
    "pushes.Pushes": Scope.PUSHES,
    "pushes.PushDetail": Scope.PUSHES,
    "pushes.PushReplay": Scope.PUSHES,
    "sending.VerifyCodes": Scope.MESSAGES_SEND,
    "sending.Balance": Scope.MESSAGES_SEND,
    "webhooks.Webhooks": Scope.WEBHOOKS,
    "webhooks.OneWebhook": Scope.WEBHOOKS,
    "webhooks.Pause": Scope.WEBHOOKS,
    "webhooks.Resume": Scope.WEBHOOKS,
    "webhooks.Rotate": Scope.WEBHOOKS,
    "webhooks.Test": Scope.WEBHOOKS,
    "webhooks.Dead": Scope.WEBHOOKS,
    "webhooks.Deliveries": Scope.WEBHOOKS,
    "webhooks.Replay": Scope.WEBHOOKS,
    "reports.Billing": Scope.REPORTS,
    "reports.Delivery": Scope.REPORTS,
    "audit.Audit": Scope.AUDIT,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """The key or user that makes a request, and what it may see."""

    name: str  # in the audit
    sees_numbers: bool  # in full
    accounts: tuple[str, ...] | None = None  # None: every account


def caller() -> Caller:
    """Return the caller of the current request; only where a key or a login was required."""
    found = g.caller
    assert isinstance(found, Caller)  # noqa: S101
    return found


def policy_for(endpoint: str, method: str) -> Open | Scope | None:
    """Return the policy of a route; None: it has none."""
    policy = POLICIES.get(endpoint)
    if isinstance(policy, Open | Scope) or policy is None:
        return policy
    return policy.get("GET" if method == "HEAD" else method)


def _check() -> Response | None:
    """Return the answer to a request for the methods of a path, which all may know; None: the request goes on.

    Raises Denied.
    """
    if request.endpoint is None or request.routing_exception is not None:
        return None  # no such route: the answer is 404 or 405 for every caller
    if request.blueprint == CONSOLE:
        return None  # it has its own table and check, by role
    if request.method == "OPTIONS" and policy_for(request.endpoint, "OPTIONS") is not Open.BY_PUSH_SECRET:
        methods = current_app.make_default_options_response()
        methods.status_code = 204
        return methods
    policy = policy_for(request.endpoint, request.method)
    if policy is None:
        raise Denied(403, ErrorCode.FORBIDDEN, "this route has no access policy")
    if policy is Open.BY_METRICS_ADDRESS:
        _check_address()
    elif isinstance(policy, Scope):
        key = _key_with(policy)
        _record_use(key)
        g.caller = Caller(name=f"key:{key.name}", sees_numbers=Scope.PII in key.scopes, accounts=key.accounts)
    return None


def check_again() -> None:
    """Check the caller's key again after a wait. Raises Denied."""
    policy = policy_for(request.endpoint or "", request.method)
    if isinstance(policy, Scope):
        _key_with(policy)


def _check_address() -> None:
    if not within(_address(), runtime().settings.metrics_allow):
        raise Denied(403, ErrorCode.FORBIDDEN, "this address may not read metrics (RECEIVER_METRICS_ALLOW)")


def _address() -> str:
    peer, forwarded = request.environ.get("REMOTE_ADDR") or "", request.headers.get("X-Forwarded-For")
    return client_address(peer, forwarded, runtime().settings.trusted_proxies)


def _key_with(scope: Scope) -> ApiKey:
    given = request.headers.get("Authorization", "")
    kind, _, token = given.partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise Denied(401, ErrorCode.UNAUTHORIZED, "send a key: Authorization: Bearer KEY")
    services = runtime()
    key = _find_key(services, token.strip())
    if key is not None:
        g.refused_key = f"key:{key.name}"  # unless it is not
    if key is None or not key.valid(services.now()):
        _guard().failures.note(_address())
        raise Denied(
            401,
            ErrorCode.UNAUTHORIZED,
            "this key is unknown, revoked or expired",
            challenge={"error": "invalid_token"},
        )
    if scope not in key.scopes:
        raise missing_scope(scope.value, f"this key lacks the scope {scope.value}")
    del g.refused_key
    return key


_USE_PATIENCE_SECONDS = 0.4


def _record_use(key: ApiKey) -> None:
    """Record the use of a key, at most once a minute and after the answer is sent."""
    services = runtime()
    now = services.now()
    used_at = _guard().used_at
    last = max(filter(None, (key.last_used_at, used_at.get(key.id))), default=None)
    if last is not None and still_lasts(last, api_keys.USED_EVERY, now):
        return
    used_at[key.id] = now

    def note() -> None:
        with suppress(DatabaseUnavailable, DatabaseMisconfigured, RowRejected):
            services.require_database()
            services.database.write(
                lambda connection: api_keys.note_used(connection, key.id, now), patience_seconds=_USE_PATIENCE_SECONDS
            )

    @after_this_request
    def _then(response: Response) -> Response:
        response.call_on_close(note)
        return response


_SEEN_MAX = 1000


def _find_key(services: Runtime, token: str) -> ApiKey | None:
    """Return the key of a token, None where there is none. While the database is unavailable, use keys seen before.

    After too many wrong keys, an address costs no further look-ups. A valid key still works from there: keys cannot
    be guessed, and one broken client must not lock out an office behind the same address.
    Raises Denied.
    """
    digest = api_keys.digest_of(token)
    seen = _guard().seen
    try:
        wait_seconds = _guard().failures.wait_seconds(_address())
        if wait_seconds and digest not in _guard().valid_digests(services):
            raise Denied(
                429, ErrorCode.TOO_MANY_FAILURES, "too many wrong keys from this address", retry_after=wait_seconds
            )
        key = services.ask_present(lambda connection: api_keys.find_key(connection, token))
    except (DatabaseUnavailable, DatabaseMisconfigured):
        if digest in seen:
            return seen[digest]
        raise
    seen.pop(digest, None)
    if key is not None:
        seen[digest] = key
        if len(seen) > _SEEN_MAX:
            seen.popitem(last=False)
    return key


def _denied(error: Denied) -> Response:
    """Audit the refusal and answer it."""
    known = g.get("caller")
    actor = g.get("refused_key") or (known.name if known else "nobody")
    route = f"{request.method} {request.url_rule.rule if request.url_rule else '?'}"
    denials.record(actor, "denied", address=_address(), route=route, reason=error.code)
    return answer_for(error)


class _Guard:
    """What an application remembers of keys, each of its own database: two may give one id to two keys."""

    def __init__(self) -> None:
        self.seen: OrderedDict[bytes, ApiKey] = OrderedDict()  # by digest: keys for times without a database
        self.used_at: dict[int, datetime] = {}  # by key: when this process last recorded a use
        self.failures = Throttle(failures_max=_FAILURES_MAX, seconds=_FAILURES_SECONDS)
        self._valid: frozenset[bytes] = frozenset()
        self._valid_until = -math.inf  # by time.monotonic()

    def valid_digests(self, services: Runtime) -> frozenset[bytes]:
        """Return the digests of all valid keys, read at most once a second."""
        if time.monotonic() >= self._valid_until:
            self._valid = services.ask_present(
                lambda connection: api_keys.list_valid_digests(connection, services.now())
            )
            self._valid_until = time.monotonic() + _VALID_SECONDS
        return self._valid


def _guard() -> _Guard:
    found = current_app.extensions[_GUARD]
    assert isinstance(found, _Guard)  # noqa: S101
    return found


def register(app: Flask) -> None:
    """Check every request of the application."""
    app.extensions[_GUARD] = _Guard()
    denials.register(app)
    app.before_request(_check)
    app.register_error_handler(Denied, _denied)
