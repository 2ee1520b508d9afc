"""The journal: what came, byte for byte, what could not be read and why, and reading it again."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from flask import flash, redirect, url_for
from flask_babel import gettext

from receiver.db import once
from receiver.messages import queries
from receiver.web import runtime
from receiver.web.api.pushes import PushFilterSchema, find_push, replay
from receiver.web.console.lists import read_list
from receiver.web.console.pages import blueprint, render
from receiver.web.console.session import visitor

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

_FILTERS = ("outcome", "account", "received_from", "received_to")
_BYTES_A_LINE = 16


@blueprint.get("/pushes")
def pushes() -> Response:
    """List pushes, or those that could not be read."""
    status, values = read_list(
        "pushes",
        PushFilterSchema,
        _FILTERS,
        lambda connection, page, _: queries.list_pushes(connection, page),
        lambda row: row,
    )
    views = {
        "all": (gettext("All"), {}),
        "quarantined": (gettext("Quarantined"), {"outcome": "quarantined"}),
    }
    return render("pushes.html", status, **values, views=views)


@blueprint.get("/pushes/<push_id>")
def push(push_id: str) -> Response:
    """Show one push as it came: numbers and content with it, so this is noted."""
    found = find_push(push_id)
    runtime().audit(visitor().caller.name, "push.read", push_id=str(found.id))
    return render("push.html", push=found, parts=[_part("query", found.query), _part("body", found.body)])


@blueprint.post("/pushes/<push_id>/replay", endpoint="replay")
def replay_push(push_id: str) -> Response:
    """Read it again with the present settings."""
    read_again = replay(push_id)
    if read_again.error is None:
        flash(gettext("It could be read now; its message has been brought up to date."), "good")
    else:
        flash(gettext("It still cannot be read."), "bad")
    return redirect(url_for("console.push", push_id=push_id), HTTPStatus.SEE_OTHER)


@blueprint.post("/pushes/seen")
def quarantine_seen() -> Response:
    """Note that somebody has looked at what is quarantined: the banner speaks of what comes after."""
    parts = runtime()
    parts.database.write(lambda connection: once.note(connection, once.QUARANTINE_SEEN, now=parts.now()))
    parts.audit(visitor().caller.name, "quarantine.seen")
    return redirect(url_for("console.pushes", outcome="quarantined"), HTTPStatus.SEE_OTHER)


def _part(name: str, data: bytes) -> dict[str, object]:
    fields = parse_qsl(data.decode("latin-1"), keep_blank_values=True, encoding="utf-8", errors="replace")
    text = data.decode(errors="replace")
    return {"name": name, "bytes": len(data), "text": text, "fields": fields, "hex": hexdump(data)}


def hexdump(data: bytes) -> str:
    """Write bytes as people compare them: place, sixteen in hexadecimal, and the letters among them."""
    lines = []
    for place in range(0, len(data), _BYTES_A_LINE):
        piece = data[place : place + _BYTES_A_LINE]
        letters = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in piece)
        lines.append(f"{place:06x}  {piece.hex(' '):<{_BYTES_A_LINE * 3}} {letters}")
    return "\n".join(lines)
