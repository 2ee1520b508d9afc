"""Webhooks, for administrators: their state, changes, and dead letters."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import flash, redirect, request, url_for
from flask_babel import gettext

from receiver.core import NameTaken, NotFound
from receiver.web import runtime
from receiver.web.console.error_texts import fault_words
from receiver.web.console.pages import blueprint, render
from receiver.web.console.session import current_user
from receiver.webhooks import endpoints as store
from receiver.webhooks import service
from receiver.webhooks.endpoints import EventType, PayloadFormat

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

_DEAD_SHOWN = 100


@blueprint.route("/webhooks", methods=["GET", "POST"])
def webhooks() -> Response:
    """List the webhooks, and create one, whose secret is shown only once."""
    if request.method == "GET":
        return _show_targets()
    services, form = runtime(), request.form
    seconds = form.get("not_delivered_after_seconds", "").strip()
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
            not_delivered_after_seconds=(int(seconds) if seconds.isascii() and seconds.isdigit() else 0)
            if seconds
            else None,
        )
    except service.InvalidEndpoint as invalid:
        return _show_targets(errors={field: fault_words(error) for field, error in invalid.faults.items()})
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


@blueprint.get("/webhooks/<name>/dead")
def dead_letters(name: str) -> Response:
    """List deliveries that failed for three days."""
    services = runtime()
    target = services.webhooks.find(name)
    found = services.ask(partial(store.list_dead, target=target, limit=_DEAD_SHOWN))
    return render("dead_letters.html", target=target, letters=found)
