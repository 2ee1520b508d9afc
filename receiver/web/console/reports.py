"""Reports with charts, tables and CSV."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flask import Response, request
from flask_babel import gettext, lazy_gettext

from receiver.core import DeliveryStatus, MissingExtra, NotFound, midnight, neutral
from receiver.messages import balance
from receiver.reporting import delivery as reports
from receiver.reporting.carriers import allocation
from receiver.reporting.figures import DeliveryFigures, ReportQuestion, Unit
from receiver.support import reasons, signals
from receiver.web import runtime
from receiver.web.console import state_words
from receiver.web.console.filters import moment
from receiver.web.console.pages import blueprint, render
from receiver.web.console.session import current_user, seen_accounts
from receiver.web.lists.spans import DAYS, find_days

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from receiver.db.engine import Connection

_DAYS = 7
_DAYS_MAX = 366
_PERCENTS = (50, 95, 99)
_PERCENTS_DRAWN = (50, 95)  # beside the slowest hundredth, the others would lie on the axis
_MINUTES = 60
_HOURLY_DAYS = 2
_ROWS_SHOWN = 20  # of a table by template or reason; the file has all


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportColumn:
    """One column of a table: its label and format."""

    label: Any
    form: str = "number"  # a filter of the templates, or `text`
    plotted: bool = True
    unit: str = ""
    colour: str = ""  # one of the state colours; else the chart's own


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """One report: a table, shown as chart and CSV too."""

    name: str
    title: Any
    columns: Sequence[ReportColumn]
    rows: Sequence[Sequence[Any]]
    chart: str | None = None  # `bars` or `lines`: drawn above; `shares`: a bar beside each row
    note: Any = None

    def bar(self, row: Sequence[Any]) -> Iterator[tuple[float, float, str]]:
        """Return the pieces of a row's bar: beginning and length in percent of the longest bar, and colour."""
        most = max(sum(value for _, value in self._plotted(each)) for each in self.rows) or 1
        at = 0.0
        for column, value in self._plotted(row):
            length = 100 * value / most
            yield round(at, 2), round(length, 2), column.colour or "chart-1"
            at += length

    def _plotted(self, row: Sequence[Any]) -> list[tuple[ReportColumn, float]]:
        pairs = list(zip(self.columns, row, strict=True))[1:]
        return [(column, value or 0) for column, value in pairs if column.plotted]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportParams:
    """The parameters of the page."""

    first: date
    last: date  # inclusive
    template_id: str | None
    account: str | None
    compare: bool
    range: str | None = None  # one of `DAYS`, which gives the days

    @property
    def days(self) -> list[str]:
        """Each day of the period."""
        return [
            (self.first + timedelta(days=number)).isoformat() for number in range((self.last - self.first).days + 1)
        ]

    def before(self) -> ReportParams:
        """The previous period of the same length."""
        length = timedelta(days=len(self.days))
        return replace(self, first=self.first - length, last=self.last - length)

    @property
    def as_query(self) -> dict[str, str | None]:
        """These parameters, as a URL has them: a range by its name, so that a saved link means its own day."""
        period = {"range": self.range} if self.range else {"from": f"{self.first}", "to": f"{self.last}"}
        narrowed = {"template_id": self.template_id, "account": self.account}
        return period | narrowed | {"compare": "1" if self.compare else None}

    def last_days(self, count: int) -> ReportParams:
        """Return the end of the period: at most so many days."""
        return replace(self, first=max(self.first, self.last - timedelta(days=count - 1)))

    def question(self, **by: Any) -> ReportQuestion:
        """Return the parameters as a report query."""
        zone = runtime().settings.timezone
        return ReportQuestion(
            since=midnight(self.first, zone),
            until=midnight(self.last + timedelta(days=1), zone),
            zone=zone,
            template_id=self.template_id,
            accounts=(self.account,) if self.account else current_user().user.accounts,
            **by,
        )


class ReportData:
    """The data of the tables. Data that several tables need is read once."""

    def __init__(self, connection: Connection, params: ReportParams) -> None:
        self.connection = connection
        self.params = params
        self.now = runtime().now()

    @cached_property
    def delivery(self) -> tuple[list[tuple[str, DeliveryFigures]], DeliveryFigures]:
        """The figures by day, and their total."""
        return self._delivery(self.params)

    @cached_property
    def delivery_before(self) -> tuple[list[tuple[str, DeliveryFigures]], DeliveryFigures] | None:
        """The figures of the previous period, if they are compared."""
        return self._delivery(self.params.before()) if self.params.compare else None

    @cached_property
    def sampled(self) -> reasons.Sampled:
        """The messages that reasons are counted over."""
        asked = self.params.question()
        return reasons.Sampled(
            since=asked.since, until=asked.until, accounts=asked.accounts, template_id=asked.template_id
        )

    @cached_property
    def sample_note(self) -> str:
        """What messages these are, for the notes."""
        begin = reasons.find_sample_begin(self.connection, self.sampled)
        if begin is None:
            return str(gettext("Of all messages in this period."))
        text = gettext(
            "Of the newest %(count)s messages in this period, sent since %(begin)s.",
            count=f"{signals.NEWEST_MAX:,}",
            begin=moment(begin).striptags(),
        )
        return str(text)

    def _delivery(self, params: ReportParams) -> tuple[list[tuple[str, DeliveryFigures]], DeliveryFigures]:
        groups, total = reports.delivery_report(
            self.connection, params.question(unit=Unit.DAY), runtime().clock(self.now)
        )
        return [(day, groups.get((day,), DeliveryFigures())) for day in params.days], total


def _read_days(given: Mapping[str, str], today: date) -> tuple[date, date, str | None, dict[str, str]]:
    """Return first day, last day, the range that names them, and faults; the last week stands for what is faulty."""
    errors: dict[str, str] = {}
    named = given.get("range", "").strip()
    if named in DAYS:
        return *find_days(named, today), named, errors
    if named:
        errors["range"] = gettext("There is no such range.")
    days = {"from": today - timedelta(days=_DAYS - 1), "to": today}
    for name in days:
        text = given.get(name, "").strip()
        if not text:
            continue
        try:
            day = date.fromisoformat(text)
        except ValueError:
            day = date.min
        if 1970 < day.year < 9998:
            days[name] = day
        else:
            errors[name] = gettext("Not a valid date.")
    first, last = days["from"], days["to"]
    if first > last:
        errors["to"] = gettext("The last day is before the first day.")
        first = last
    elif (last - first).days >= _DAYS_MAX:
        errors["from"] = gettext("The period is longer than a year.")
        first = last - timedelta(days=_DAYS_MAX - 1)
    return first, last, None, errors


def _read_params() -> tuple[ReportParams, dict[str, str]]:
    """Return the parameters of the URL and their faults."""
    given = request.args
    first, last, named, errors = _read_days(given, runtime().now().astimezone(runtime().settings.timezone).date())
    account = given.get("account", "").strip() or None
    if account is not None and account not in seen_accounts():
        errors["account"], account = gettext("This account is not configured."), None
    template_id = given.get("template_id", "").strip() or None
    if template_id is not None and "\0" in template_id:
        errors["template_id"], template_id = gettext("Not a valid template id."), None
    params = ReportParams(
        first=first, last=last, template_id=template_id, account=account, compare="compare" in given, range=named
    )
    return params, errors


@blueprint.get("/reports", endpoint="reports")
def reports_page() -> Response:
    """Show the reports."""
    params, errors = _read_params()

    def read(connection: Connection) -> tuple[list[Table], DeliveryFigures, DeliveryFigures | None]:
        source = ReportData(connection, params)
        _, total = source.delivery
        before = source.delivery_before
        return [make(source) for make in TABLES.values()], total, before[1] if before else None

    tables, total, total_before = runtime().browse(read)
    return render(
        "reports.html",
        422 if errors else 200,
        params=params,
        errors=errors,
        tables=tables,
        total=total,
        total_before=total_before,
        accounts=seen_accounts(),
        ranges={name: state_words.SPANS[name] for name in DAYS},
        rows_shown=_ROWS_SHOWN,
    )


@blueprint.get("/reports/<name>.csv")
def report_csv(name: str) -> Response:
    """Return one table as CSV, without formulas in cells."""
    if name not in TABLES:
        raise NotFound(gettext("There is no such report."))
    params, errors = _read_params()
    if errors:
        return reports_page()
    table = runtime().browse(lambda connection: TABLES[name](ReportData(connection, params)))
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\r\n")
    lines.writerow([neutral(str(column.label)) for column in table.columns])
    lines.writerows([neutral("" if value is None else value) for value in row] for row in table.rows)
    named = f'attachment; filename="{name}_{params.first}_{params.last}.csv"'
    # With a byte order mark, so that Excel reads UTF-8: column names may be Chinese.
    return Response(
        "\ufeff" + text.getvalue(), content_type="text/csv; charset=utf-8", headers={"Content-Disposition": named}
    )


# --- The tables ---------------------------------------------------------------------------------------


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
