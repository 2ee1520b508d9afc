"""The present: where to begin, what is wrong, what to paste into the platform's console on the first day."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import flash, g, redirect, request, url_for
from flask_babel import gettext

from receiver.alerting import Incident, NodeIncidents, Situation, incidents, judge
from receiver.alerting.messages import title_of
from receiver.config import push_urls
from receiver.core import DatabaseMisconfigured, DatabaseUnavailable, find_disk, mask_mobile
from receiver.db import once
from receiver.db.clocks import find_difference
from receiver.intake import UNUSED_FOR, SpoolState, seconds_left, spool_state
from receiver.messages import Reading, Trend, balance
from receiver.net.probe import can_connect, certificate_days_left, connection_here
from receiver.net.self_test import push_self_test
from receiver.support import signals
from receiver.support.lookup import moment_of
from receiver.web import denials, runtime
from receiver.web.console.filters import duration, zone_name
from receiver.web.console.lookup import PERIODS
from receiver.web.console.pages import blueprint, language, render
from receiver.web.console.session import Permission, seen_accounts, visitor

if TYPE_CHECKING:
    from datetime import datetime

    from werkzeug.wrappers import Response

    from receiver.support.signals import LastPush, Minute, Silence

_LATELY = timedelta(minutes=15)
_REFUSALS_SHOWN = 10
_EVIDENCE_LINES = 20
_MINUTES = 60
_SELF_TEST_SECONDS = 10


@blueprint.get("/")
def home() -> Response:
    """Begin: the field for a look-up for whoever answers the phone, lists for the others."""
    if visitor().may(Permission.LOOK_UP):
        return render("home.html", periods=PERIODS)
    return redirect(url_for("console.reports"), HTTPStatus.SEE_OTHER)


@dataclass(frozen=True, kw_only=True, slots=True)
class Warnings:
    """What every page says at its top, where there is something to say."""

    spooling: str | None  # why
    spool: SpoolState
    silence: Silence | None
    quarantined: int  # that nobody has looked at yet; at most 1,000 are counted


@blueprint.get("/banner")
def banner() -> Response:
    """Say again what is wrong, for a page that is open."""
    return render("banner.html", warnings=warnings())


@blueprint.app_context_processor
def _warnings_in_templates() -> dict[str, Any]:
    return {"find_warnings": warnings}


def warnings() -> Warnings:
    """Return what every page should say at its top, found out once for a request."""
    if "warnings" not in g:
        g.warnings = _find_warnings()
    found: Warnings = g.warnings
    return found


def _find_warnings() -> Warnings:
    parts = runtime()
    away = parts.availability.reason if parts.availability.known and not parts.availability.up else None
    silence, quarantined = None, 0
    if away is None:
        try:
            silence, quarantined = parts.ask(
                lambda connection: (
                    signals.find_silence(connection, now=parts.now()),
                    signals.count_quarantined(
                        connection,
                        since=once.find_noted(connection, once.QUARANTINE_SEEN, now=parts.now()),
                        accounts=visitor().user.accounts,
                    ),
                )
            )
        except (DatabaseUnavailable, DatabaseMisconfigured) as error:
            away = str(error)
    if silence is not None and visitor().user.accounts is not None:
        silence = replace(silence, unreported_sends=0)  # which are those of every account
    return Warnings(spooling=away, spool=spool_state(parts.spool.directory), silence=silence, quarantined=quarantined)


# --- The bad night ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What the database says of the present; without it, nothing of this is known."""

    last_push: LastPush | None
    minutes: list[Minute]
    balances: list[tuple[Reading, Trend, int | None]]
    evidence: list[Any]
    clocks: str | None  # how the platform's differs from ours
    incidents: list[Incident]  # those of all nodes


@blueprint.get("/status")
def status() -> Response:
    """Say whose trouble it is, and what to tell the platform's hotline."""
    parts = runtime()
    now, told = parts.now(), warnings()
    known, away = None, told.spooling
    if away is None:
        try:
            known = parts.ask(lambda connection: _known(connection, now))
        except (DatabaseUnavailable, DatabaseMisconfigured) as error:
            away = str(error)
    disk = find_disk(parts.settings.data_dir)
    certificate = certificate_days_left(parts.settings.public_url)
    reachable = can_connect(parts.settings.platform_url) if told.silence or away else None
    refused = [refusal for refusal in parts.admission.refusals if refusal.at > now - _LATELY]
    judgement = judge(
        Situation(
            database_up=away is None,
            spool_records=told.spool.records,
            spool_oldest_seconds=time.time() - told.spool.oldest_at if told.spool.oldest_at else 0,
            disk=disk,
            certificate_days_left=certificate,
            recent_refusals=Counter(refusal.reason for refusal in refused),
            redirected=parts.admission.is_redirected(now),
            silence=told.silence,
            platform_reachable=reachable,
            ever_pushed=known is None or known.last_push is not None,
        )
    )
    every = [*NodeIncidents(parts.settings.data_dir).list_open(), *(known.incidents if known else [])]
    own = {"", *seen_accounts()}
    open_ones = [incident for incident in every if incident.subject in own or visitor().user.accounts is None]
    return render(
        "status.html",
        judgement=judgement,
        incidents=[(title_of(incident, language()), incident.since) for incident in open_ones],
        known=known,
        away=away,
        warnings=told,
        disk=disk,
        spool_lasts=seconds_left(told.spool, max_bytes=parts.settings.spool_max_bytes, disk=disk, now=time.time()),
        certificate=certificate,
        reachable=reachable,
        refused=len(refused),
        now=now,
        evidence=_evidence_text(known) if known else "",
    )


def _evidence_text(known: Known) -> str:
    """Write what the platform's hotline asks for, to be copied: no number in full."""
    lines = [gettext("Times: %(zone)s", zone=zone_name())]
    if known.last_push is not None:
        lines.append(gettext("Last push received: %(at)s", at=_platform_time(known.last_push.at)))
    if known.last_push is None:
        lines.append(gettext("No push has ever come."))
    elif not known.evidence:
        lines.append(gettext("Every message of the last 24 hours that is due has its receipt."))
    else:
        lines.append(gettext("Messages without a receipt (task id, number, sent):"))
    for row in known.evidence:
        sent = _platform_time(moment_of(row))
        lines.append(f"{row.task_id or '-'}  {mask_mobile(row.mobile)}  {sent}")
    return "\n".join(lines)


def _platform_time(moment: datetime) -> str:
    return f"{moment.astimezone(runtime().settings.timezone):%Y-%m-%d %H:%M:%S}"


def _known(connection: Any, now: datetime) -> Known:
    parts, accounts = runtime(), visitor().user.accounts
    return Known(
        last_push=signals.find_last_push(connection, accounts, now=now),
        # Minutes are counted over every account.
        minutes=list(signals.list_minutes(connection, now=now, minutes=_MINUTES)) if accounts is None else [],
        balances=[
            (reading, balance.find_trend(connection, account, now=now), parts.settings.balance_low_of(account))
            for account, reading in balance.find_last_readings(connection, now=now).items()
            if accounts is None or account in accounts
        ],
        evidence=list(signals.list_unreported(connection, parts.clock(now), limit=_EVIDENCE_LINES, accounts=accounts)),
        clocks=_clock_words(connection, now),
        incidents=incidents.list_open(connection),
    )


def _clock_words(connection: Any, now: datetime) -> str | None:
    """Say how the platform's clock differs from ours; None: it does not, by a zone."""
    difference = find_difference(connection, now=now)
    if difference is None:
        return None
    length = duration(abs(difference))
    if difference > timedelta():
        said = gettext("Its times are %(length)s ahead of this server's clock.", length=length)
    else:
        said = gettext("Its times are %(length)s behind this server's clock.", length=length)
    asks = gettext("Is RECEIVER_TIMEZONE (%(zone)s) the platform's zone, and this clock right?", zone=zone_name())
    return f"{said} {asks}"


# --- The first day ------------------------------------------------------------------------------------


@blueprint.get("/setup")
def setup() -> Response:
    """Show what to paste into the platform's console, and what has come since."""
    parts = runtime()
    last_push, clocks = parts.ask(
        lambda connection: (
            signals.find_last_push(connection, visitor().user.accounts, now=parts.now()),
            _clock_words(connection, parts.now()),
        )
    )
    uses = parts.list_secret_uses()
    refusals = list(parts.admission.refusals)[: -_REFUSALS_SHOWN - 1 : -1]
    # A page that looks again by itself says nothing new; but anybody can send what says that it does.
    if "HX-Request" not in request.headers or denials.is_first(visitor().caller.name, "push_url.read"):
        parts.audit(visitor().caller.name, "push_url.read")
    return render(
        "setup.html",
        urls=[
            (url, use) for url, use in zip(push_urls(parts.settings), uses, strict=True) if url[0] in seen_accounts()
        ],
        unused_days=UNUSED_FOR.days,
        now=parts.now(),
        observes=bool(parts.settings.push_allow) and not parts.settings.push_allow_enforced,
        observed=parts.admission.observed[:_REFUSALS_SHOWN],
        public=bool(parts.settings.public_url),
        probe=parts.admission.last_probe,
        last_push=last_push,
        clocks=clocks,
        refusals=refusals,
    )


@blueprint.post("/setup/self-test")
def self_test() -> Response:
    """Push a receipt as the platform would, through the front door; it is in no report."""
    parts = runtime()
    accounts = [account for account, _ in parts.settings.push_tokens if account in seen_accounts()]
    if not accounts:
        return redirect(url_for("console.setup"), HTTPStatus.SEE_OTHER)
    wanted = request.form.get("account", accounts[0])
    account = wanted if wanted in accounts else accounts[0]
    # The active one: a use of another would look as if the platform still had it.
    secret = next(secret for name, secret in parts.settings.push_tokens if name == account)
    began = time.monotonic()
    connection = connection_here(parts.settings, timeout_seconds=_SELF_TEST_SECONDS)
    try:
        answer = push_self_test(connection, f"/push/{secret}", at=parts.now().astimezone(parts.settings.timezone))
    except OSError:
        flash(gettext("The self-test did not get through to this server's own address."), "bad")
    else:
        if answer.status == parts.settings.ack_status and answer.kept:
            took = round((time.monotonic() - began) * 1000)
            flash(gettext("The self-test was acknowledged in %(took)s ms and kept.", took=took), "good")
        else:
            flash(gettext("The self-test was answered with %(status)s, not acknowledged.", status=answer.status), "bad")
    parts.audit(visitor().caller.name, "self_test", account=account)
    return redirect(url_for("console.setup"), HTTPStatus.SEE_OTHER)
