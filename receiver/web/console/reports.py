"""Reports with charts, tables and CSV."""

from __future__ import annotations

import csv
import io
from datetime import date, timedelta
from typing import TYPE_CHECKING

from flask import Response, request
from flask_babel import gettext

from receiver.core import NotFound, neutral
from receiver.web import runtime
from receiver.web.console import state_words
from receiver.web.console.pages import blueprint, render
from receiver.web.console.report_data import ReportData, ReportParams, Table
from receiver.web.console.report_tables import TABLES
from receiver.web.console.session import seen_accounts
from receiver.web.lists.spans import DAYS, find_days

if TYPE_CHECKING:
    from collections.abc import Mapping

    from receiver.db.engine import Connection
    from receiver.reporting.figures import DeliveryFigures

_DAYS_MAX = 366
_ROWS_SHOWN = 20  # of a table by template or reason; the file has all


def _read_days(given: Mapping[str, str], today: date) -> tuple[date, date, str | None, dict[str, str]]:
    """Return first day, last day, the range that names them, and faults; the last week stands for what is faulty."""
    errors: dict[str, str] = {}
    named = given.get("range", "").strip()
    if named in DAYS:
        return *find_days(named, today), named, errors
    if named:
        errors["range"] = gettext("There is no such range.")
    days = dict(zip(("from", "to"), find_days("7d", today), strict=True))
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
