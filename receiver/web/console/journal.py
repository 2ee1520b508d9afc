"""The journal: every push byte for byte, its parse errors, and replay."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl
from uuid import UUID

import marshmallow as ma
from flask import flash, redirect, request, url_for
from flask_babel import gettext

from receiver.core import Outcome
from receiver.intake import service
from receiver.messages import queries
from receiver.web import runtime
from receiver.web.console.list_pages import ListKind, PushListSchema, find_by_id, read_list, wanted_of
from receiver.web.console.lists import narrow_to_numbers
from receiver.web.console.pages import ask_first, blueprint, render
from receiver.web.console.session import current_user
from receiver.web.lists.pages import find_push

if TYPE_CHECKING:
    from flask import Response
    from werkzeug.wrappers import Response as AnyResponse

_BYTES_A_LINE = 16
_REASONS_MAX = 8
_REPLAYED_MAX = 100  # at once: each is a transaction of its own


PUSHES = ListKind(
    name="pushes",
    schema=PushListSchema,
    filters=("outcome", "error", "task_id", "account", "received_from", "received_to"),
    span=("received_from", "received_to"),
    find=find_by_id(queries.list_pushes),
    read_place=lambda parts: UUID(parts[0]),
)


@blueprint.get("/pushes")
def pushes() -> Response:
    """List pushes, optionally by outcome."""
    return _list_pushes()


@blueprint.post("/pushes/numbers", endpoint="push_numbers")
def filter_by_numbers() -> AnyResponse:
    """Narrow the journal to pasted numbers."""
    return narrow_to_numbers(PUSHES, _list_pushes)


def _list_pushes(**typed: Any) -> Response:
    status, values = read_list(PUSHES, fault=typed.get("fault"))
    views = {
        "all": (gettext("All"), {}),
        "quarantined": (gettext("Quarantined"), {"outcome": "quarantined"}),
    }
    accounts, reasons = current_user().caller.accounts, []
    if values["narrowed"].get("outcome") == Outcome.QUARANTINED.value and "HX-Request" not in request.headers:
        reasons = runtime().ask(lambda connection: queries.count_errors(connection, accounts, most=_REASONS_MAX))
    page = {**values, **typed, "views": views, "reasons": reasons, "replayed_max": _REPLAYED_MAX}
    return render("pushes.html", status, **page)


@blueprint.get("/pushes/<push_id>")
def push(push_id: str) -> Response:
    """Show one push as received. Audited, since it shows numbers and content."""
    found = find_push(push_id)
    runtime().audit(current_user().caller.name, "push.read", push_id=str(found.id))
    return render("push.html", push=found, pieces=[_part("query", found.query), _part("body", found.body)])


@blueprint.post("/pushes/<push_id>/replay", endpoint="replay")
def replay_push(push_id: str) -> AnyResponse:
    """Parse a push again with the current settings."""
    services = runtime()
    service.replay(services.trail, services.admission, current_user().caller.name, find_push(push_id))
    if find_push(push_id).error is None:
        flash(gettext("Parsed. The message was updated."), "good")
    else:
        flash(gettext("The push still cannot be parsed."), "bad")
    return redirect(url_for("console.push", push_id=push_id), HTTPStatus.SEE_OTHER)


@blueprint.post("/pushes/replay", endpoint="replay_list")
def replay_pushes() -> AnyResponse:
    """Parse the newest pushes of a list that could not be parsed again, with the current settings."""
    services, staff = runtime(), current_user()
    narrowed = {field: request.form[field] for field in (*PUSHES.filters, "range") if request.form.get(field)}
    narrowed["outcome"] = Outcome.QUARANTINED.value
    back = url_for("console.pushes", **narrowed)  # type: ignore[arg-type]
    try:
        arguments = PushListSchema().load(narrowed)
    except ma.ValidationError:
        return redirect(back, HTTPStatus.SEE_OTHER)  # which names it
    wanted = wanted_of(
        PUSHES, {name: value for name, value in arguments.items() if name != "limit"}, (), services.now()
    )
    page = queries.Page(limit=_REPLAYED_MAX, filter=wanted)
    found = services.ask(lambda connection: queries.list_pushes(connection, page))
    asked = ask_first(
        gettext("Parse %(count)s pushes again?", count=len(found)),
        gettext("They are parsed with the current settings. Missing data is added; nothing is counted twice."),
        gettext("Re-parse"),
        back=back,
    )
    if asked is not None:
        return asked
    outcomes = [service.replay(services.trail, services.admission, staff.caller.name, one) for one in found]
    parsed = outcomes.count(Outcome.ACCEPTED)
    text = gettext("Parsed: %(parsed)s. Still not parsed: %(rest)s.", parsed=parsed, rest=len(outcomes) - parsed)
    flash(text, "good" if parsed == len(outcomes) else "bad")
    return redirect(back, HTTPStatus.SEE_OTHER)


@blueprint.post("/pushes/seen")
def quarantine_seen() -> AnyResponse:
    """Mark the quarantined pushes as reviewed: the banner then counts only newer ones."""
    back = url_for("console.pushes", outcome="quarantined")
    asked = ask_first(
        gettext("Mark all pushes that could not be parsed as reviewed?"),
        gettext("The warning at the top then counts newer ones only, for all users. The pushes stay in the journal."),
        gettext("Mark all as reviewed"),
        back=back,
    )
    if asked is not None:
        return asked
    service.mark_quarantine_seen(runtime().trail, current_user().caller.name)
    return redirect(back, HTTPStatus.SEE_OTHER)


def _part(name: str, data: bytes) -> dict[str, object]:
    fields = parse_qsl(data.decode("latin-1"), keep_blank_values=True, encoding="utf-8", errors="replace")
    text = data.decode(errors="replace")
    return {"name": name, "bytes": len(data), "text": text, "fields": fields, "hex": hexdump(data)}


def hexdump(data: bytes) -> str:
    """Return a hex dump: offset, sixteen bytes, and their printable characters."""
    lines = []
    for place in range(0, len(data), _BYTES_A_LINE):
        piece = data[place : place + _BYTES_A_LINE]
        letters = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in piece)
        lines.append(f"{place:06x}  {piece.hex(' '):<{_BYTES_A_LINE * 3}} {letters}")
    return "\n".join(lines)
