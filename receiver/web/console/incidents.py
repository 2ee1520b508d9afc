"""The history of incidents, as status pages have it: by day, and one by one."""

from __future__ import annotations

import socket
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from flask import request

from receiver.alerting.history import DAYS, IncidentSpan, PastIncident, count_by_day, list_history, list_spans
from receiver.alerting.node_state import NodeIncidents
from receiver.alerting.texts import describe, title_of
from receiver.core import InvalidCursor
from receiver.web import runtime
from receiver.web.console.error_texts import fault_words
from receiver.web.console.pages import blueprint, language, render
from receiver.web.console.session import current_user, seen_accounts
from receiver.web.lists.pages import read_by_id

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

    from receiver.alerting.follow import Incident
    from receiver.alerting.rules import Finding

_ROWS_MAX = 50


def concerns(one: Finding | Incident) -> bool:
    """Return whether an alarm concerns the user: all do but those of other accounts."""
    return current_user().user.accounts is None or not one.alarm.of_account or one.subject in seen_accounts()


def is_named(one: Finding | Incident) -> bool:
    """Return whether the user may see what an alarm is about."""
    return current_user().user.accounts is None or not one.subject or one.alarm.of_account


def words_of(one: Finding | Incident) -> str:
    """Return what a user reads of an alarm: what explains it is counted over all accounts."""
    return (describe if current_user().user.accounts is None else title_of)(one, language())


@blueprint.get("/incidents")
def incidents() -> Response:
    """Show the incidents of 90 days: of all nodes, and of each; those of other nodes once they are over."""
    services = runtime()
    now, accounts, zone = services.now(), current_user().user.accounts, services.settings.timezone
    midnight = now.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)
    begun = midnight - timedelta(days=DAYS - 1)
    here = [one for one in NodeIncidents(services.settings.data_dir).list_open() if concerns(one) and is_named(one)]
    open_here = [PastIncident(id=0, incident=one, node=socket.gethostname()) for one in here]
    spans, whole_since = services.ask(lambda connection: list_spans(connection, since=begun, accounts=accounts))
    spans += [IncidentSpan(alarm=one.alarm, since=one.since, until=None) for one in here]
    values: dict[str, Any] = {"items": [], "next_cursor": None, "error": None}
    wanted = {"limit": _ROWS_MAX} | ({"cursor": request.args["cursor"]} if request.args.get("cursor") else {})
    try:
        kept, next_cursor = read_by_id(
            "incidents", {"accounts": accounts}, wanted, partial(list_history, accounts=accounts)
        )
        values |= {"items": [*(open_here if "cursor" not in wanted else []), *kept], "next_cursor": next_cursor}
    except InvalidCursor as error:
        values["error"] = fault_words(error.args[0])
    return render(
        "incidents.html",
        422 if values["error"] else 200,
        **values,
        days=count_by_day(spans, since=whole_since, now=now, zone=zone),
        first_page="cursor" not in wanted,
        now=now,
        words_of=words_of,
    )
