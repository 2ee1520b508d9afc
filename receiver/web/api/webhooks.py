"""`/webhooks`: own systems that hear of everything."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

import marshmallow as ma
from flask.views import MethodView

from receiver.auth.api_keys import Scope
from receiver.core import Cursors, NameTaken
from receiver.web import runtime
from receiver.web.api.common import (
    Blueprint,
    OurTime,
    PageSchema,
    StrictBoolean,
    StrictSchema,
    Text,
    WholeNumber,
    documents,
    list_schema,
    operation,
)
from receiver.web.auth import caller
from receiver.web.errors import Denied, Invalid
from receiver.webhooks import endpoints, service
from receiver.webhooks.endpoints import Endpoint, EndpointState, EventType, PayloadFormat

blueprint = Blueprint("webhooks", __name__, description="Own systems that everything is forwarded to.")

_FORMATS = [form.value for form in PayloadFormat]
_EVENTS = [event.value for event in EventType]
_IDS_MAX = 1000


class NewTargetSchema(StrictSchema):
    """A target that is to be."""

    name = Text(required=True, max_chars=64, metadata={"pattern": service.NAME_PATTERN, "example": "shop"})
    url = Text(required=True, max_chars=2000, metadata={"example": "https://shop.example.com/hooks"})
    format = ma.fields.String(
        required=True,
        validate=ma.validate.OneOf(_FORMATS),
        metadata={"description": "`raw`: each push as the platform sent it. `webhooks`: Standard Webhooks."},
    )
    events = ma.fields.List(
        ma.fields.String(validate=ma.validate.OneOf(_EVENTS)),
        load_default=[],
        metadata={"description": "Of webhooks. None: every one."},
    )
    accounts = ma.fields.List(
        Text(max_chars=64),
        validate=ma.validate.Length(min=1),
        metadata={"description": "Left out: every account that the key is for."},
    )
    pii = StrictBoolean(
        load_default=False,
        metadata={"description": "Numbers and contents in full. This, and `raw`, take the scope `pii`."},
    )
    not_delivered_after_seconds = WholeNumber(
        validate=ma.validate.Range(1, service.LONGEST_WAIT_SECONDS),
        metadata={"description": "Tell of a message that is not delivered so long after it was sent."},
    )


class TargetSchema(ma.Schema):
    """A target, and how it fares."""

    name = ma.fields.String(required=True)
    url = ma.fields.String(required=True, metadata={"description": "Without its query."})
    format = ma.fields.String(required=True, validate=ma.validate.OneOf(_FORMATS))
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
    created_at = OurTime(required=True)
    state = ma.fields.String(
        required=True,
        validate=ma.validate.OneOf([state.value for state in EndpointState]),
        metadata={"description": "`failing`: its last answer was no 2xx, or it gave none; `last_error` says why."},
    )
    paused_at = OurTime(required=True, allow_none=True)
    paused_because = ma.fields.String(required=True, allow_none=True)
    failures = ma.fields.Integer(required=True, metadata={"description": "In a row."})
    retry_at = OurTime(required=True, allow_none=True, metadata={"description": "Nothing is sent before."})
    delivered = ma.fields.Integer(required=True)
    delivered_at = OurTime(required=True, allow_none=True)
    failed_at = OurTime(required=True, allow_none=True)
    last_error = ma.fields.String(required=True, allow_none=True)
    pending = ma.fields.Integer(required=True, metadata={"description": "100,000 stands for more."})
    dead = ma.fields.Integer(required=True)
    oldest_at = OurTime(required=True, allow_none=True, metadata={"description": "Of what is pending."})


class MadeTargetSchema(TargetSchema):
    """A target that was made."""

    secret = ma.fields.String(
        required=True, allow_none=True, metadata={"description": "That its posts are signed with. Shown this once."}
    )


class SecretSchema(ma.Schema):
    """A secret, shown this once."""

    secret = ma.fields.String(required=True)


class TriedSchema(ma.Schema):
    """What came of a test."""

    taken = ma.fields.Boolean(required=True)
    status = ma.fields.Integer(required=True, allow_none=True)
    error = ma.fields.String(required=True, allow_none=True)
    seconds = ma.fields.Float(required=True)


class DeadLetterSchema(ma.Schema):
    """Something that was given up."""

    id = ma.fields.String(required=True)
    event = ma.fields.String(required=True)
    push_id = ma.fields.String(required=True, allow_none=True)
    message_id = ma.fields.String(required=True, allow_none=True)
    created_at = OurTime(required=True)
    dead_at = OurTime(required=True)
    attempts = ma.fields.Integer(required=True)
    last_error = ma.fields.String(required=True, allow_none=True)


class ReplaySchema(StrictSchema):
    """What is to be sent again."""

    ids = ma.fields.List(
        ma.fields.String(validate=ma.validate.Regexp(r"^[0-9]{1,18}\Z")),
        validate=ma.validate.Length(1, _IDS_MAX),
        metadata={"description": "Of dead letters. Left out: all of them."},
    )


class ReplayedSchema(ma.Schema):
    """How many will be sent again."""

    replayed = ma.fields.Integer(required=True)


TargetListSchema = ma.Schema.from_dict(
    {"items": ma.fields.List(ma.fields.Nested(TargetSchema), required=True)}, name="TargetList"
)


@blueprint.route("/webhooks")
class Targets(MethodView):
    """All of them."""

    @operation(blueprint, "list_webhooks")
    @documents(blueprint, 401, 403, 503)
    @blueprint.response(200, TargetListSchema)
    def get(self) -> dict[str, Any]:
        """List the targets, oldest first; a key that is bound to accounts sees those of its accounts alone."""
        found = runtime().ask(partial(endpoints.list_targets, accounts=caller().accounts))
        return {"items": [_shown(target) for target in found]}

    @operation(blueprint, "create_webhook")
    @documents(blueprint, 400, 401, 403, 409, 413, 415, 422, 503)
    @blueprint.arguments(NewTargetSchema, location="json")
    @blueprint.response(201, MadeTargetSchema)
    def post(self, body: dict[str, Any]) -> dict[str, Any]:
        """Make a target: from now on it hears of what comes."""
        if (body["pii"] or body["format"] == PayloadFormat.RAW) and not caller().sees_numbers:
            raise Denied(403, "missing_scope", f"numbers in full take the scope {Scope.PII.value}; `raw` has them too")
        allowed = caller().accounts
        accounts = body.get("accounts", allowed)
        if allowed is not None and not set(accounts or ()) <= set(allowed):
            raise Denied(403, "account_closed", "this key is bound to other accounts")
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
            )
        except service.InvalidEndpoint as invalid:
            raise Invalid({f"#/{name}": reason for name, reason in invalid.faults.items()}) from None
        except NameTaken as taken:
            raise Invalid({"#/name": str(taken)}, status=409, code="name_taken") from None
        return _shown(_find(body["name"])) | {"secret": secret}


@blueprint.route("/webhooks/<string:name>")
class OneTarget(MethodView):
    """One of them."""

    @operation(blueprint, "get_webhook")
    @documents(blueprint, 401, 403, 404, 503)
    @blueprint.response(200, TargetSchema)
    def get(self, name: str) -> dict[str, Any]:
        """Return a target, and how it fares."""
        return _shown(_find(name))

    @operation(blueprint, "remove_webhook")
    @documents(blueprint, 401, 403, 404, 503)
    @blueprint.response(204)
    def delete(self, name: str) -> None:
        """Remove a target, and all that waits for it."""
        runtime().webhooks.remove(caller().name, _find(name))


@blueprint.route("/webhooks/<string:name>/pause")
class Pause(MethodView):
    """Holding it."""

    @operation(blueprint, "pause_webhook")
    @documents(blueprint, 401, 403, 404, 503)
    @blueprint.response(200, TargetSchema)
    def post(self, name: str) -> dict[str, Any]:
        """Send a target nothing; what it is to hear of is kept for it."""
        runtime().webhooks.pause(caller().name, _find(name))
        return _shown(_find(name))


@blueprint.route("/webhooks/<string:name>/resume")
class Resume(MethodView):
    """Going on."""

    @operation(blueprint, "resume_webhook")
    @documents(blueprint, 401, 403, 404, 503)
    @blueprint.response(200, TargetSchema)
    def post(self, name: str) -> dict[str, Any]:
        """Send to a target again, at once all that waits."""
        runtime().webhooks.resume(caller().name, _find(name))
        return _shown(_find(name))


@blueprint.route("/webhooks/<string:name>/rotate")
class Rotate(MethodView):
    """Another secret."""

    @operation(blueprint, "rotate_webhook")
    @documents(blueprint, 401, 403, 404, 503)
    @blueprint.response(200, SecretSchema)
    def post(self, name: str) -> dict[str, Any]:
        """Make a new secret; for a day, posts are signed with the old one as well."""
        return {"secret": runtime().webhooks.rotate(caller().name, _find(name))}


@blueprint.route("/webhooks/<string:name>/test")
class Test(MethodView):
    """Trying it."""

    @operation(blueprint, "test_webhook")
    @documents(blueprint, 401, 403, 404, 503)
    @blueprint.response(200, TriedSchema)
    def post(self, name: str) -> Any:
        """Send a target a test, which says that it is one, and tell what it answers."""
        return runtime().webhooks.try_out(caller().name, _find(name))


@blueprint.route("/webhooks/<string:name>/dead")
class Dead(MethodView):
    """What was given up."""

    @operation(blueprint, "list_dead_letters")
    @documents(blueprint, 401, 403, 404, 422, 503)
    @blueprint.arguments(PageSchema, location="query")
    @blueprint.response(200, list_schema(DeadLetterSchema, "DeadLetterList"))
    def get(self, arguments: dict[str, Any], name: str) -> dict[str, Any]:
        """List what was given up after three days, newest first."""
        target, limit = _find(name), arguments["limit"]
        cursors = Cursors(runtime().shared_secret("cursor"), "dead", {"target": target.id})
        before = int(cursors.read(arguments["cursor"])[0]) if "cursor" in arguments else None
        found = runtime().ask(partial(endpoints.list_dead, target=target, limit=limit + 1, before=before))
        next_cursor = cursors.make(found[limit - 1].id) if len(found) > limit else None
        return {"items": found[:limit], "next_cursor": next_cursor}


@blueprint.route("/webhooks/<string:name>/replay")
class Replay(MethodView):
    """Once more."""

    @operation(blueprint, "replay_dead_letters")
    @documents(blueprint, 400, 401, 403, 404, 413, 415, 422, 503)
    @blueprint.arguments(ReplaySchema, location="json")
    @blueprint.response(200, ReplayedSchema)
    def post(self, body: dict[str, Any], name: str) -> dict[str, Any]:
        """Send again what was given up."""
        ids = [int(text) for text in body["ids"]] if "ids" in body else None
        return {"replayed": runtime().webhooks.replay(caller().name, _find(name), ids)}


def _find(name: str) -> Endpoint:
    return runtime().webhooks.find(name, caller().accounts)


def _shown(target: Endpoint) -> dict[str, Any]:
    health = runtime().ask(partial(endpoints.find_health, target=target))
    return asdict(target) | asdict(health) | {"url": target.place, "state": target.state}
