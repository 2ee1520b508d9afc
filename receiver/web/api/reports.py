"""`/reports`: figures over many messages."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import marshmallow as ma
from flask import Response, request
from flask.views import MethodView

from receiver.core import InputFault, mask_mobile, midnight, neutral
from receiver.messages import balance
from receiver.reporting import delivery
from receiver.reporting.busiest import SPIKE_MIN_SENT, By, list_busiest
from receiver.reporting.carriers import allocation
from receiver.reporting.figures import CarrierGroup, DeliveryFigures, ReportQuestion, Unit
from receiver.web import runtime
from receiver.web.api.common import (
    Blueprint,
    InputTime,
    OurTime,
    StrictSchema,
    Text,
    WholeNumber,
    audit_look_up,
    documents,
    documents_text,
    operation,
    readable_accounts,
)
from receiver.web.auth import caller
from receiver.web.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from zoneinfo import ZoneInfo

blueprint = Blueprint("reports", __name__, description="Figures over many messages.")

CSV = "text/csv"
_ALLOCATED = ("operator", "province")
_GROUPS = (*(unit.value for unit in Unit), "template_id", "account", *_ALLOCATED)
_GROUPS_MAX = 2
# Reports that read single messages have a limited span, so that they do not slow down others.
_MAX_DAYS: Mapping[Unit | None, int] = {Unit.FIVE_MINUTES: 2, Unit.HOUR: 31}
_MAX_DAYS_OF_OTHERS = 800
_MAX_DAYS_BY_NUMBER = 31
_EARLIEST_YEAR = 1970
_OF_HOURS = "In `timezone`. Times that occur twice when summer time ends have an offset: 2026-11-01T01:00-05:00."
_SAME_DAY = "the same day as `from`: that whole day."


class GroupBy(ma.fields.String):
    """Up to two groups, separated by a comma."""

    def __init__(self, **kwargs: Any) -> None:
        one = "|".join(_GROUPS)
        metadata = {"pattern": f"^({one})(,({one}))?$", "example": "day,template_id"}
        super().__init__(**kwargs | {"metadata": metadata | kwargs.get("metadata", {})})

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        names = super()._deserialize(value, attr, data, **kwargs).split(",")
        if any(name not in _GROUPS for name in names):
            raise ma.ValidationError(InputFault.NOT_A_CHOICE.format(choices=", ".join(_GROUPS)))
        if len(names) > _GROUPS_MAX or len(set(names)) < len(names):
            raise ma.ValidationError("At most two different groups.")
        if sum(name in set(Unit) for name in names) > 1:
            raise ma.ValidationError("At most one unit of time.")
        return names


class SpanSchema(StrictSchema):
    """The span and account of a report."""

    from_ = InputTime(
        required=True, data_key="from", metadata={"description": "Sent at or after this time.", "example": "2026-11-23"}
    )
    to = InputTime(
        required=True, metadata={"description": f"Sent before this time; {_SAME_DAY}", "example": "2026-11-23"}
    )
    account = Text(max_chars=64, metadata={"description": "One of the configured accounts."})

    @ma.post_load(pass_original=True)
    def _end_same_day(self, data: dict[str, Any], original: Mapping[str, str], **_kwargs: Any) -> dict[str, Any]:
        """Extend a span from a day to the same day to that whole day. Times are longer than a date."""
        if original["from"] == original["to"] and len(original["to"]) <= len("2026-11-23"):
            day = data["to"].astimezone(runtime().settings.timezone).date()
            data["to"] = midnight(day + timedelta(days=1), runtime().settings.timezone)
        return data


def _require_span(since: Any, until: Any, most: timedelta, by: str = "") -> None:
    """Raises Invalid if a span is empty or longer than `most`."""
    if not since < until:
        raise Invalid({"#/to": "not after `from`"})
    if until - since > most:
        raise Invalid({"#/to": f"over {most.days} days after `from`{by}"})


class DeliveryFilterSchema(SpanSchema):
    """Filters and groups of a delivery report."""

    group_by = GroupBy(load_default=list)
    template_id = Text()
    operator = Text(metadata={"description": "By the extra `numbers`, such as 中国移动.", "example": "中国移动"})
    province = Text(metadata={"description": "By the extra `numbers`, such as 湖南.", "example": "湖南"})


class FiguresSchema(ma.Schema):
    """The figures of one group. A message counts at its send time, else at its record time."""

    sent = ma.fields.Integer(required=True, metadata={"description": "Messages accepted by the platform."})
    refused = ma.fields.Integer(required=True, metadata={"description": "Messages refused by the platform."})
    outcome_unknown = ma.fields.Integer(required=True, metadata={"description": "Requests with an unknown outcome."})
    delivered = ma.fields.Integer(required=True)
    failed = ma.fields.Integer(required=True)
    unknown_ = ma.fields.Integer(  # a schema has an attribute `unknown` of its own
        required=True,
        data_key="unknown",
        attribute="unknown",
        metadata={"description": "Reported with any other status."},
    )
    pending = ma.fields.Integer(required=True, metadata={"description": "No receipt yet."})
    no_receipt = ma.fields.Integer(
        required=True, metadata={"description": "No receipt for longer than `RECEIVER_NO_RECEIPT_AFTER_HOURS`."}
    )
    delivery_rate = ma.fields.Float(
        required=True, allow_none=True, metadata={"description": "delivered / sent; null if none were sent."}
    )
    latency_p50_seconds = ma.fields.Integer(
        required=True,
        allow_none=True,
        metadata={"description": "From sending to receipt, for delivered messages: nearest rank over whole seconds."},
    )
    latency_p95_seconds = ma.fields.Integer(required=True, allow_none=True)
    latency_p99_seconds = ma.fields.Integer(required=True, allow_none=True)
    verified = ma.fields.Integer(
        required=True, metadata={"description": "Messages whose code was used, as recorded by `/messages/verified`."}
    )
    conversion_rate = ma.fields.Float(
        required=True, allow_none=True, metadata={"description": "verified / sent; null if none were sent."}
    )
    unmatched = ma.fields.Integer(
        required=True,
        metadata={
            "description": "Reported messages without a recorded send, by time of the receipt; not part of any rate."
        },
    )
    match_rate = ma.fields.Float(
        required=True,
        allow_none=True,
        metadata={"description": "Share of reported messages whose send is recorded."},
    )


class GroupSchema(FiguresSchema):
    """One group with its figures."""

    month = ma.fields.String(metadata={"description": "Such as 2026-11."})
    day = ma.fields.String(metadata={"example": "2026-11-23"})
    hour = ma.fields.String(metadata={"description": f"Such as 2026-11-23T09:00. {_OF_HOURS}"})
    five_minutes = ma.fields.String(metadata={"description": f"Such as 2026-11-23T09:15. {_OF_HOURS}"})
    template_id = ma.fields.String(allow_none=True, metadata={"example": "540"})
    account = ma.fields.String()
    operator = ma.fields.String(allow_none=True)
    province = ma.fields.String(allow_none=True)


DeliverySchema = ma.Schema.from_dict(
    {
        "timezone": ma.fields.String(required=True, metadata={"description": "Of months, days and hours."}),
        "allocation": ma.fields.String(
            metadata={"description": "Where operators and provinces come from: a dated table, porting ignored."}
        ),
        "whole_since": OurTime(
            metadata={"description": "Given where messages were read, and those sent before then are pruned in part."}
        ),
        "items": ma.fields.List(ma.fields.Nested(GroupSchema), required=True),
        "total": ma.fields.Nested(FiguresSchema, required=True),
    },
    name="Delivery",
)


@blueprint.route("/reports/delivery")
class Delivery(MethodView):
    """The delivery report."""

    @operation(blueprint, "get_delivery_report")
    @documents(blueprint, 401, 403, 422, 503)
    @blueprint.arguments(DeliveryFilterSchema, location="query")
    @blueprint.response(200, DeliverySchema)
    @documents_text(blueprint, CSV)
    def get(self, arguments: dict[str, Any]) -> Any:
        """Return the figures of sent messages up to now. As CSV with `Accept: text/csv`."""
        services = runtime()
        question = _question(arguments, arguments["group_by"], services.settings.timezone)
        (groups, total), whole_since = runtime().browse(
            lambda connection: (
                delivery.delivery_report(connection, question, services.clock()),
                delivery.whole_since(connection, question),
            )
        )
        names = [name for name in _GROUPS if name in arguments["group_by"]]
        items = [dict(zip(names, key, strict=True)) | _shown(figures) for key, figures in groups.items()]
        if request.accept_mimetypes.best_match(["application/json", CSV]) == CSV:
            return Response(_as_csv([*names, *_shown(total)], items), content_type=f"{CSV}; charset=utf-8")
        source: dict[str, Any] = {"allocation": allocation().source} if question.allocated else {}
        if whole_since is not None:
            source |= {"whole_since": whole_since}
        return {"timezone": str(question.zone), **source, "items": items, "total": _shown(total)}


def _question(arguments: dict[str, Any], groups: list[str], zone: ZoneInfo) -> ReportQuestion:
    since, until = arguments["from_"], arguments["to"]
    unit = next((Unit(name) for name in groups if name in set(Unit)), None)
    if since.year < _EARLIEST_YEAR:
        raise Invalid({"#/from": f"before {_EARLIEST_YEAR}"})
    allocated = tuple(_allocated(arguments, groups))
    most = _MAX_DAYS.get(unit, _MAX_DAYS_BY_NUMBER if allocated else _MAX_DAYS_OF_OTHERS)
    _require_span(since, until, timedelta(days=most), f", by {unit.value if unit else 'anything'}")
    return ReportQuestion(
        since=since,
        until=until,
        zone=zone,
        unit=unit,
        by_template="template_id" in groups,
        by_account="account" in groups,
        accounts=readable_accounts(arguments.get("account")),
        template_id=arguments.get("template_id"),
        allocated=allocated,
    )


def _allocated(arguments: dict[str, Any], groups: list[str]) -> Iterator[CarrierGroup]:
    """Yield the groups and filters by carrier. Raises MissingExtra."""
    for name in _ALLOCATED:
        wanted = arguments.get(name)
        if wanted is not None or name in groups:
            yield CarrierGroup(name=name, of_prefix=getattr(allocation(), name), grouped=name in groups, wanted=wanted)


_PERCENTS = (50, 95, 99)
_LATENCIES = [f"latency_p{percent}_seconds" for percent in _PERCENTS]


def _shown(figures: DeliveryFigures) -> dict[str, Any]:
    return {
        "sent": figures.sent,
        "refused": figures.refused,
        "outcome_unknown": figures.outcome_unknown,
        "delivered": figures.delivered,
        "failed": figures.failed,
        "unknown": figures.unknown,
        "pending": figures.pending,
        "no_receipt": figures.no_receipt,
        "delivery_rate": _rounded(figures.delivery_rate),
        **dict(zip(_LATENCIES, figures.percentiles_seconds(_PERCENTS), strict=True)),
        "verified": figures.verified,
        "conversion_rate": _rounded(figures.conversion_rate),
        "unmatched": figures.unmatched,
        "match_rate": _rounded(figures.match_rate),
    }


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 6)


def _as_csv(columns: list[str], items: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\r\n")
    table.writeheader()
    table.writerows({name: neutral(value) for name, value in item.items()} for item in items)
    return text.getvalue()


_BUSIEST_MAX = timedelta(days=2)


class BusiestFilterSchema(SpanSchema):
    """Span and thresholds of the busiest numbers."""

    by = ma.fields.Enum(
        By,
        by_value=True,
        load_default=By.PREFIX,
        error_messages={"unknown": InputFault.NOT_A_CHOICE},
        metadata={"description": "A prefix is 7 digits."},
    )
    min_sent = WholeNumber(
        load_default=SPIKE_MIN_SENT,
        validate=ma.validate.Range(min=2),
        metadata={"description": "Minimum of messages in the hour."},
    )
    limit = WholeNumber(load_default=50, validate=ma.validate.Range(min=1, max=200))


class BusySchema(ma.Schema):
    """One number or prefix in one hour."""

    hour = ma.fields.String(required=True, metadata={"example": "2026-11-23T09:00", "description": _OF_HOURS})
    mobile = ma.fields.String()
    prefix = ma.fields.String()
    sent = ma.fields.Integer(required=True)
    delivered = ma.fields.Integer(required=True)
    verified = ma.fields.Integer(required=True, metadata={"description": "Messages whose code was used."})
    usual_per_hour = ma.fields.Float(
        required=True, metadata={"description": "Messages per hour in the week before `from`."}
    )
    spike = ma.fields.Boolean(required=True, metadata={"description": "At least 20, and five times the usual number."})


BusiestSchema = ma.Schema.from_dict(
    {
        "timezone": ma.fields.String(required=True),
        "items": ma.fields.List(ma.fields.Nested(BusySchema), required=True),
    },
    name="Busiest",
)


@blueprint.route("/reports/busiest")
class Busiest(MethodView):
    """The busiest numbers or prefixes."""

    @operation(blueprint, "get_busiest_report")
    @documents(blueprint, 401, 403, 422, 503)
    @blueprint.arguments(BusiestFilterSchema, location="query")
    @blueprint.response(200, BusiestSchema)
    def get(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the numbers or prefixes with most messages in an hour, with the usual number: shows SMS pumping."""
        since, until, by = arguments["from_"], arguments["to"], arguments["by"]
        _require_span(since, until, _BUSIEST_MAX)
        services = runtime()
        zone, in_full = services.settings.timezone, caller().sees_numbers
        if in_full and by is not By.PREFIX:
            audit_look_up("busiest.read")
        found = runtime().browse(
            lambda connection: list_busiest(
                connection,
                by,
                since=since,
                until=until,
                min_sent=arguments["min_sent"],
                limit=arguments["limit"],
                accounts=readable_accounts(arguments.get("account")),
            )
        )
        items = [
            {
                "hour": delivery.name_of_time(busy.hour.astimezone(zone), Unit.HOUR, zone),
                by.value: busy.key if in_full or by is By.PREFIX else mask_mobile(busy.key),
                "sent": busy.sent,
                "delivered": busy.delivered,
                "verified": busy.verified,
                "usual_per_hour": round(busy.usual, 3),
                "spike": busy.spike,
            }
            for busy in found
        ]
        return {"timezone": str(zone), "items": items}


_BILLING_MAX_DAYS = 31  # every reading is read


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
            raise ma.ValidationError(InputFault.NOT_A_DAY)
        return day


class BillingFilterSchema(StrictSchema):
    """Days and account of a billing report."""

    from_ = Day(required=True, data_key="from", metadata={"description": "The first day."})
    to = Day(required=True, metadata={"description": f"The day after the last; {_SAME_DAY}"})
    account = Text(max_chars=64, metadata={"description": "One of the configured accounts."})


class BillingDaySchema(ma.Schema):
    """One account's day, in the platform's zone."""

    account = ma.fields.String(required=True)
    day = ma.fields.String(required=True, metadata={"format": "date"})
    opening = ma.fields.Integer(
        required=True, allow_none=True, metadata={"description": "Last reading before the day; see `gaps`."}
    )
    top_ups = ma.fields.Integer(required=True, metadata={"description": "Increases between readings."})
    closing = ma.fields.Integer(
        required=True, allow_none=True, metadata={"description": "Last reading of the day, or before it."}
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
        metadata={"description": "opening + top_ups - closing - accepted: decrease of the balance beyond `accepted`."},
    )
    gaps = ma.fields.List(
        ma.fields.String(), required=True, metadata={"description": "Missing data that makes the figures incomplete."}
    )


BillingSchema = ma.Schema.from_dict(
    {"items": ma.fields.List(ma.fields.Nested(BillingDaySchema), required=True)}, name="Billing"
)


@blueprint.route("/reports/billing")
class Billing(MethodView):
    """The balance compared with sent messages."""

    @operation(blueprint, "get_billing_report")
    @documents(blueprint, 401, 403, 422, 503)
    @blueprint.arguments(BillingFilterSchema, location="query")
    @blueprint.response(200, BillingSchema)
    def get(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return each account's balance compared with sent messages, day by day. Applies no pricing rules."""
        services = runtime()
        first, end = arguments["from_"], arguments["to"]
        end += timedelta(days=first == end)
        _require_span(first, end, timedelta(days=_BILLING_MAX_DAYS))
        days = [first + timedelta(days=number) for number in range((end - first).days)]
        bounds = [
            (midnight(day, services.settings.timezone), midnight(day + timedelta(days=1), services.settings.timezone))
            for day in days
        ]
        allowed = readable_accounts(arguments.get("account"))
        accounts = sorted(services.settings.accounts if allowed is None else allowed)
        found = runtime().browse(lambda connection: balance.list_billing(connection, accounts, bounds))
        day_of = {begins_at: day for (begins_at, _), day in zip(bounds, days, strict=True)}
        return {"items": [asdict(row) | {"day": day_of[row.begins_at].isoformat()} for row in found]}
