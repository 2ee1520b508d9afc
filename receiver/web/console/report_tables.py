"""The tables of the reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask_babel import gettext, lazy_gettext

from receiver.core import DeliveryStatus, MissingExtra
from receiver.messages import balance
from receiver.reporting import delivery as reports
from receiver.reporting.carriers import allocation
from receiver.reporting.figures import DeliveryFigures, Unit
from receiver.support import reasons, signals
from receiver.web import runtime
from receiver.web.console.report_data import ReportColumn, ReportData, Table
from receiver.web.console.session import current_user

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PERCENTS = (50, 95, 99)
_PERCENTS_DRAWN = (50, 95)  # beside the slowest hundredth, the others would lie on the axis
_MINUTES = 60
_HOURLY_DAYS = 2

_DAY = ReportColumn(label=lazy_gettext("Day"), form="text")
_OUTCOMES = (
    ReportColumn(label=lazy_gettext("Delivered"), colour="ok"),
    ReportColumn(label=lazy_gettext("Failed"), colour="bad"),
    ReportColumn(label=lazy_gettext("No receipt"), colour="unsure"),
    ReportColumn(label=lazy_gettext("Pending"), colour="wait"),
    ReportColumn(label=lazy_gettext("Sent"), plotted=False),
    ReportColumn(label=lazy_gettext("Refused"), plotted=False),
    ReportColumn(label=lazy_gettext("Unmatched"), plotted=False),
)


def _outcomes(figures: DeliveryFigures) -> tuple[int, ...]:
    """Return the values of `_OUTCOMES`."""
    names = ("delivered", "failed", "no_receipt", "pending", "sent", "refused", "unmatched")
    return tuple(getattr(figures, name) for name in names)


def _days(source: ReportData) -> Table:
    return Table(
        name="days",
        title=lazy_gettext("Outcome by day"),
        columns=(_DAY, *_OUTCOMES),
        rows=[(day, *_outcomes(figures)) for day, figures in source.delivery[0]],
        chart="bars",
        note=lazy_gettext("Messages are counted on the day they were sent."),
    )


def _hours(source: ReportData) -> Table:
    params = source.params.last_days(_HOURLY_DAYS)
    found, _ = reports.delivery_report(
        source.connection, params.question(unit=Unit.HOUR, counts_alone=True), runtime().clock(source.now)
    )
    groups = {f"{day}T{hour:02}:00": DeliveryFigures() for day in params.days for hour in range(24)}
    groups |= {str(key[0]): figures for key, figures in found.items()}
    return Table(
        name="hours",
        title=lazy_gettext("Outcome by hour"),
        columns=(ReportColumn(label=lazy_gettext("Hour"), form="text"), *_OUTCOMES),
        rows=[(hour.replace("T", " "), *_outcomes(groups[hour])) for hour in sorted(groups)],
        chart="bars",
        note=lazy_gettext("The last two days of the period."),
    )


def _rates(source: ReportData) -> Table:
    columns = [_DAY, ReportColumn(label=lazy_gettext("Delivery rate"), form="percent", unit="%")]
    rows: list[tuple[Any, ...]] = [(day, _rounded(f.delivery_rate)) for day, f in source.delivery[0]]
    if source.delivery_before:
        columns.append(ReportColumn(label=lazy_gettext("Previous period"), form="percent", unit="%"))
        before = [_rounded(f.delivery_rate) for _, f in source.delivery_before[0]]
        rows = [(*row, rate) for row, rate in zip(rows, before, strict=True)]
    return Table(name="rates", title=lazy_gettext("Delivery rate by day"), columns=columns, rows=rows, chart="lines")


def _latencies(source: ReportData) -> Table:
    columns = [
        _DAY,
        *(
            ReportColumn(
                label=gettext("%(percent)s %% delivered within", percent=percent),
                form="duration",
                unit="s",
                plotted=percent in _PERCENTS_DRAWN,
            )
            for percent in _PERCENTS
        ),
    ]
    rows = [(day, *figures.percentiles_seconds(_PERCENTS)) for day, figures in source.delivery[0]]
    return Table(
        name="latencies",
        title=lazy_gettext("Delivery time by day"),
        columns=columns,
        rows=rows,
        chart="lines",
        note=lazy_gettext("From sending to the operator's receipt, for delivered messages, in whole seconds."),
    )


def _templates(source: ReportData) -> Table:
    groups, _ = reports.delivery_report(
        source.connection, source.params.question(by_template=True), runtime().clock(source.now)
    )
    columns = [
        ReportColumn(label=lazy_gettext("Template"), form="text"),
        ReportColumn(label=lazy_gettext("Sent"), plotted=False),
        ReportColumn(label=lazy_gettext("Delivered"), colour="ok"),
        ReportColumn(label=lazy_gettext("Failed"), colour="bad"),
        ReportColumn(label=lazy_gettext("No receipt"), colour="unsure"),
        ReportColumn(label=lazy_gettext("Delivery rate"), form="percent", plotted=False),
        ReportColumn(label=gettext("%(percent)s %% delivered within", percent=95), form="duration", plotted=False),
    ]
    most_first = sorted(groups.items(), key=lambda group: (-group[1].sent, group[0][0] or ""))
    rows = [
        (
            key[0],
            f.sent,
            f.delivered,
            f.failed,
            f.no_receipt,
            _rounded(f.delivery_rate),
            f.percentiles_seconds((95,))[0],
        )
        for key, f in most_first
        if f.sent or f.refused  # a template that only unmatched receipts name has no outcome
    ]
    return Table(
        name="templates", title=lazy_gettext("Outcome by template"), columns=columns, rows=rows, chart="shares"
    )


def _operators(source: ReportData) -> Table:
    columns = [
        ReportColumn(label=lazy_gettext("Operator"), form="text"),
        ReportColumn(label=lazy_gettext("Sent"), plotted=False),
        ReportColumn(label=lazy_gettext("Delivered"), colour="ok"),
        ReportColumn(label=lazy_gettext("Failed"), colour="bad"),
        ReportColumn(label=lazy_gettext("Without a receipt"), colour="wait"),
        ReportColumn(label=lazy_gettext("Delivery rate"), form="percent", plotted=False),
    ]
    rows = []
    try:
        operator = allocation().operator
    except MissingExtra:
        note = gettext("Not available: the table of number ranges (the extra `numbers`) is not installed.")
    else:
        note = source.sample_note + " " + gettext("By number range; ported numbers count for their first operator.")
        found = reasons.count_by_operator(source.connection, source.sampled, operator)
        rows = [
            (name, f.sent, f.delivered, f.failed, f.waiting, _rounded(f.delivered / f.sent))
            for name, f in found.items()
        ]
    title = lazy_gettext("Outcome by operator")
    return Table(name="operators", title=title, columns=columns, rows=rows, chart="shares", note=note)


def _refusals(source: ReportData) -> Table:
    return Table(
        name="refusals",
        title=lazy_gettext("Refusals by reason"),
        columns=(
            ReportColumn(label=lazy_gettext("Reason given by the platform"), form="text"),
            ReportColumn(label=lazy_gettext("Refused"), colour="bad"),
        ),
        rows=reasons.count_refusals(source.connection, source.sampled),
        chart="shares",
        note=source.sample_note,
    )


_MEANINGS = {
    DeliveryStatus.DELIVERED: lazy_gettext("Delivered"),
    DeliveryStatus.FAILED: lazy_gettext("Failed"),
    DeliveryStatus.UNKNOWN: lazy_gettext("Unclear"),
}


def _statuses(source: ReportData) -> Table:
    found = reasons.count_vendor_statuses(source.connection, source.sampled)
    return Table(
        name="statuses",
        title=lazy_gettext("Receipts by status value"),
        columns=(
            ReportColumn(label=lazy_gettext("Status value"), form="text"),
            ReportColumn(label=lazy_gettext("Meaning"), form="text", plotted=False),
            ReportColumn(label=lazy_gettext("Receipts")),
        ),
        rows=[(value, _MEANINGS[meaning], count) for value, meaning, count in found],
        chart="shares",
        note=source.sample_note,
    )


def _replies(source: ReportData) -> Table:
    found = reports.replies_by_day(source.connection, source.params.question())
    return Table(
        name="replies",
        title=lazy_gettext("Replies by day"),
        columns=[_DAY, ReportColumn(label=lazy_gettext("Replies")), ReportColumn(label=lazy_gettext("Opt-outs"))],
        rows=[(day, *found.get(day, (0, 0))) for day in source.params.days],
        chart="bars",
    )


def _balances(source: ReportData) -> Table:
    columns = [
        ReportColumn(label=lazy_gettext("Account"), form="text"),
        ReportColumn(label=lazy_gettext("Messages left")),
        ReportColumn(label=lazy_gettext("As of"), form="moment"),
        ReportColumn(label=lazy_gettext("Used per day")),
        ReportColumn(label=lazy_gettext("Days left")),
        ReportColumn(label=lazy_gettext("Alert below")),
    ]
    rows = []
    own = current_user().user.accounts
    for account, reading in balance.find_last_readings(source.connection, now=source.now).items():
        if own is not None and account not in own:
            continue
        trend = balance.find_trend(source.connection, account, now=source.now)
        used, left = (None if value is None else round(value, 1) for value in (trend.per_day, trend.days_left))
        threshold = runtime().settings.balance_low_of(account)
        rows.append((account, reading.remain_point, reading.answered_at, used, left, threshold))
    return Table(
        name="balances",
        title=lazy_gettext("Balance"),
        columns=columns,
        rows=rows,
        note=lazy_gettext("The balance is the platform's answer. The usage is the average of the last week."),
    )


def _minutes(source: ReportData) -> Table:
    zone = runtime().settings.timezone
    every = current_user().user.accounts is None  # minutes are counted over all accounts
    found = signals.list_minutes(source.connection, now=source.now, minutes=_MINUTES) if every else []
    columns = [
        ReportColumn(label=lazy_gettext("Minute"), form="text"),
        ReportColumn(label=lazy_gettext("Pushes")),
        ReportColumn(label=lazy_gettext("Sent")),
        ReportColumn(label=lazy_gettext("Receipts")),
    ]
    rows = [(f"{minute.at.astimezone(zone):%H:%M}", minute.pushes, minute.sent, minute.receipts) for minute in found]
    return Table(
        name="minutes",
        title=lazy_gettext("Pushes and sends per minute"),
        columns=columns,
        rows=rows,
        chart="lines",
    )


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 4)


TABLES: Mapping[str, Callable[[ReportData], Table]] = {
    "days": _days,
    "hours": _hours,
    "rates": _rates,
    "latencies": _latencies,
    "templates": _templates,
    "operators": _operators,
    "refusals": _refusals,
    "statuses": _statuses,
    "replies": _replies,
    "balances": _balances,
    "minutes": _minutes,
}
