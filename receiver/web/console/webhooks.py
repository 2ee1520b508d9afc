"""Webhooks, for administrators: their state, changes, and dead letters."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import flash, redirect, request, url_for
from flask_babel import gettext, pgettext

from receiver.core import InputFault, NameTaken, NotFound
from receiver.messages.send_records import parse_filter_time
from receiver.web import runtime
from receiver.web.console.error_texts import fault_words
from receiver.web.console.pages import ask_first, blueprint, render
from receiver.web.console.session import current_user
from receiver.webhooks import endpoints as store
from receiver.webhooks import service
from receiver.webhooks.endpoints import DeliveryState, EventType, PayloadFormat

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

_DEAD_SHOWN = 100


@blueprint.route("/webhooks", methods=["GET", "POST"])
def webhooks() -> Response:
    """List the webhooks, and create one, whose secret is shown only once."""
    if request.method == "GET":
        return _show_targets()
    services, form = runtime(), request.form
    accounts = [account for account in sorted(services.settings.accounts) if account in form.getlist("account")]
    name = form.get("name", "").strip()
    try:
        secret = services.webhooks.add(
            current_user().caller.name,
            name=name,
            url=form.get("url", "").strip(),
            form=form.get("format", ""),
            events=form.getlist("event") if form.get("format") != PayloadFormat.RAW else (),
            accounts=accounts or None,
            pii="pii" in form,
            not_delivered_after_seconds=_seconds(),
        )
    except service.InvalidEndpoint as invalid:
        return _show_targets(errors=_words(invalid))
    except NameTaken:
        return _show_targets(errors={"name": gettext("A webhook with this name already exists.")})
    if secret is None:
        flash(gettext("%(name)s now receives every push.", name=name), "good")
        return redirect(url_for("console.webhooks"), HTTPStatus.SEE_OTHER)
    return _show_targets(fresh=secret)


def _show_targets(*, errors: dict[str, str] | None = None, fresh: str | None = None) -> Response:
    services = runtime()
    found = services.ask(store.list_endpoints)
    return render(
        "webhooks.html",
        422 if errors else 200,
        targets=[(target, services.ask(partial(store.find_health, target=target))) for target in found],
        formats=tuple(PayloadFormat),
        events=tuple(EventType),
        accounts=sorted(services.settings.accounts),
        errors=errors or {},
        fresh=fresh,
        given={} if fresh else request.form,
    )


@blueprint.post("/webhooks/change")
def change_target() -> Response:
    """Pause, resume, test or remove a webhook, rotate its secret, or replay its dead letters."""
    services, actor = runtime(), current_user().caller.name
    name, action = request.form.get("name", ""), request.form.get("action", "")
    try:
        target = services.webhooks.find(name)
        if action == "rotate":
            return _show_targets(fresh=services.webhooks.rotate(actor, target))
    except NotFound:
        flash(gettext("There is no such webhook, or it has no secret."), "bad")
        return redirect(url_for("console.webhooks"), HTTPStatus.SEE_OTHER)
    if (asked := _ask_before(action, target)) is not None:
        return asked
    if action == "pause":
        services.webhooks.pause(actor, target)
        flash(gettext("%(name)s is paused. Its deliveries are queued until it is resumed.", name=name), "good")
    elif action == "resume":
        services.webhooks.resume(actor, target)
        flash(gettext("%(name)s is resumed.", name=name), "good")
    elif action == "remove":
        services.webhooks.remove(actor, target)
        flash(gettext("%(name)s is removed.", name=name), "good")
    elif action == "replay":
        again = services.webhooks.replay(actor, target)
        flash(gettext("%(count)s deliveries will be sent again.", count=again), "good")
    elif action == "test":
        tried = services.webhooks.try_out(actor, target)
        if tried.status is None:
            flash(gettext("%(name)s did not answer. %(why)s", name=name, why=fault_words(tried.error or "")), "bad")
        else:
            words = gettext("%(name)s answered with HTTP status %(status)s.", name=name, status=tried.status)
            flash(words, "good" if tried.taken else "bad")
    return redirect(url_for("console.webhooks"), HTTPStatus.SEE_OTHER)


def _ask_before(action: str, target: store.Endpoint) -> Response | None:
    name, back = target.name, url_for("console.webhooks")
    if action == "remove":
        return ask_first(
            gettext("Remove the webhook %(name)s?", name=name),
            gettext("What it has not received yet is not sent any more. Neither it nor its secret can be restored."),
            gettext("Remove %(name)s", name=name),
            back=back,
        )
    if action == "replay":
        dead = runtime().ask(partial(store.find_health, target=target)).dead
        return _ask_before_replay(name, gettext("Dead letters: %(count)s.", count=dead), back=back)
    return None


def _ask_before_replay(name: str, detail: str, *, back: str) -> Response | None:
    return ask_first(
        gettext("Send deliveries to %(name)s again?", name=name),
        detail + " " + gettext("What the receiver has taken before, it may get twice, with the same event id."),
        gettext("Send again"),
        back=back,
    )


@blueprint.route("/webhooks/<name>", methods=["GET", "POST"])
def webhook(name: str) -> Response:
    """Show one webhook with its newest deliveries; change it, or send again what it missed."""
    services, actor = runtime(), current_user().caller.name
    target = services.webhooks.find(name)
    if request.method == "GET":
        return _show_target(target)
    try:
        if request.form.get("action") == "replay":
            zone = services.settings.timezone
            times = {field: request.form.get(field, "") for field in ("since", "until")}
            since, until = (parse_filter_time(text, zone) if text else None for text in times.values())
            if since is None:
                raise ValueError(InputFault.NOT_A_TIME)
            everything = "all" in request.form
            service.replay_window(since, until, services.now())
            detail = gettext("Since %(since)s.", since=times["since"].replace("T", " "))
            asked = _ask_before_replay(name, detail, back=url_for("console.webhook", name=name))
            if asked is not None:
                return asked
            count = services.webhooks.replay_since(actor, target, since, until=until, everything=everything)
            flash(gettext("%(count)s deliveries will be sent again.", count=count), "good")
        else:
            services.webhooks.update(actor, target, _change_of(target))
            flash(gettext("%(name)s is changed.", name=name), "good")
    except service.InvalidEndpoint as invalid:
        return _show_target(target, errors=_words(invalid))
    except (service.ReplayRefused, ValueError) as error:
        return _show_target(target, errors={"since": fault_words(error.args[0])})
    return redirect(url_for("console.webhook", name=name), HTTPStatus.SEE_OTHER)


def _accounts_of(target: store.Endpoint) -> list[str]:
    """Return the accounts to choose from: those of the endpoint too, else a change would drop one that is gone."""
    return sorted({*runtime().settings.accounts, *(target.accounts or ())})


def _change_of(target: store.Endpoint) -> service.EndpointChange:
    """Return what the form asks for. Raises InvalidEndpoint."""
    form, lines = request.form, request.form.get("headers", "").strip().splitlines()
    change: service.EndpointChange = {}
    if len(_accounts_of(target)) > 1:
        change["accounts"] = form.getlist("account") or None
    if url := form.get("url", "").strip():
        change["url"] = url
    if target.format is PayloadFormat.WEBHOOKS:
        seconds, events = _seconds(), form.getlist("event")
        if seconds is None and events != [EventType.NOT_DELIVERED]:  # none would mean all
            events = [event for event in events if event != EventType.NOT_DELIVERED]
        change |= {"events": events, "pii": "pii" in form, "not_delivered_after_seconds": seconds}
    if lines or "no_headers" in form:
        change["headers"] = service.read_headers(lines)
    return change


def _seconds() -> int | None:
    """Return the form's seconds; 0, which is refused, for what is no number."""
    seconds = request.form.get("not_delivered_after_seconds", "").strip()
    if not seconds:
        return None
    return int(seconds) if seconds.isascii() and seconds.isdigit() else 0


def _words(invalid: service.InvalidEndpoint) -> dict[str, str]:
    return {field: fault_words(error) for field, error in invalid.faults.items()}


_BADGES = {
    DeliveryState.PENDING: "pending",
    DeliveryState.FAILING: "failed",
    DeliveryState.DEAD: "failed",
    DeliveryState.DELIVERED: "delivered",
}


def _show_target(target: store.Endpoint, *, errors: dict[str, str] | None = None) -> Response:
    services, state = runtime(), request.args.get("state")
    wanted = DeliveryState(state) if state in set(DeliveryState) else None
    found = services.ask(partial(store.list_deliveries, target=target, limit=_DEAD_SHOWN, state=wanted))
    names = {
        DeliveryState.PENDING: pgettext("delivery", "pending"),
        DeliveryState.FAILING: gettext("failing"),
        DeliveryState.DEAD: pgettext("delivery", "given up"),
        DeliveryState.DELIVERED: pgettext("delivery", "delivered"),
    }
    return render(
        "webhook.html",
        422 if errors else 200,
        target=target,
        deliveries=found,
        names=names,
        badges=_BADGES,
        states=list(names.items()),
        chosen={"state": state},
        events=tuple(EventType),
        accounts=_accounts_of(target),
        errors=errors or {},
        given=request.form,
    )


@blueprint.get("/webhooks/<name>/dead")
def dead_letters(name: str) -> Response:
    """List deliveries that failed for three days."""
    services = runtime()
    target = services.webhooks.find(name)
    dead = DeliveryState.DEAD
    found = services.ask(partial(store.list_deliveries, target=target, limit=_DEAD_SHOWN, state=dead))
    return render("dead_letters.html", target=target, letters=found)
