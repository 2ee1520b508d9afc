"""For administrators: own systems that hear of everything, how they fare, and what was given up."""

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
from receiver.web.console.session import visitor
from receiver.webhooks import endpoints as store
from receiver.webhooks import service
from receiver.webhooks.endpoints import EventType, PayloadFormat

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

_DEAD_SHOWN = 100


@blueprint.route("/webhooks", methods=["GET", "POST"])
def webhooks() -> Response:
    """List the targets, and make one, whose secret is shown this once."""
    if request.method == "GET":
        return _show_targets()
    parts, form = runtime(), request.form
    seconds = form.get("not_delivered_after_seconds", "").strip()
    accounts = [account for account in sorted(parts.settings.accounts) if account in form.getlist("account")]
    name = form.get("name", "").strip()
    try:
        secret = parts.webhooks.add(
            visitor().caller.name,
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
        return _show_targets(errors={field: fault_words(said) for field, said in invalid.faults.items()})
    except NameTaken:
        return _show_targets(errors={"name": gettext("There is a target of that name already.")})
    if secret is None:
        flash(gettext("%(name)s is sent every push from now on.", name=name), "good")
        return redirect(url_for("console.webhooks"), HTTPStatus.SEE_OTHER)
    return _show_targets(fresh=secret)


def _show_targets(*, errors: dict[str, str] | None = None, fresh: str | None = None) -> Response:
    parts = runtime()
    found = parts.ask(store.list_targets)
    return render(
        "webhooks.html",
        422 if errors else 200,
        targets=[(target, parts.ask(partial(store.find_health, target=target))) for target in found],
        formats=tuple(PayloadFormat),
        events=tuple(EventType),
        accounts=sorted(parts.settings.accounts),
        errors=errors or {},
        fresh=fresh,
        given={} if fresh else request.form,
    )


@blueprint.post("/webhooks/change")
def change_target() -> Response:
    """Pause a target, resume, try or remove it, give it another secret, or send again what was given up."""
    parts, actor = runtime(), visitor().caller.name
    name, action = request.form.get("name", ""), request.form.get("action", "")
    try:
        target = parts.webhooks.find(name)
        if action == "rotate":
            return _show_targets(fresh=parts.webhooks.rotate(actor, target))
    except NotFound:
        flash(gettext("There is no such target any more, or it has no secret."), "bad")
        return redirect(url_for("console.webhooks"), HTTPStatus.SEE_OTHER)
    if action == "pause":
        parts.webhooks.pause(actor, target)
        flash(gettext("%(name)s is paused; what it is to hear of is kept for it.", name=name), "good")
    elif action == "resume":
        parts.webhooks.resume(actor, target)
        flash(gettext("%(name)s goes on.", name=name), "good")
    elif action == "remove":
        parts.webhooks.remove(actor, target)
        flash(gettext("%(name)s is removed.", name=name), "good")
    elif action == "replay":
        again = parts.webhooks.replay(actor, target)
        flash(gettext("%(count)s will be sent again.", count=again), "good")
    elif action == "test":
        tried = parts.webhooks.try_out(actor, target)
        if tried.status is None:
            flash(gettext("%(name)s gave no answer: %(why)s.", name=name, why=fault_words(tried.error or "")), "bad")
        else:
            words = gettext("%(name)s answered with HTTP status %(status)s.", name=name, status=tried.status)
            flash(words, "good" if tried.taken else "bad")
    return redirect(url_for("console.webhooks"), HTTPStatus.SEE_OTHER)


@blueprint.get("/webhooks/<name>/dead")
def dead_letters(name: str) -> Response:
    """List what a target did not take for three days."""
    parts = runtime()
    target = parts.webhooks.find(name)
    found = parts.ask(partial(store.list_dead, target=target, limit=_DEAD_SHOWN))
    return render("dead_letters.html", target=target, letters=found)
