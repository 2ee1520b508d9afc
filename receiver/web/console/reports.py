"""Reports with charts, tables and CSV; and exports."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import marshmallow as ma
from flask import Response, request
from flask_babel import gettext, lazy_gettext

from receiver.core import NotFound, midnight, neutral
from receiver.messages import balance
from receiver.messages.export_files import FileFormat
from receiver.messages.export_sheets import SHEET_ROWS
from receiver.reporting import delivery as reports
from receiver.reporting.figures import DeliveryFigures, ReportQuestion, Unit
from receiver.support import signals
from receiver.web import runtime
from receiver.web.console.pages import blueprint, faults, render
from receiver.web.console.session import current_user, seen_accounts
from receiver.web.lists.exports import FORMS, answer_export

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from receiver.db.engine import Connection

_DAYS = 7
_DAYS_MAX = 366
_PERCENTS = (50, 95, 99)
_MINUTES = 60


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
    chart: str | None = None  # `bars` or `lines`
    note: Any = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportParams:
    """The parameters of the page."""

    first: date
    last: date  # inclusive
    template_id: str | None
    account: str | None
    compare: bool

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

    def _delivery(self, params: ReportParams) -> tuple[list[tuple[str, DeliveryFigures]], DeliveryFigures]:
        groups, total = reports.delivery_report(
            self.connection, params.question(unit=Unit.DAY), runtime().clock(self.now)
        )
        return [(day, groups.get((day,), DeliveryFigures())) for day in params.days], total


def _read_params() -> tuple[ReportParams, dict[str, str]]:
    """Return the parameters of the URL and their faults; a faulty period becomes the last week."""
    given, errors = request.args, {}
    today = runtime().now().astimezone(runtime().settings.timezone).date()
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
    account = given.get("account", "").strip() or None
    if account is not None and account not in seen_accounts():
        errors["account"], account = gettext("This account is not configured."), None
    template_id = given.get("template_id", "").strip() or None
    if template_id is not None and "\0" in template_id:
        errors["template_id"], template_id = gettext("Not a valid template id."), None
    params = ReportParams(first=first, last=last, template_id=template_id, account=account, compare="compare" in given)
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


def _days(source: ReportData) -> Table:
    columns = [
        _DAY,
        ReportColumn(label=lazy_gettext("Delivered"), colour="ok"),
        ReportColumn(label=lazy_gettext("Failed"), colour="bad"),
        ReportColumn(label=lazy_gettext("No receipt"), colour="unsure"),
        ReportColumn(label=lazy_gettext("Pending"), colour="wait"),
        ReportColumn(label=lazy_gettext("Sent"), plotted=False),
        ReportColumn(label=lazy_gettext("Refused"), plotted=False),
        ReportColumn(label=lazy_gettext("Unmatched"), plotted=False),
    ]
    rows = [
        (day, f.delivered, f.failed, f.no_receipt, f.pending, f.sent, f.refused, f.unmatched)
        for day, f in source.delivery[0]
    ]
    return Table(
        name="days",
        title=lazy_gettext("Outcome by day"),
        columns=columns,
        rows=rows,
        chart="bars",
        note=lazy_gettext("Messages are counted on the day they were sent."),
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
            ReportColumn(label=gettext("%(percent)s %% delivered within", percent=percent), form="duration", unit="s")
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
    ]
    return Table(name="templates", title=lazy_gettext("By template"), columns=columns, rows=rows, chart="bars")


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
    "rates": _rates,
    "latencies": _latencies,
    "templates": _templates,
    "replies": _replies,
    "balances": _balances,
    "minutes": _minutes,
}


# --- Exports ------------------------------------------------------------------------------------------


@blueprint.get("/exports")
def exports() -> Response:
    """Show the page of exports."""
    return _offer(200, errors={}, given={})


def _offer(status: int, **values: Any) -> Response:
    return render(
        "exports.html",
        status,
        names=tuple(FORMS),
        formats=tuple(FileFormat),
        sheet_rows=f"{SHEET_ROWS:,}",
        **values,
    )


@blueprint.get("/exports/<name>")
def export(name: str) -> Any:
    """Return a complete list as a file, with masked numbers."""
    if name not in FORMS:
        raise NotFound(gettext("There is no such list."))
    given = {field: value.strip() for field, value in request.args.items() if value.strip()}
    try:
        arguments = FORMS[name]().load(given)
    except ma.ValidationError as error:
        return _offer(422, errors=faults(error), given=given)
    return answer_export(name, arguments)
