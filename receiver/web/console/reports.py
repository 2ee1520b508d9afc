"""Reports: pictures of how it went, each with its table and its CSV; and whole lists as files."""

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

from receiver.core import NotFound, neutral
from receiver.messages import balance
from receiver.messages.export_files import FileFormat
from receiver.reporting import delivery as reports
from receiver.reporting.figures import DeliveryFigures, ReportQuestion, Unit
from receiver.support import signals
from receiver.web import runtime
from receiver.web.api.common import browse
from receiver.web.api.exports import FORMS, SHEET_ROWS_MAX, answer_export
from receiver.web.api.reports import midnight
from receiver.web.console.pages import blueprint, faults, render
from receiver.web.console.session import seen_accounts, visitor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from receiver.db.engine import Connection

_DAYS = 7
_DAYS_MAX = 366
_PERCENTS = (50, 95, 99)
_MINUTES = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportColumn:
    """One column of a table: what it is called, and how its values are written."""

    label: Any
    form: str = "number"  # a filter of the templates, or `text`
    plotted: bool = True
    unit: str = ""
    colour: str = ""  # one of the state colours; else the chart's own


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """One report: a picture, the table that it is drawn from, and a file of it."""

    name: str
    title: Any
    columns: Sequence[ReportColumn]
    rows: Sequence[Sequence[Any]]
    chart: str | None = None  # `bars` or `lines`
    note: Any = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportParams:
    """What the address asks for."""

    first: date
    last: date  # the day itself is part of it
    template_id: str | None
    account: str | None
    compare: bool

    @property
    def days(self) -> list[str]:
        """Each of them."""
        return [
            (self.first + timedelta(days=number)).isoformat() for number in range((self.last - self.first).days + 1)
        ]

    def before(self) -> ReportParams:
        """As many days, right before."""
        length = timedelta(days=len(self.days))
        return replace(self, first=self.first - length, last=self.last - length)

    def question(self, **by: Any) -> ReportQuestion:
        """Return the same as the store takes it."""
        return ReportQuestion(
            since=midnight(self.first),
            until=midnight(self.last + timedelta(days=1)),
            zone=runtime().settings.timezone,
            template_id=self.template_id,
            accounts=(self.account,) if self.account else visitor().user.accounts,
            **by,
        )


class ReportData:
    """What the tables are made from: each thing that several of them need is read once."""

    def __init__(self, connection: Connection, asked: ReportParams) -> None:
        self.connection = connection
        self.asked = asked
        self.now = runtime().now()

    @cached_property
    def delivery(self) -> tuple[list[tuple[str, DeliveryFigures]], DeliveryFigures]:
        """The figures of each day, and of all."""
        return self._delivery(self.asked)

    @cached_property
    def delivery_before(self) -> tuple[list[tuple[str, DeliveryFigures]], DeliveryFigures] | None:
        """The same of the period before, where that is to be compared."""
        return self._delivery(self.asked.before()) if self.asked.compare else None

    def _delivery(self, asked: ReportParams) -> tuple[list[tuple[str, DeliveryFigures]], DeliveryFigures]:
        groups, total = reports.delivery_report(
            self.connection, asked.question(unit=Unit.DAY), runtime().clock(self.now)
        )
        return [(day, groups.get((day,), DeliveryFigures())) for day in asked.days], total


def _asked() -> tuple[ReportParams, dict[str, str]]:
    """Read what the address asks for; what cannot be used is named, and the last week shown."""
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
            errors[name] = gettext("This is not a day.")
    first, last = days["from"], days["to"]
    if first > last:
        errors["to"] = gettext("This is before the first day.")
        first = last
    elif (last - first).days >= _DAYS_MAX:
        errors["from"] = gettext("This is over a year before the last day.")
        first = last - timedelta(days=_DAYS_MAX - 1)
    account = given.get("account", "").strip() or None
    if account is not None and account not in seen_accounts():
        errors["account"], account = gettext("No such account is configured."), None
    template_id = given.get("template_id", "").strip() or None
    if template_id is not None and "\0" in template_id:
        errors["template_id"], template_id = gettext("No template has such an id."), None
    asked = ReportParams(first=first, last=last, template_id=template_id, account=account, compare="compare" in given)
    return asked, errors


@blueprint.get("/reports", endpoint="reports")
def reports_page() -> Response:
    """Show how it went."""
    asked, errors = _asked()

    def read(connection: Connection) -> tuple[list[Table], DeliveryFigures, DeliveryFigures | None]:
        source = ReportData(connection, asked)
        _, total = source.delivery
        before = source.delivery_before
        return [make(source) for make in TABLES.values()], total, before[1] if before else None

    tables, total, total_before = browse(read)
    return render(
        "reports.html",
        422 if errors else 200,
        asked=asked,
        errors=errors,
        tables=tables,
        total=total,
        total_before=total_before,
        accounts=seen_accounts(),
    )


@blueprint.get("/reports/<name>.csv")
def report_csv(name: str) -> Response:
    """Return one table as a file; no cell begins a spreadsheet's formula."""
    if name not in TABLES:
        raise NotFound(gettext("There is no such table."))
    asked, errors = _asked()
    if errors:
        return reports_page()
    table = browse(lambda connection: TABLES[name](ReportData(connection, asked)))
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\r\n")
    lines.writerow([neutral(str(column.label)) for column in table.columns])
    lines.writerows([neutral("" if value is None else value) for value in row] for row in table.rows)
    named = f'attachment; filename="{name}_{asked.first}_{asked.last}.csv"'
    # With the mark that tells Excel the encoding: column names may be Chinese.
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
        ReportColumn(label=lazy_gettext("Never reported"), colour="unsure"),
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
        title=lazy_gettext("What became of what was sent, by day"),
        columns=columns,
        rows=rows,
        chart="bars",
        note=lazy_gettext("A message counts in the day on which it was sent."),
    )


def _rates(source: ReportData) -> Table:
    columns = [_DAY, ReportColumn(label=lazy_gettext("Delivery rate"), form="percent", unit="%")]
    rows: list[tuple[Any, ...]] = [(day, _rounded(f.delivery_rate)) for day, f in source.delivery[0]]
    if source.delivery_before:
        columns.append(ReportColumn(label=lazy_gettext("The period before"), form="percent", unit="%"))
        before = [_rounded(f.delivery_rate) for _, f in source.delivery_before[0]]
        rows = [(*row, rate) for row, rate in zip(rows, before, strict=True)]
    return Table(name="rates", title=lazy_gettext("Delivery rate, by day"), columns=columns, rows=rows, chart="lines")


def _latencies(source: ReportData) -> Table:
    columns = [
        _DAY,
        *(
            ReportColumn(label=gettext("%(percent)s %% arrived within", percent=percent), form="duration", unit="s")
            for percent in _PERCENTS
        ),
    ]
    rows = [(day, *figures.percentiles_seconds(_PERCENTS)) for day, figures in source.delivery[0]]
    return Table(
        name="latencies",
        title=lazy_gettext("How long delivery took, by day"),
        columns=columns,
        rows=rows,
        chart="lines",
        note=lazy_gettext("From sending to the operator's report, of delivered messages, in whole seconds."),
    )


def _templates(source: ReportData) -> Table:
    groups, _ = reports.delivery_report(
        source.connection, source.asked.question(by_template=True), runtime().clock(source.now)
    )
    columns = [
        ReportColumn(label=lazy_gettext("Template"), form="text"),
        ReportColumn(label=lazy_gettext("Sent"), plotted=False),
        ReportColumn(label=lazy_gettext("Delivered"), colour="ok"),
        ReportColumn(label=lazy_gettext("Failed"), colour="bad"),
        ReportColumn(label=lazy_gettext("Never reported"), colour="unsure"),
        ReportColumn(label=lazy_gettext("Delivery rate"), form="percent", plotted=False),
        ReportColumn(label=gettext("%(percent)s %% arrived within", percent=95), form="duration", plotted=False),
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
    found = reports.replies_by_day(source.connection, source.asked.question())
    return Table(
        name="replies",
        title=lazy_gettext("Replies, by day"),
        columns=[_DAY, ReportColumn(label=lazy_gettext("Replies")), ReportColumn(label=lazy_gettext("Opt-outs"))],
        rows=[(day, *found.get(day, (0, 0))) for day in source.asked.days],
        chart="bars",
    )


def _balances(source: ReportData) -> Table:
    columns = [
        ReportColumn(label=lazy_gettext("Account"), form="text"),
        ReportColumn(label=lazy_gettext("Messages left")),
        ReportColumn(label=lazy_gettext("As of"), form="moment"),
        ReportColumn(label=lazy_gettext("Used a day")),
        ReportColumn(label=lazy_gettext("Days left")),
        ReportColumn(label=lazy_gettext("Warned below")),
    ]
    rows = []
    own = visitor().user.accounts
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
        note=lazy_gettext("By the platform's own answers; how fast it is used is taken from the last week."),
    )


def _minutes(source: ReportData) -> Table:
    zone = runtime().settings.timezone
    every = visitor().user.accounts is None  # over which minutes are counted
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
        title=lazy_gettext("Pushes and sends, minute by minute"),
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


# --- Files --------------------------------------------------------------------------------------------


@blueprint.get("/exports")
def exports() -> Response:
    """Offer whole lists as files."""
    return _offer(200, errors={}, given={})


def _offer(status: int, **values: Any) -> Response:
    return render(
        "exports.html",
        status,
        names=tuple(FORMS),
        formats=tuple(FileFormat),
        sheet_rows=f"{SHEET_ROWS_MAX:,}",
        **values,
    )


@blueprint.get("/exports/<name>")
def export(name: str) -> Any:
    """Return a whole list as a file, numbers masked."""
    if name not in FORMS:
        raise NotFound(gettext("There is no such list."))
    given = {field: value.strip() for field, value in request.args.items() if value.strip()}
    try:
        arguments = FORMS[name]().load(given)
    except ma.ValidationError as error:
        return _offer(422, errors=faults(error), given=given)
    return answer_export(name, arguments)
