"""`/webhooks`: webhook endpoints and their deliveries."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import marshmallow as ma
from flask.views import MethodView

from receiver.auth.api_keys import Scope
from receiver.core import NameTaken
from receiver.web import runtime
from receiver.web.api.common import (
    Blueprint,
    InputTime,
    OneOf,
    OurTime,
    PageSchema,
    StrictBoolean,
    StrictSchema,
    Text,
    WholeNumber,
    documents,
    list_schema,
    location,
    operation,
)
from receiver.web.auth import caller
from receiver.web.error_codes import ErrorCode
from receiver.web.errors import Denied, Invalid, missing_scope
from receiver.web.lists.pages import as_page, read_by_id
from receiver.webhooks import endpoints, service
from receiver.webhooks.endpoints import DeliveryState, Endpoint, EndpointState, EventType, PayloadFormat

if TYPE_CHECKING:
    from collections.abc import Sequence

blueprint = Blueprint("webhooks", __name__, description="Webhook endpoints and their deliveries.")

_FORMATS = [form.value for form in PayloadFormat]
_EVENTS = [event.value for event in EventType]
_STATES = [state.value for state in DeliveryState]
_IDS_MAX = 1000


def _headers(**options: Any) -> ma.fields.Dict:
    """Return the field of an endpoint's further headers."""
    text = "Further headers of each request, such as `Authorization`, all of them. The values are never shown again."
    values = ma.fields.String(required=True)
    return ma.fields.Dict(ma.fields.String(), values, metadata={"description": text}, **options)


class NewWebhookSchema(StrictSchema):
    """A webhook to create."""

    name = Text(required=True, max_chars=64, metadata={"pattern": service.NAME_PATTERN, "example": "shop"})
    url = Text(required=True, max_chars=2000, metadata={"example": "https://shop.example.com/hooks"})
    format = ma.fields.String(
        required=True,
        validate=OneOf(_FORMATS),
        metadata={"description": "`raw`: each push as the platform sent it. `webhooks`: Standard Webhooks."},
    )
    events = ma.fields.List(
        ma.fields.String(validate=OneOf(_EVENTS)),
        load_default=[],
        metadata={"description": "For `webhooks`. Empty: all events."},
    )
    accounts = ma.fields.List(
        Text(max_chars=64),
        validate=ma.validate.Length(min=1),
        metadata={"description": "Default: all accounts of the key."},
    )
    pii = StrictBoolean(
        load_default=False,
        metadata={"description": "Send full numbers and contents. This and `raw` require the scope `pii`."},
    )
    not_delivered_after_seconds = WholeNumber(
        validate=ma.validate.Range(1, service.LONGEST_WAIT_SECONDS),
        metadata={"description": "Send an event for a message that is not delivered after so many seconds."},
    )
    headers = _headers(load_default={})


class WebhookChangeSchema(StrictSchema):
    """What is to change of a webhook; what is left out stays."""

    url = Text(
        max_chars=2000,
        metadata={
            "example": "https://shop.example.com/hooks/v2",
            "description": "The secret stays; pending deliveries go to the new URL at once. With another scheme, host"
            " or port, further headers must be given again.",
        },
    )
    events = ma.fields.List(
        ma.fields.String(validate=OneOf(_EVENTS)), metadata={"description": "For `webhooks`. Empty: all events."}
    )
    accounts = ma.fields.List(
        Text(max_chars=64),
        validate=ma.validate.Length(min=1),
        allow_none=True,
        metadata={"description": "Null: every account."},
    )
    pii = StrictBoolean(metadata={"description": "Send full numbers and contents."})
    not_delivered_after_seconds = WholeNumber(
        validate=ma.validate.Range(1, service.LONGEST_WAIT_SECONDS),
        allow_none=True,
        metadata={"description": "Null: no such event. Another value applies to sends from now on."},
    )
    headers = _headers()


class WebhookSchema(ma.Schema):
    """A webhook and its state."""

    name = ma.fields.String(required=True)
    url = ma.fields.String(required=True, metadata={"description": "Without its query."})
    format = ma.fields.String(required=True, validate=OneOf(_FORMATS))
    events = ma.fields.List(ma.fields.String(), required=True)
    accounts = ma.fields.Raw(
        required=True,
        metadata={
            "anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}],
            "description": "Null: every account.",
        },
    )
    pii = ma.fields.Boolean(required=True)
    not_delivered_after_seconds = ma.fields.Integer(required=True, allow_none=True)
    header_names = ma.fields.List(ma.fields.String(), required=True, metadata={"description": "Of further headers."})
    created_at = OurTime(required=True)
    state = ma.fields.String(
        required=True,
        validate=OneOf([state.value for state in EndpointState]),
        metadata={"description": "`failing`: the last delivery got no 2xx answer; `last_error` says why."},
    )
    failing_since = OurTime(
        required=True, allow_none=True, metadata={"description": "The first failure since the last 2xx answer."}
    )
    last_status = ma.fields.Integer(
        required=True, allow_none=True, metadata={"description": "HTTP status of the last attempt; null: no answer."}
    )
    paused_at = OurTime(required=True, allow_none=True)
    paused_because = ma.fields.String(required=True, allow_none=True)
    failures = ma.fields.Integer(required=True, metadata={"description": "Consecutive failures."})
    retry_at = OurTime(required=True, allow_none=True, metadata={"description": "Nothing is sent before this time."})
    delivered = ma.fields.Integer(required=True)
    delivered_at = OurTime(required=True, allow_none=True)
    failed_at = OurTime(required=True, allow_none=True)
    last_error = ma.fields.String(required=True, allow_none=True)
    pending = ma.fields.Integer(required=True, metadata={"description": "Capped at 100,000."})
    dead = ma.fields.Integer(required=True)
    oldest_at = OurTime(required=True, allow_none=True, metadata={"description": "Oldest pending delivery."})


class CreatedWebhookSchema(WebhookSchema):
    """A webhook that was created."""

    secret = ma.fields.String(
        required=True, allow_none=True, metadata={"description": "Signing secret. Shown only once."}
    )


class SecretSchema(ma.Schema):
    """A secret, shown only once."""

    secret = ma.fields.String(required=True)


class TestResultSchema(ma.Schema):
    """The result of a test delivery."""

    taken = ma.fields.Boolean(required=True)
    status = ma.fields.Integer(required=True, allow_none=True)
    error = ma.fields.String(required=True, allow_none=True)
    seconds = ma.fields.Float(required=True)


class DeadLetterSchema(ma.Schema):
    """A delivery that failed for three days."""

    id = ma.fields.String(required=True)
    event = ma.fields.String(required=True)
    push_id = ma.fields.String(required=True, allow_none=True)
    message_id = ma.fields.String(required=True, allow_none=True)
    created_at = OurTime(required=True)
    dead_at = OurTime(required=True)
    attempts = ma.fields.Integer(required=True)
    last_error = ma.fields.String(required=True, allow_none=True)


class DeliveriesPageSchema(PageSchema):
    """Which deliveries to list."""

    state = ma.fields.String(validate=OneOf(_STATES))


class WebhookDeliverySchema(ma.Schema):
    """A delivery and what has become of it."""

    id = ma.fields.String(required=True)
    webhook_id = ma.fields.String(required=True, metadata={"description": "The header of each of its requests."})
    event = ma.fields.String(required=True)
    state = ma.fields.String(
        required=True,
        validate=OneOf(_STATES),
        metadata={"description": "`failing`: it is tried again at `next_at`. `dead`: it failed for three days."},
    )
    push_id = ma.fields.String(required=True, allow_none=True)
    receipt_id = ma.fields.String(required=True, allow_none=True)
    reply_id = ma.fields.String(required=True, allow_none=True)
    message_id = ma.fields.String(required=True, allow_none=True)
    created_at = OurTime(required=True)
    attempts = ma.fields.Integer(required=True)
    next_at = OurTime(required=True, allow_none=True)
    delivered_at = OurTime(required=True, allow_none=True)
    dead_at = OurTime(required=True, allow_none=True)
    last_status = ma.fields.Integer(required=True, allow_none=True)
    last_error = ma.fields.String(required=True, allow_none=True)


class ReplaySchema(StrictSchema):
    """What to send again."""

    ids = ma.fields.List(
        ma.fields.String(validate=ma.validate.Regexp(r"^[0-9]{1,18}\Z")),
        validate=ma.validate.Length(1, _IDS_MAX),
        metadata={"description": "Ids of deliveries that are dead or were accepted. Default: all dead."},
    )
    since = InputTime(
        metadata={"description": "What was queued from then on and has failed. With `all`, everything from then on."}
    )
    until = InputTime(metadata={"description": "With `since`: the end, exclusive. Default: now."})
    all = StrictBoolean(
        load_default=False,
        metadata={
            "description": "Make the events since then anew from what is stored, for a receiver that lost them. Those"
            " of receipts, replies and timers keep their `webhook-id`, pushes their `X-Push-Id`."
        },
    )

    @ma.validates_schema
    def _check_together(self, data: dict[str, Any], **_: Any) -> None:
        if "ids" in data and "since" in data:
            raise ma.ValidationError("Give ids, or since.", "ids")
        if "since" not in data and (data["all"] or "until" in data):
            raise ma.ValidationError("Needs since.", "all" if data["all"] else "until")


class ReplayedSchema(ma.Schema):
    """The number of deliveries that will be sent again."""

    replayed = ma.fields.Integer(required=True)


WebhookListSchema = ma.Schema.from_dict(
    {"items": ma.fields.List(ma.fields.Nested(WebhookSchema), required=True)}, name="WebhookList"
)


@blueprint.route("/webhooks")
class Webhooks(MethodView):
    """List and create webhooks."""

    @operation(blueprint, "list_webhooks")
    @documents(blueprint, 401, 403, 503)
    @blueprint.response(200, WebhookListSchema)
    def get(self) -> dict[str, Any]:
        """Return the webhooks, oldest first; a key bound to accounts sees only those of its accounts."""
        found = runtime().ask(partial(endpoints.list_endpoints, accounts=caller().accounts))
        return {"items": [_shown(target) for target in found]}

    @operation(blueprint, "create_webhook")
    @documents(blueprint, 400, 401, 403, 409, 413, 415, 422, 503)
    @blueprint.arguments(NewWebhookSchema, location="json")
    @blueprint.response(201, CreatedWebhookSchema)
    def post(self, body: dict[str, Any]) -> Any:
        """Create a webhook. It receives all events from now on."""
        accounts = body.get("accounts", caller().accounts)
        _require_allowed(in_full=body["pii"] or body["format"] == PayloadFormat.RAW, accounts=accounts)
        try:
            secret = runtime().webhooks.add(
                caller().name,
                name=body["name"],
                url=body["url"],
                form=body["format"],
                events=body["events"],
                accounts=accounts,
                pii=body["pii"],
                not_delivered_after_seconds=body.get("not_delivered_after_seconds"),
                headers=body["headers"],
            )
        except service.InvalidEndpoint as invalid:
            raise _invalid(invalid) from None
        except NameTaken as taken:
            raise Invalid({"#/name": str(taken)}, status=409, code=ErrorCode.NAME_TAKEN) from None
        created = _shown(_find(body["name"])) | {"secret": secret}
        return created, location("webhooks.OneWebhook", name=body["name"])


@blueprint.route("/webhooks/<string:name>")
class OneWebhook(MethodView):
    """One webhook."""

    @operation(blueprint, "get_webhook")
    @documents(blueprint, 401, 403, 404, 503)
    @blueprint.response(200, WebhookSchema)
    def get(self, name: str) -> dict[str, Any]:
        """Return a webhook and its state."""
        return _shown(_find(name))

    @operation(blueprint, "update_webhook")
    @documents(blueprint, 400, 401, 403, 404, 413, 415, 422, 503)
    @blueprint.arguments(WebhookChangeSchema, location="json")
    @blueprint.response(200, WebhookSchema)
    def patch(self, body: dict[str, Any], name: str) -> dict[str, Any]:
        """Change a webhook. One that sends full numbers can only be changed with the scope `pii`."""
        target = _find(name)
        in_full = target.pii or target.format is PayloadFormat.RAW or body.get("pii", False)
        _require_allowed(in_full=in_full, accounts=body.get("accounts", target.accounts))
        try:
            runtime().webhooks.update(caller().name, target, cast("service.EndpointChange", body))
        except service.InvalidEndpoint as invalid:
            raise _invalid(invalid) from None
        return _shown(_find(name))

    @operation(blueprint, "remove_webhook")
    @documents(blueprint, 401, 403, 404, 503)
    @blueprint.response(204)
    def delete(self, name: str) -> None:
        """Remove a webhook and its pending deliveries."""
        runtime().webhooks.remove(caller().name, _find(name))


@blueprint.route("/webhooks/<string:name>/pause")
class Pause(MethodView):
    """Pause a webhook."""

    @operation(blueprint, "pause_webhook")
    @documents(blueprint, 401, 403, 404, 503)
    @blueprint.response(200, WebhookSchema)
    def post(self, name: str) -> dict[str, Any]:
        """Pause a webhook. Its deliveries are queued."""
        runtime().webhooks.pause(caller().name, _find(name))
        return _shown(_find(name))


@blueprint.route("/webhooks/<string:name>/resume")
class Resume(MethodView):
    """Resume a webhook."""

    @operation(blueprint, "resume_webhook")
    @documents(blueprint, 401, 403, 404, 503)
    @blueprint.response(200, WebhookSchema)
    def post(self, name: str) -> dict[str, Any]:
        """Resume a webhook and send its pending deliveries at once."""
        runtime().webhooks.resume(caller().name, _find(name))
        return _shown(_find(name))


@blueprint.route("/webhooks/<string:name>/rotate")
class Rotate(MethodView):
    """Rotate a secret."""

    @operation(blueprint, "rotate_webhook")
    @documents(blueprint, 401, 403, 404, 503)
    @blueprint.response(200, SecretSchema)
    def post(self, name: str) -> dict[str, Any]:
        """Create a new secret. For a day, deliveries are signed with the old one too."""
        return {"secret": runtime().webhooks.rotate(caller().name, _find(name))}


@blueprint.route("/webhooks/<string:name>/test")
class Test(MethodView):
    """Test a webhook."""

    @operation(blueprint, "test_webhook")
    @documents(blueprint, 401, 403, 404, 503)
    @blueprint.response(200, TestResultSchema)
    def post(self, name: str) -> Any:
        """Send a test event and return the answer."""
        return runtime().webhooks.try_out(caller().name, _find(name))


@blueprint.route("/webhooks/<string:name>/deliveries")
class Deliveries(MethodView):
    """List deliveries."""

    @operation(blueprint, "list_webhook_deliveries")
    @documents(blueprint, 401, 403, 404, 422, 503)
    @blueprint.arguments(DeliveriesPageSchema, location="query")
    @blueprint.response(200, list_schema(WebhookDeliverySchema, "WebhookDeliveryList"))
    def get(self, arguments: dict[str, Any], name: str) -> dict[str, Any]:
        """Return the deliveries of a webhook, newest first; of those that were accepted the newest 10,000."""
        target = _find(name)
        state = DeliveryState(arguments["state"]) if "state" in arguments else None
        query = partial(endpoints.list_deliveries, target=target, state=state)
        return as_page(*read_by_id("deliveries", {"target": target.id, "state": state}, arguments, query))


@blueprint.route("/webhooks/<string:name>/dead")
class Dead(MethodView):
    """List dead letters."""

    @operation(blueprint, "list_dead_letters")
    @documents(blueprint, 401, 403, 404, 422, 503)
    @blueprint.arguments(PageSchema, location="query")
    @blueprint.response(200, list_schema(DeadLetterSchema, "DeadLetterList"))
    def get(self, arguments: dict[str, Any], name: str) -> dict[str, Any]:
        """Return deliveries that failed for three days, newest first."""
        target = _find(name)
        query = partial(endpoints.list_deliveries, target=target, state=DeliveryState.DEAD)
        return as_page(*read_by_id("dead", {"target": target.id}, arguments, query))


@blueprint.route("/webhooks/<string:name>/replay")
class Replay(MethodView):
    """Replay deliveries."""

    @operation(blueprint, "replay_webhook")
    @documents(blueprint, 400, 401, 403, 404, 409, 413, 415, 422, 503)
    @blueprint.arguments(ReplaySchema, location="json")
    @blueprint.response(200, ReplayedSchema)
    def post(self, body: dict[str, Any], name: str) -> dict[str, Any]:
        """Send deliveries again: those with these ids, the dead ones, or those since a time."""
        if "since" in body:
            try:
                count = runtime().webhooks.replay_since(
                    caller().name, _find(name), body["since"], until=body.get("until"), everything=body["all"]
                )
            except service.InvalidEndpoint as invalid:
                raise _invalid(invalid) from None
            return {"replayed": count}
        ids = [int(text) for text in body["ids"]] if "ids" in body else None
        return {"replayed": runtime().webhooks.replay(caller().name, _find(name), ids)}


def _require_allowed(*, in_full: bool, accounts: Sequence[str] | None) -> None:
    """Raises Denied if the caller may not send that to an endpoint."""
    if in_full and not caller().sees_numbers:
        raise missing_scope(
            Scope.PII.value, f"full numbers, which `raw` contains too, require the scope {Scope.PII.value}"
        )
    allowed = caller().accounts
    if allowed is not None and (accounts is None or not set(accounts) <= set(allowed)):
        raise Denied(403, ErrorCode.ACCOUNT_CLOSED, "this key is bound to other accounts")


def _invalid(found: service.InvalidEndpoint) -> Invalid:
    return Invalid({f"#/{name}": reason for name, reason in found.faults.items()})


def _find(name: str) -> Endpoint:
    return runtime().webhooks.find(name, caller().accounts)


def _shown(target: Endpoint) -> dict[str, Any]:
    health = runtime().ask(partial(endpoints.find_health, target=target))
    shown = {"url": target.display_url, "state": target.state, "header_names": target.header_names}
    return asdict(target) | asdict(health) | shown
