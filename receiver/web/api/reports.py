"""`/reports`: what adds up over many messages."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import Any

import marshmallow as ma
from flask.views import MethodView

from receiver.store import balance
from receiver.web import runtime
from receiver.web.api.common import Blueprint, StrictSchema, Text, documents, readable_accounts
from receiver.web.problems import Invalid

blueprint = Blueprint("reports", __name__, description="Figures over many messages.")

_BILLING_MAX_DAYS = 92


class Day(ma.fields.String):
    """A calendar day of the platform's zone, as ISO 8601."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            **kwargs | {"metadata": {"format": "date", "example": "2026-11-23"} | kwargs.get("metadata", {})}
        )

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        try:
            day = date.fromisoformat(text)
        except ValueError:
            day = None
        # The ends of the calendar have no midnight in every zone.
        if day is None or not text.isascii() or not 1 < day.year < 9998:
            raise ma.ValidationError("Not a day such as 2026-11-23.")
        return day


class BillingFilterSchema(StrictSchema):
    """Which days, of which account."""

    from_ = Day(required=True, data_key="from", metadata={"description": "The first day."})
    to = Day(required=True, metadata={"description": "The day after the last."})
    account = Text(max_chars=64, metadata={"description": "One of the configured accounts."})


class BillingDaySchema(ma.Schema):
    """One account's day, in the platform's zone."""

    account = ma.fields.String(required=True)
    day = ma.fields.String(required=True, metadata={"format": "date"})
    opening = ma.fields.Integer(
        required=True, allow_none=True, metadata={"description": "By the last reading before the day; see `gaps`."}
    )
    top_ups = ma.fields.Integer(required=True, metadata={"description": "Rises from one reading to the next."})
    closing = ma.fields.Integer(
        required=True, allow_none=True, metadata={"description": "By the last reading of the day, or before it."}
    )
    accepted = ma.fields.Integer(
        required=True, metadata={"description": "Sum of the platform's `success_counts` of the day's messages."}
    )
    delivered = ma.fields.Integer(required=True, metadata={"description": "Messages of the day that were delivered."})
    failed = ma.fields.Integer(required=True)
    refused = ma.fields.Integer(required=True)
    difference = ma.fields.Integer(
        required=True,
        allow_none=True,
        metadata={"description": "opening + top_ups - closing - accepted: what the balance lost beyond `accepted`."},
    )
    gaps = ma.fields.List(
        ma.fields.String(), required=True, metadata={"description": "What is missing for the figures to be whole."}
    )


BillingSchema = ma.Schema.from_dict(
    {"items": ma.fields.List(ma.fields.Nested(BillingDaySchema), required=True)}, name="Billing"
)


@blueprint.route("/reports/billing")
class Billing(MethodView):
    """The balance against what was sent."""

    @documents(blueprint, 401, 403, 422, 503)
    @blueprint.arguments(BillingFilterSchema, location="query")
    @blueprint.response(200, BillingSchema)
    def get(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Hold each account's balance against what was sent, day by day. Knows no charging rule."""
        parts = runtime()
        first, end = arguments["from_"], arguments["to"]
        if not first < end:
            raise Invalid({"#/to": "not after `from`"})
        if (end - first).days > _BILLING_MAX_DAYS:
            raise Invalid({"#/to": f"over {_BILLING_MAX_DAYS} days after `from`"})
        days = [first + timedelta(days=number) for number in range((end - first).days)]
        bounds = [(_midnight(day), _midnight(day + timedelta(days=1))) for day in days]
        allowed = readable_accounts(arguments.get("account"))
        accounts = sorted(parts.settings.accounts if allowed is None else allowed)
        found = parts.ask(lambda connection: balance.list_billing(connection, accounts, bounds))
        day_of = {begins_at: day for (begins_at, _), day in zip(bounds, days, strict=True)}
        return {"items": [asdict(row) | {"day": day_of[row.begins_at].isoformat()} for row in found]}


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=runtime().settings.timezone).astimezone(UTC)
