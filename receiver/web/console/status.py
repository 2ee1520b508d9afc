"""Warnings, status, setup and self-test."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import flash, g, redirect, request, url_for
from flask_babel import gettext

from receiver.alerting import incidents
from receiver.alerting.diagnosis import Situation, judge
from receiver.alerting.node_state import NodeIncidents
from receiver.alerting.push_flow import find_push_flow
from receiver.alerting.rules import find_silence, judge_all, thresholds_of
from receiver.alerting.run import find_stored, gather_figures
from receiver.alerting.texts import title_of
from receiver.config import push_urls
from receiver.core import DatabaseMisconfigured, DatabaseUnavailable, mask_mobile
from receiver.db import once
from receiver.db.clocks import find_difference
from receiver.intake.secret_usage import UNUSED_FOR, find_uses
from receiver.intake.spool import SpoolState, spool_state
from receiver.messages import balance
from receiver.net.egress_policy import EgressError
from receiver.net.probe import can_connect, own_server
from receiver.net.self_test import push_self_test
from receiver.support import arrivals, signals
from receiver.support.answers import moment_of
from receiver.web import denials, runtime
from receiver.web.console.filters import duration, zone_name
from receiver.web.console.incidents import concerns, is_named, words_of
from receiver.web.console.pages import blueprint, language, render
from receiver.web.console.session import current_user, seen_accounts

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

    from receiver.alerting.follow import Incident
    from receiver.alerting.rules import Finding, StoredFigures
    from receiver.messages.balance import Reading, Trend
    from receiver.support.arrivals import LastPush
    from receiver.support.signals import Minute

_LATELY = timedelta(minutes=15)
_REFUSALS_SHOWN = 10
_EVIDENCE_LINES = 20
_MINUTES = 60
_SELF_TEST_SECONDS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Warnings:
    """The warnings at the top of every page."""

    spooling: str | None  # why the database is unavailable
    spool: SpoolState
    silence: Finding | None
    quarantined: int  # not reviewed yet; at most 1,000 are counted


@blueprint.get("/banner")
def banner() -> Response:
    """Return the warnings again, for a page that refreshes."""
    return render("banner.html", warnings=warnings())


@blueprint.app_context_processor
def _warnings_in_templates() -> dict[str, Any]:
    return {"find_warnings": warnings}


def warnings() -> Warnings:
    """Return the warnings, read once per request."""
    if "warnings" not in g:
        g.warnings = _find_warnings()
    found: Warnings = g.warnings
    return found


def _find_warnings() -> Warnings:
    services = runtime()
    unavailable = services.availability.reason if services.availability.known and not services.availability.up else None
    silence, quarantined = None, 0
    spool = spool_state(services.spool.directory)
    if unavailable is None:
        try:
            silence, quarantined = services.ask(
                lambda connection: (
                    find_silence(
                        find_push_flow(connection, now=services.now()),
                        spooled=bool(spool.bytes),
                        now=services.now(),
                        silent_after=services.settings.alarm_silent,
                    ),
                    arrivals.count_quarantined(
                        connection,
                        since=once.find_noted(connection, once.QUARANTINE_SEEN, now=services.now()),
                        accounts=current_user().user.accounts,
                    ),
                )
            )
        except (DatabaseUnavailable, DatabaseMisconfigured) as error:
            unavailable = str(error)
    return Warnings(spooling=unavailable, spool=spool, silence=silence, quarantined=quarantined)


# --- Status -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class DatabaseStatus:
    """Data of the status page that needs the database."""

    last_push: LastPush | None
    minutes: list[Minute]
    balances: list[tuple[Reading, Trend, int | None]]
    evidence: list[Any]
    any_due: bool  # whether any message of the last 24 hours should have its receipt by now
    clocks: str | None  # how the platform's clock differs from ours
    incidents: list[Incident]  # of all nodes
    figures: StoredFigures  # over all accounts
    behind_seconds: float | None  # age of the oldest push that lists do not show yet; None: they show all


@blueprint.get("/status")
def status() -> Response:
    """Show where the problem is, and the details for the platform's hotline."""
    services = runtime()
    now, current = services.now(), warnings()
    known, unavailable = None, current.spooling
    if unavailable is None:
        try:
            known = services.ask(lambda connection: _known(connection, now))
        except (DatabaseUnavailable, DatabaseMisconfigured) as error:
            unavailable = str(error)
    refused = Counter(refusal.reason for refusal in services.admission.refusals if refusal.at > now - _LATELY)
    # Refusals of all processes are the alarm's; this process knows its own.
    found = gather_figures(
        services, now, database_fault=unavailable, refusals=None, stored=known.figures if known else None
    )
    judged = judge_all(found, thresholds_of(services.settings)).values()
    findings = [one for each in judged for one in each if concerns(one)]
    every = [*NodeIncidents(services.settings.data_dir).list_open(), *(known.incidents if known else [])]
    open_ones = [incident for incident in every if concerns(incident)]
    reachable = can_connect(services.settings.platform_url) if current.silence or unavailable else None
    judgement = judge(
        Situation(
            findings=findings,
            open_alarms=[incident.alarm for incident in open_ones],
            recent_refusals=refused,
            redirected=services.admission.is_redirected(now),
            platform_reachable=reachable,
            untried=known is not None and known.last_push is None and not current.spool.bytes,
        )
    )
    return render(
        "status.html",
        judgement=judgement,
        # The subject of one that is not named may be another team's endpoint.
        reasons=[(words_of(finding), finding.alarm) for finding in judgement.findings if is_named(finding)],
        incidents=[
            (title_of(incident, language()), incident.since, incident.alarm)
            for incident in open_ones
            if is_named(incident)
        ],
        known=known,
        unavailable=unavailable,
        warnings=current,
        disk=found.disk,
        certificate=found.certificate_days_left,
        reachable=reachable,
        spool_began=_spool_began(current.spool),
        spool_full_at=now + timedelta(seconds=found.spool_lasts_seconds) if found.spool_lasts_seconds else None,
        refused=refused.total(),
        now=now,
        evidence=_evidence_text(known) if known else "",
    )


def _spool_began(spool: SpoolState) -> datetime | None:
    return None if spool.oldest_at is None else datetime.fromtimestamp(spool.oldest_at, UTC)


def _evidence_text(known: DatabaseStatus) -> str:
    """Return the details for the platform's hotline, with masked numbers."""
    lines = [gettext("Times: %(zone)s", zone=zone_name())]
    if known.last_push is not None:
        lines.append(gettext("Last push received: %(at)s", at=_platform_time(known.last_push.at)))
    if known.last_push is None:
        lines.append(gettext("No push has been received yet."))
    if not known.any_due:
        lines.append(gettext("No message of the last 24 hours is due for a receipt."))
    elif not known.evidence:
        lines.append(gettext("Every message of the last 24 hours that is due has a receipt."))
    else:
        lines.append(gettext("Messages without a receipt (task id, number, sent):"))
    for row in known.evidence:
        sent = _platform_time(moment_of(row))
        lines.append(f"{row.task_id or '-'}  {mask_mobile(row.mobile)}  {sent}")
    return "\n".join(lines)


def _platform_time(moment: datetime) -> str:
    return f"{moment.astimezone(runtime().settings.timezone):%Y-%m-%d %H:%M:%S}"


def _known(connection: Any, now: datetime) -> DatabaseStatus:
    services, accounts = runtime(), current_user().user.accounts
    stored = find_stored(connection, services.settings, now)
    return DatabaseStatus(
        last_push=arrivals.find_last_push(connection, accounts, now=now),
        # Minutes are counted over every account.
        minutes=list(signals.list_minutes(connection, now=now, minutes=_MINUTES)) if accounts is None else [],
        balances=[
            (reading, balance.find_trend(connection, account, now=now), services.settings.balance_low_of(account))
            for account, reading in balance.find_last_readings(connection, now=now).items()
            if accounts is None or account in accounts
        ],
        evidence=list(
            signals.list_unreported(connection, services.clock(now), limit=_EVIDENCE_LINES, accounts=accounts)
        ),
        any_due=signals.is_any_due(connection, services.clock(now), accounts=accounts),
        clocks=_clock_words(connection, now),
        incidents=incidents.list_open(connection),
        figures=stored,
        behind_seconds=stored.projection_lag_seconds or None,
    )


def _clock_words(connection: Any, now: datetime) -> str | None:
    """Return how the platform's clock differs from ours; None: by less than a time zone."""
    difference = find_difference(connection, now=now)
    if difference is None:
        return None
    length = duration(abs(difference))
    if difference > timedelta():
        said = gettext("The platform's times are %(length)s ahead of this server's clock.", length=length)
    else:
        said = gettext("The platform's times are %(length)s behind this server's clock.", length=length)
    asks = gettext(
        "Check that RECEIVER_TIMEZONE (%(zone)s) is the platform's time zone and that this server's clock is right.",
        zone=zone_name(),
    )
    return f"{said} {asks}"


# --- Setup --------------------------------------------------------------------------------------------


@blueprint.get("/setup")
def setup() -> Response:
    """Show the push URLs, and what was received."""
    services = runtime()
    last_push, clocks, self_tested_at, test_message_at = services.ask(
        lambda connection: (
            arrivals.find_last_push(connection, current_user().user.accounts, now=services.now()),
            _clock_words(connection, services.now()),
            once.find_noted(connection, once.SELF_TEST_PASSED, now=services.now()),
            once.find_noted(connection, once.TEST_MESSAGE_SENT, now=services.now()),
        )
    )
    uses = services.ask(lambda connection: find_uses(connection, services.settings.push_tokens))
    refusals = list(services.admission.refusals)[: -_REFUSALS_SHOWN - 1 : -1]
    # A refresh shows the same secrets and is not audited again; but any client can send this header.
    if "HX-Request" not in request.headers or denials.is_first(current_user().caller.name, "push_url.read"):
        services.audit(current_user().caller.name, "push_url.read")
    return render(
        "setup.html",
        urls=[
            (url, use) for url, use in zip(push_urls(services.settings), uses, strict=True) if url[0] in seen_accounts()
        ],
        unused_days=UNUSED_FOR.days,
        now=services.now(),
        observes=bool(services.settings.push_allow) and not services.settings.push_allow_enforced,
        observed=services.admission.observed[:_REFUSALS_SHOWN],
        public=bool(services.settings.public_url),
        probe=services.admission.last_probe,
        last_push=last_push,
        self_tested_at=self_tested_at,
        test_message_at=test_message_at,
        clocks=clocks,
        refusals=refusals,
    )


@blueprint.post("/setup/self-test")
def self_test() -> Response:
    """Push a receipt to the push URL, as the platform would. It is not counted in reports."""
    services = runtime()
    accounts = [account for account, _ in services.settings.push_tokens if account in seen_accounts()]
    if not accounts:
        return redirect(url_for("console.setup"), HTTPStatus.SEE_OTHER)
    wanted = request.form.get("account", accounts[0])
    account = wanted if wanted in accounts else accounts[0]
    # The active secret: use of a retiring one would look as if the platform still had it.
    secret = next(secret for name, secret in services.settings.push_tokens if name == account)
    began = time.monotonic()
    now = services.now().astimezone(services.settings.timezone)
    client = own_server(services.settings)
    try:
        answer = push_self_test(client, f"/push/{secret}", at=now, seconds=_SELF_TEST_SECONDS)
    except EgressError:
        flash(gettext("Self-test failed: cannot connect to this server's own address."), "bad")
    else:
        if answer.status == services.settings.ack_status and answer.kept:
            took = round((time.monotonic() - began) * 1000)
            services.database.write(lambda connection: once.note(connection, once.SELF_TEST_PASSED, now=services.now()))
            flash(gettext("Self-test passed: the push was acknowledged in %(took)s ms and saved.", took=took), "good")
        else:
            flash(
                gettext("Self-test failed: the push was not acknowledged (status %(status)s).", status=answer.status),
                "bad",
            )
    services.audit(current_user().caller.name, "self_test", account=account)
    return redirect(url_for("console.setup"), HTTPStatus.SEE_OTHER)
