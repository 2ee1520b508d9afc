"""Reports: pictures of how it went, each with its table and its CSV; and whole lists as files."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import marshmallow as ma
from flask import Response, request
from flask_babel import gettext, lazy_gettext

from receiver.errors import NotFound
from receiver.exports import Format, neutral
from receiver.store import balance, reports, signals
from receiver.store.reports import Figures, ReportQuestion, Unit
from receiver.web import runtime
from receiver.web.api.exports import FORMS, answer_export
from receiver.web.console.pages import blueprint, faults, render

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import sqlalchemy as sa

_DAYS = 7
_DAYS_MAX = 366
_PERCENTS = (50, 95, 99)
_MINUTES = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
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
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    chart: str | None = None  # `bars` or `lines`
    note: Any = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What the address asks for."""

    first: date
    last: date  # the day itself is part of it
    template_id: str | None
    account: str | None
    compare: bool

    @property
    def days(self) -> int:
        """How many."""
        return (self.last - self.first).days + 1

    def before(self) -> Asked:
        """As many days, right before."""
        length = timedelta(days=self.days)
        return replace(self, first=self.first - length, last=self.last - length)

    def question(self, **by: Any) -> ReportQuestion:
        """Give the same as the store takes it."""
        return ReportQuestion(
            since=_midnight(self.first),
            until=_midnight(self.last + timedelta(days=1)),
            zone=runtime().settings.timezone,
            template_id=self.template_id,
            accounts=(self.account,) if self.account else None,
            **by,
        )


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=runtime().settings.timezone).astimezone(UTC)


def _asked() -> tuple[Asked, dict[str, str]]:
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
    if account is not None and account not in runtime().settings.accounts:
        errors["account"], account = gettext("No such account is configured."), None
    template_id = given.get("template_id", "").strip() or None
    if template_id is not None and "\0" in template_id:
        errors["template_id"], template_id = gettext("No template has such an id."), None
    asked = Asked(first=first, last=last, template_id=template_id, account=account, compare="compare" in given)
    return asked, errors


@blueprint.get("/reports", endpoint="reports")
def reports_page() -> Response:
    """Show how it went."""
    asked, errors = _asked()
    tables = runtime().ask(lambda connection: [make(connection, asked) for make in TABLES.values()])
    totals = runtime().ask(lambda connection: _totals(connection, asked))
    silence = runtime().ask(lambda connection: signals.find_silence(connection, now=runtime().now()))
    return render(
        "reports.html",
        422 if errors else 200,
        asked=asked,
        errors=errors,
        tables=tables,
        totals=totals,
        silence=silence,
        accounts=sorted(runtime().settings.accounts),
    )


@blueprint.get("/reports/<name>.csv")
def report_csv(name: str) -> Response:
    """Give one table as a file; no cell begins a spreadsheet's formula."""
    if name not in TABLES:
        raise NotFound(gettext("There is no such table."))
    asked, errors = _asked()
    if errors:
        return reports_page()
    table = runtime().ask(lambda connection: TABLES[name](connection, asked))
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


def _delivery(connection: sa.Connection, question: ReportQuestion) -> tuple[Mapping[Any, Figures], Figures]:
    return reports.delivery_report(connection, question, runtime().clock())


def _totals(connection: sa.Connection, asked: Asked) -> list[tuple[str, Figures]]:
    """Give the figures of the period, and of the one before where they are to be compared."""
    totals = [("now", _delivery(connection, asked.question())[1])]
    if asked.compare:
        totals.append(("before", _delivery(connection, asked.before().question())[1]))
    return totals


_DAY = Column(label=lazy_gettext("Day"), form="text")


def _by_day(connection: sa.Connection, asked: Asked) -> list[tuple[str, Figures]]:
    groups, _ = _delivery(connection, asked.question(unit=Unit.DAY))
    days = [(asked.first + timedelta(days=number)).isoformat() for number in range(asked.days)]
    return [(day, groups.get((day,), Figures())) for day in days]


def _days(connection: sa.Connection, asked: Asked) -> Table:
    columns = [
        _DAY,
        Column(label=lazy_gettext("Delivered"), colour="ok"),
        Column(label=lazy_gettext("Failed"), colour="bad"),
        Column(label=lazy_gettext("Never reported"), colour="unsure"),
        Column(label=lazy_gettext("Pending"), colour="wait"),
        Column(label=lazy_gettext("Sent"), plotted=False),
        Column(label=lazy_gettext("Refused"), plotted=False),
        Column(label=lazy_gettext("Unmatched"), plotted=False),
    ]
    rows = [
        (day, f.delivered, f.failed, f.no_receipt, f.pending, f.sent, f.refused, f.unmatched)
        for day, f in _by_day(connection, asked)
    ]
    return Table(
        name="days",
        title=lazy_gettext("What became of what was sent, by day"),
        columns=columns,
        rows=rows,
        chart="bars",
        note=lazy_gettext("A message counts in the day on which it was sent."),
    )


def _rates(connection: sa.Connection, asked: Asked) -> Table:
    columns = [_DAY, Column(label=lazy_gettext("Delivery rate"), form="percent", unit="%")]
    rows: list[tuple[Any, ...]] = [(day, _rounded(f.delivery_rate)) for day, f in _by_day(connection, asked)]
    if asked.compare:
        columns.append(Column(label=lazy_gettext("The period before"), form="percent", unit="%"))
        before = [_rounded(f.delivery_rate) for _, f in _by_day(connection, asked.before())]
        rows = [(*row, rate) for row, rate in zip(rows, before, strict=True)]
    return Table(name="rates", title=lazy_gettext("Delivery rate, by day"), columns=columns, rows=rows, chart="lines")


def _latencies(connection: sa.Connection, asked: Asked) -> Table:
    columns = [
        _DAY,
        *(
            Column(label=gettext("%(percent)s %% arrived within", percent=percent), form="duration", unit="s")
            for percent in _PERCENTS
        ),
    ]
    rows = [(day, *figures.percentiles_seconds(_PERCENTS)) for day, figures in _by_day(connection, asked)]
    return Table(
        name="latencies",
        title=lazy_gettext("How long delivery took, by day"),
        columns=columns,
        rows=rows,
        chart="lines",
        note=lazy_gettext("From sending to the operator's report, of delivered messages, in whole seconds."),
    )


def _templates(connection: sa.Connection, asked: Asked) -> Table:
    groups, _ = _delivery(connection, asked.question(by_template=True))
    columns = [
        Column(label=lazy_gettext("Template"), form="text"),
        Column(label=lazy_gettext("Sent"), plotted=False),
        Column(label=lazy_gettext("Delivered"), colour="ok"),
        Column(label=lazy_gettext("Failed"), colour="bad"),
        Column(label=lazy_gettext("Never reported"), colour="unsure"),
        Column(label=lazy_gettext("Delivery rate"), form="percent", plotted=False),
        Column(label=gettext("%(percent)s %% arrived within", percent=95), form="duration", plotted=False),
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


def _replies(connection: sa.Connection, asked: Asked) -> Table:
    found = reports.replies_by_day(connection, asked.question())
    days = [(asked.first + timedelta(days=number)).isoformat() for number in range(asked.days)]
    return Table(
        name="replies",
        title=lazy_gettext("Replies, by day"),
        columns=[_DAY, Column(label=lazy_gettext("Replies")), Column(label=lazy_gettext("Opt-outs"))],
        rows=[(day, *found.get(day, (0, 0))) for day in days],
        chart="bars",
    )


def _balances(connection: sa.Connection, asked: Asked) -> Table:  # noqa: ARG001  (as every table)
    now = runtime().now()
    columns = [
        Column(label=lazy_gettext("Account"), form="text"),
        Column(label=lazy_gettext("Messages left")),
        Column(label=lazy_gettext("As of"), form="moment"),
        Column(label=lazy_gettext("Used a day")),
        Column(label=lazy_gettext("Days left")),
        Column(label=lazy_gettext("Warned below")),
    ]
    rows = []
    for account, reading in balance.find_last_readings(connection).items():
        trend = balance.find_trend(connection, account, now=now)
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


def _minutes(connection: sa.Connection, asked: Asked) -> Table:  # noqa: ARG001  (as every table)
    zone = runtime().settings.timezone
    found = signals.list_minutes(connection, now=runtime().now(), minutes=_MINUTES)
    columns = [
        Column(label=lazy_gettext("Minute"), form="text"),
        Column(label=lazy_gettext("Pushes")),
        Column(label=lazy_gettext("Sent")),
        Column(label=lazy_gettext("Receipts")),
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


TABLES: Mapping[str, Callable[[sa.Connection, Asked], Table]] = {
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
    return render("exports.html", status, names=tuple(FORMS), formats=tuple(Format), **values)


@blueprint.get("/exports/<name>")
def export(name: str) -> Any:
    """Give a whole list as a file, numbers masked."""
    if name not in FORMS:
        raise NotFound(gettext("There is no such list."))
    given = {field: value.strip() for field, value in request.args.items() if value.strip()}
    try:
        arguments = FORMS[name]().load(given)
    except ma.ValidationError as error:
        return _offer(422, errors=faults(error), given=given)
    return answer_export(name, arguments)
