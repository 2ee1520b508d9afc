"""`/verify-codes` and `/balance`: what the platform is asked to do."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import marshmallow as ma
from flask import jsonify
from flask.views import MethodView

from receiver.core import DatabaseMisconfigured, DatabaseUnavailable, parse_mainland_mobile
from receiver.messages import Reading, balance, queries
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
    operation,
    readable_accounts,
    shown,
)
from receiver.web.api.message_schemas import MessageSchema
from receiver.web.auth import caller
from receiver.web.errors import Invalid, pointers

if TYPE_CHECKING:
    from receiver.runtime import Runtime

blueprint = Blueprint("sending", __name__, description="Send through the platform, and what is left to send.")

_FRESH = timedelta(seconds=60)
_KEY_MAX_CHARS = 255


class VerifyCodeSchema(StrictSchema):
    """A verification code to be sent."""

    mobile = Text(required=True, max_chars=24, metadata={"pattern": MOBILE_PATTERN, "example": "15080921090"})
    template_id = Text(required=True, max_chars=20, metadata={"pattern": "^[0-9]{1,20}$", "example": "540"})
    code = ma.fields.String(
        required=True,
        metadata={"pattern": "^[0-9]{2,8}$", "example": "1234", "description": "Sent on; never stored or logged."},
    )
    account = Text(max_chars=64)
    reference = Text(metadata={"description": "The sender's own id."})


class SendingHeadersSchema(ma.Schema):
    """What makes a repetition harmless."""

    idempotency_key = Text(
        data_key="Idempotency-Key",
        max_chars=_KEY_MAX_CHARS,
        metadata={"description": "A repeated key sends nothing and answers the first result, for 24 hours."},
    )


class SentSchema(ma.Schema):
    """Sent, while the database is away."""

    status = ma.fields.Integer(required=True, validate=ma.validate.OneOf([202]))
    task_id = ma.fields.String(
        required=True, allow_none=True, metadata={"description": "Null: sent by an earlier call of that key."}
    )


@blueprint.route("/verify-codes")
class VerifyCodes(MethodView):
    """Sending."""

    @operation(blueprint, "send_verify_code")
    @documents(blueprint, 400, 401, 403, 413, 415, 422, 502, 503, 504)
    @blueprint.arguments(SendingHeadersSchema, location="headers")
    @blueprint.arguments(VerifyCodeSchema, location="json")
    @blueprint.response(201, MessageSchema)
    @blueprint.doc(responses={201: {"links": {"message": link("get_message", message_id="id")}}})
    @blueprint.alt_response(
        202, schema=SentSchema, description="Sent, while the database is away: the record waits in the spool."
    )
    def post(self, headers: dict[str, Any], body: dict[str, Any]) -> Any:
        """Send a verification code and record it.

        The platform's refusal is a 422 with its own words in `detail`, a stable `code`, `waiting_helps` and `advice`.
        A 502 or 504 with the code `outcome_unknown`: the message may have been sent. `platform_unreachable`: it was
        not.
        """
        parts = runtime()
        parts.start()
        account = account_to_write(body.get("account"))
        mobile = parse_mainland_mobile(body["mobile"])
        faults = check_send(mobile=mobile, template_id=body["template_id"], code=body["code"])
        if mobile is None or faults:
            raise Invalid(pointers(faults))
        if account not in parts.sender.accounts:
            raise Invalid({"#/account": "no credentials for this account (RECEIVER_PLATFORM_CREDENTIALS)"})
        asked = CodeRequest(
            account=account,
            mobile=mobile,
            template_id=body["template_id"],
            code=body["code"],
            reference=body.get("reference"),
        )
        sent = parts.sender.send(asked, caller=caller().name, idempotency_key=headers.get("idempotency_key"))
        return _answer(parts, sent)


def _answer(parts: Runtime, sent: Sent) -> Any:
    sent.require_accepted()
    message_id = sent.message_id
    if message_id is not None:
        try:
            found = parts.ask(lambda connection: queries.find_message(connection, message_id, parts.clock()))
        except (DatabaseUnavailable, DatabaseMisconfigured):
            found = None  # it has gone since: the platform has taken it all the same
        if found is not None:
            return shown(found)
    response = jsonify(status=202, task_id=sent.answer.task_id if sent.answer else None)
    response.status_code = 202
    return response


# --- The balance ----------------------------------------------------------------------------------------


class BalanceFilterSchema(StrictSchema):
    """Whose balance."""

    account = Text(max_chars=64, metadata={"description": "One of the configured accounts."})


class BalanceSchema(ma.Schema):
    """What an account has left."""

    account = ma.fields.String(required=True)
    remain_point = ma.fields.Integer(
        required=True, allow_none=True, metadata={"description": "Messages left; null: never read."}
    )
    read_at = OurTime(required=True, allow_none=True)
    low = ma.fields.Boolean(required=True, metadata={"description": "Fewer than `RECEIVER_BALANCE_LOW`."})
    used_per_day = ma.fields.Float(
        required=True,
        allow_none=True,
        metadata={"description": "Over the last week, or as long as there are readings."},
    )
    days_left = ma.fields.Float(required=True, allow_none=True, metadata={"description": "At that rate."})
    error = ma.fields.String(
        required=True, allow_none=True, metadata={"description": "Why the platform could not be asked now."}
    )


BalanceListSchema = ma.Schema.from_dict(
    {"items": ma.fields.List(ma.fields.Nested(BalanceSchema), required=True)}, name="BalanceList"
)


@blueprint.route("/balance")
class Balance(MethodView):
    """Reading it."""

    @operation(blueprint, "get_balance")
    @documents(blueprint, 401, 403, 422, 503)
    @blueprint.arguments(BalanceFilterSchema, location="query")
    @blueprint.response(200, BalanceListSchema)
    def get(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return each account's balance, how fast it is used, and how long it lasts.

        The platform is asked where the last reading is over a minute old.
        """
        parts = runtime()
        asked = readable_accounts(arguments.get("account"))
        accounts = [account for account in parts.sender.accounts if asked is None or account in asked]
        last = parts.ask(lambda connection: balance.find_last_readings(connection, now=parts.now()))
        return {"items": [_balance(parts, account, last.get(account)) for account in accounts]}


def _balance(parts: Runtime, account: str, reading: Reading | None) -> dict[str, Any]:
    error = None
    now = parts.now()
    if reading is None or now - reading.answered_at > _FRESH:
        try:
            reading = parts.sender.read_balance(account)
        except (PlatformUnreachable, PlatformProtocolError, PlatformRefused) as caught:
            error = str(caught)
    trend = parts.ask(lambda connection: balance.find_trend(connection, account, now=parts.now()))
    threshold = parts.settings.balance_low_of(account)
    return {
        "account": account,
        "remain_point": reading and reading.remain_point,
        "read_at": reading and reading.answered_at,
        "low": reading is not None and threshold is not None and reading.remain_point < threshold,
        "used_per_day": trend.per_day and round(trend.per_day, 1),
        "days_left": trend.days_left and round(trend.days_left, 1),
        "error": error,
    }
