"""Home: the search field, how today goes, and one's own look-ups."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import redirect, url_for

from receiver.core import DatabaseMisconfigured, DatabaseUnavailable, midnight
from receiver.reporting.delivery import delivery_report, is_counted
from receiver.reporting.figures import DeliveryFigures, ReportQuestion
from receiver.support import arrivals
from receiver.support.lookup_store import list_recent
from receiver.web import runtime
from receiver.web.console.lookup import PERIODS
from receiver.web.console.pages import blueprint, render
from receiver.web.console.session import Permission, current_user

if TYPE_CHECKING:
    from collections.abc import Mapping

    from werkzeug.wrappers import Response

    from receiver.db.engine import Connection
    from receiver.support.arrivals import LastPush


@dataclass(frozen=True, kw_only=True, slots=True)
class Today:
    """What home shows of this day."""

    figures: DeliveryFigures | None  # None: the stored counts have no such day
    last_push: LastPush | None
    recent: Mapping[str, str]  # the user's own look-ups: text, and the address of each


@blueprint.get("/")
def home() -> Response:
    """Show the search field, or redirect to the reports without permission for look-ups."""
    if not current_user().may(Permission.LOOK_UP):
        return redirect(url_for("console.reports"), HTTPStatus.SEE_OTHER)
    try:
        today = runtime().ask_present(_find_today)
    except (DatabaseUnavailable, DatabaseMisconfigured):  # the banner says so
        today = None
    return render("home.html", periods=PERIODS, today=today, now=runtime().now())


def _find_today(connection: Connection) -> Today:
    services, user = runtime(), current_user().user
    now, zone = services.now(), services.settings.timezone
    day = now.astimezone(zone).date()
    since, until = midnight(day, zone), midnight(day + timedelta(days=1), zone)
    asked = ReportQuestion(since=since, until=until, zone=zone, accounts=user.accounts)
    counted = is_counted(connection, asked)
    return Today(
        figures=delivery_report(connection, asked, services.clock(now))[1] if counted else None,
        last_push=arrivals.find_last_push(connection, user.accounts, now=now),
        recent=list_recent(connection, user.id, now=now),
    )
