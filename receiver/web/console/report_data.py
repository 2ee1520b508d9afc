"""What reports are made of: the parameters of their page, the data that they share, and a table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flask_babel import gettext

from receiver.core import midnight
from receiver.reporting import delivery as reports
from receiver.reporting.figures import DeliveryFigures, ReportQuestion, Unit
from receiver.support import reasons, signals
from receiver.web import runtime
from receiver.web.console.filters import moment
from receiver.web.console.session import current_user

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from receiver.db.engine import Connection


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
