"""`/verify-codes` and `/balance`: requests to the platform."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import marshmallow as ma
from flask import after_this_request, jsonify
from flask.views import MethodView

from receiver.core import DatabaseMisconfigured, DatabaseUnavailable, parse_mainland_mobile
from receiver.messages import balance, queries
from receiver.platform.client import PlatformProtocolError, PlatformUnreachable, check_send
from receiver.sending.service import CodeRequest, PlatformRefused, Sent
from receiver.web import runtime
from receiver.web.api.common import (
    MOBILE_PATTERN,
    Blueprint,
    OurTime,
    StrictSchema,
    Text,
    account_to_write,
    documents,
    link,
    location,
    operation,
    readable_accounts,
    row_json,
)
from receiver.web.api.message_schemas import MessageSchema
from receiver.web.auth import caller
from receiver.web.errors import Invalid, pointers

if TYPE_CHECKING:
    from flask import Response

    from receiver.messages.balance import Reading
    from receiver.runtime import Runtime

blueprint = Blueprint("sending", __name__, description="Send codes through the platform, and read balances.")

_FRESH = timedelta(seconds=60)
_KEY_MAX_CHARS = 255
_REPLAYED = "Idempotent-Replayed"


class VerifyCodeSchema(StrictSchema):
    """A verification code to send."""

    mobile = Text(required=True, max_chars=24, metadata={"pattern": MOBILE_PATTERN, "example": "15080921090"})
    template_id = Text(required=True, max_chars=20, metadata={"pattern": "^[0-9]{1,20}$", "example": "540"})
    code = ma.fields.String(
        required=True,
        metadata={
            "pattern": "^[0-9]{2,8}$",
            "example": "1234",
            "description": "Forwarded only; never stored or logged.",
        },
    )
    account = Text(max_chars=64)
    reference = Text(metadata={"description": "The sender's own id."})


class SendingHeadersSchema(ma.Schema):
    """The idempotency key."""

    idempotency_key = Text(
        data_key="Idempotency-Key",
        max_chars=_KEY_MAX_CHARS,
        metadata={"description": "For 24 hours, a repeated key sends nothing and returns the first result."},
    )


class SentSchema(ma.Schema):
    """Sent while the database is unavailable."""

    status = ma.fields.Integer(required=True, validate=ma.validate.OneOf([202]))
    task_id = ma.fields.String(
        required=True, allow_none=True, metadata={"description": "Null: sent by an earlier call with this key."}
    )


@blueprint.route("/verify-codes")
class VerifyCodes(MethodView):
    """Send a code."""

    @operation(blueprint, "send_verify_code")
    @documents(blueprint, 400, 401, 403, 413, 415, 422, 502, 503, 504)
    @blueprint.arguments(SendingHeadersSchema, location="headers")
    @blueprint.arguments(VerifyCodeSchema, location="json")
    @blueprint.response(201, MessageSchema)
    @blueprint.doc(
        responses={
            201: {
                "links": {"message": link("get_message", message_id="id")},
                "headers": {
                    _REPLAYED: {
                        "description": "`true`: the result of an earlier call with this `Idempotency-Key`.",
                        "schema": {"type": "string", "enum": ["true"]},
                    }
                },
            }
        }
    )
    @blueprint.alt_response(
        202, schema=SentSchema, description="Sent while the database is unavailable: the record is in the spool."
    )
    def post(self, headers: dict[str, Any], body: dict[str, Any]) -> Any:
        """Send a verification code and record it.

        A refusal by the platform is a 422 with its text in `detail`, a stable `code`, `waiting_helps` and `advice`.
        A 502 or 504 with the code `outcome_unknown` means that the message may have been sent; with
        `platform_unreachable`, it was not sent.
        """
        services = runtime()
        services.start()
        account = account_to_write(body.get("account"))
        mobile = parse_mainland_mobile(body["mobile"])
        faults = check_send(mobile=mobile, template_id=body["template_id"], code=body["code"])
        if mobile is None or faults:
            raise Invalid(pointers(faults))
        if account not in services.sender.accounts:
            raise Invalid({"#/account": "no credentials for this account (RECEIVER_PLATFORM_CREDENTIALS)"})
        code_request = CodeRequest(
            account=account,
            mobile=mobile,
            template_id=body["template_id"],
            code=body["code"],
            reference=body.get("reference"),
        )
        sent = services.sender.send(code_request, caller=caller().name, idempotency_key=headers.get("idempotency_key"))
        if sent.replayed:
            after_this_request(_mark_replayed)
        return _answer(services, sent)


def _mark_replayed(response: Response) -> Response:
    response.headers[_REPLAYED] = "true"
    return response


def _answer(services: Runtime, sent: Sent) -> Any:
    sent.require_accepted()
    message_id = sent.message_id
    if message_id is not None:
        try:
            found = services.ask(lambda connection: queries.find_message(connection, message_id, services.clock()))
        except (DatabaseUnavailable, DatabaseMisconfigured):
            found = None  # unavailable since the send, which the platform has accepted
        if found is not None:
            return row_json(found), location("messages.Message", message_id=str(message_id))
    response = jsonify(status=202, task_id=sent.answer.task_id if sent.answer else None)
    response.status_code = 202
    return response


# --- The balance ----------------------------------------------------------------------------------------


class BalanceFilterSchema(StrictSchema):
    """The account of a balance."""

    account = Text(max_chars=64, metadata={"description": "One of the configured accounts."})


class BalanceSchema(ma.Schema):
    """The balance of an account."""

    account = ma.fields.String(required=True)
    remain_point = ma.fields.Integer(
        required=True, allow_none=True, metadata={"description": "Messages left; null: not read yet."}
    )
    read_at = OurTime(required=True, allow_none=True)
    low = ma.fields.Boolean(required=True, metadata={"description": "Below `RECEIVER_BALANCE_LOW`."})
    used_per_day = ma.fields.Float(
        required=True,
        allow_none=True,
        metadata={"description": "Average of the last week, or since the first reading."},
    )
    days_left = ma.fields.Float(
        required=True, allow_none=True, metadata={"description": "At the rate of `used_per_day`."}
    )
    error = ma.fields.String(
        required=True, allow_none=True, metadata={"description": "Why the balance could not be read now."}
    )


BalanceListSchema = ma.Schema.from_dict(
    {"items": ma.fields.List(ma.fields.Nested(BalanceSchema), required=True)}, name="BalanceList"
)


@blueprint.route("/balance")
class Balance(MethodView):
    """Read balances."""

    @operation(blueprint, "get_balance")
    @documents(blueprint, 401, 403, 422, 503)
    @blueprint.arguments(BalanceFilterSchema, location="query")
    @blueprint.response(200, BalanceListSchema)
    def get(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return each account's balance, usage per day and days left.

        Asks the platform if the last reading is over a minute old.
        """
        services = runtime()
        wanted = readable_accounts(arguments.get("account"))
        accounts = [account for account in services.sender.accounts if wanted is None or account in wanted]
        last = services.ask(lambda connection: balance.find_last_readings(connection, now=services.now()))
        return {"items": [_balance(services, account, last.get(account)) for account in accounts]}


def _balance(services: Runtime, account: str, reading: Reading | None) -> dict[str, Any]:
    error = None
    now = services.now()
    if reading is None or now - reading.answered_at > _FRESH:
        try:
            reading = services.sender.read_balance(account)
        except (PlatformUnreachable, PlatformProtocolError, PlatformRefused) as caught:
            error = str(caught)
    trend = services.ask(lambda connection: balance.find_trend(connection, account, now=services.now()))
    threshold = services.settings.balance_low_of(account)
    return {
        "account": account,
        "remain_point": reading and reading.remain_point,
        "read_at": reading and reading.answered_at,
        "low": reading is not None and threshold is not None and reading.remain_point < threshold,
        "used_per_day": trend.per_day and round(trend.per_day, 1),
        "days_left": trend.days_left and round(trend.days_left, 1),
        "error": error,
    }
