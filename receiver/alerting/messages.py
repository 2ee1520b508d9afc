"""Notifications: the fault, its start, the remedy, and links."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from receiver.alerting.follow import Incident, IncidentState
from receiver.alerting.notifiers import Notification
from receiver.alerting.rules import Alarm
from receiver.alerting.texts import explain, texts_of, title_of
from receiver.docs import library
from receiver.translations import gettext_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from zoneinfo import ZoneInfo


@dataclass(frozen=True, kw_only=True, slots=True)
class MessageContext:
    """Language, time zone, node, status page and documentation of a message."""

    language: str
    zone: ZoneInfo  # of the times
    node: str
    status_url: str
    docs_url: str | None = None  # of the documentation in the console; None: browsers reach no console


def write_incident(incident: Incident, state: IncidentState, place: MessageContext) -> Notification:
    """Return the message for the start or end of an incident."""
    _, alarm = gettext_of(place.language), incident.alarm
    head = _("RESOLVED") if state is IncidentState.RECOVERED else _("ALARM") if alarm.critical else _("WARNING")
    since = _time(incident.since, place)
    lines = [
        "[receiver] " + _("{what}: {why}").format(what=head, why=title_of(incident, place.language)),
        explain(incident, place.language, forecasts=state is IncidentState.FIRING),
    ]
    if state is IncidentState.FIRING:
        remedy = _(texts_of(alarm, incident.evidence).remedy)
        lines += [_("Since: {since}").format(since=since), _("Action: {remedy}").format(remedy=remedy)]
    else:
        ended = _time(incident.recovered_at or incident.since, place)
        lines.append(_("It lasted from {since} to {ended}.").format(since=since, ended=ended))
    lines.append(_("Details: {runbook}, {status}").format(runbook=_runbook(alarm, place), status=place.status_url))
    lines.append(_("Node: {node}").format(node=place.node))
    return Notification(text="\n".join(lines), fields=_fields(incident, state, place))


def _runbook(alarm: Alarm, place: MessageContext) -> str:
    """Return where the runbook's section is read. The console does not answer when the server is down."""
    if place.docs_url is None or alarm is Alarm.SERVER_DOWN:
        return f"receiver docs {alarm.heading}"
    return f"{place.docs_url}/{library().find_alarm(alarm.heading)}"


def write_test(place: MessageContext) -> Notification:
    """Return a test message."""
    _ = gettext_of(place.language)
    test = "[receiver] " + _("TEST: this is a test alarm; nothing is wrong.")
    text = "\n".join([test, _("Node: {node}").format(node=place.node)])
    return Notification(text=text, fields={"name": "test", "state": "test", "severity": "none", "node": place.node})


def _fields(incident: Incident, state: IncidentState, place: MessageContext) -> Mapping[str, Any]:
    return {
        "name": incident.alarm,
        "subject": incident.subject,
        "state": state,
        "severity": "critical" if incident.alarm.critical else "warning",
        "since": incident.since.isoformat(),
        "recovered_at": incident.recovered_at and incident.recovered_at.isoformat(),
        "evidence": dict(incident.evidence),
        "node": place.node,
    }


def _time(moment: datetime, place: MessageContext) -> str:
    return f"{moment.astimezone(place.zone):%Y-%m-%d %H:%M:%S} ({place.zone.key})"
