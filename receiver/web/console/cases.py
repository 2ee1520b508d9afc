"""Cases: notes of the staff on messages, the mark that a case is handled, and the list of both."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import marshmallow as ma
from flask import redirect, request, url_for
from flask_babel import gettext

from receiver.core import InvalidCursor, NotFound
from receiver.core.cursors import Cursors
from receiver.messages import notes, queries
from receiver.messages.notes import NOTE_MAX_CHARS, NoteKind
from receiver.web import runtime
from receiver.web.console.error_texts import fault_words
from receiver.web.console.pages import blueprint, faults, inside, render
from receiver.web.console.session import current_user, seen_accounts
from receiver.web.lists.fields import StrictBoolean, Text
from receiver.web.lists.filters import AccountFilterSchema
from receiver.web.lists.visibility import audit_look_up, readable_accounts, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from werkzeug.wrappers import Response

    from receiver.db.engine import Connection
    from receiver.messages.notes import CaseMark

_ACTIONS = {NoteKind.NOTE: "note.create", NoteKind.HANDLED: "case.handle", NoteKind.REOPENED: "case.reopen"}


# --- Notes of one case ----------------------------------------------------------------------------------


@blueprint.app_template_global()
def case_marks(message_ids: Iterable[int | None]) -> Mapping[int, CaseMark]:
    """Return what a list shows of the cases of its messages, in one query."""
    ids = [message_id for message_id in message_ids if message_id is not None]
    return runtime().ask_present(lambda connection: notes.find_marks(connection, ids)) if ids else {}


@blueprint.post("/messages/<row_id:message_id>/notes")
def note(message_id: str) -> Response:
    """Add a note to a message, or mark its case as handled or open again. Audited, without the text."""
    text, kind = request.form.get("text", "").replace("\r\n", "\n").strip(), request.form.get("kind", "")
    services, number = runtime(), int(message_id)
    accounts, clock = current_user().user.accounts, services.clock()
    if services.ask(lambda connection: queries.find_message(connection, number, clock, accounts)) is None:
        raise NotFound(gettext("There is no message at this address."))
    if kind not in set(NoteKind) or len(text) > NOTE_MAX_CHARS or (kind == NoteKind.NOTE and not text):
        return render("problem.html", 422, heading=gettext("Enter a note of at most 1,000 characters."))
    if text:
        _add(number, NoteKind.NOTE, text)
    handled = notes.is_handled(services.ask(lambda connection: notes.list_notes(connection, [number])))
    if kind != NoteKind.NOTE and handled != (kind == NoteKind.HANDLED):
        _add(number, NoteKind(kind), "")
    own = url_for("console.message", message_id=message_id)
    return redirect(inside(request.form["next"]) if "next" in request.form else own, HTTPStatus.SEE_OTHER)


def _add(message_id: int, kind: NoteKind, text: str) -> None:
    services, user = runtime(), current_user()
    add = partial(
        notes.add_note, message_id=message_id, kind=kind, user_name=user.user.name, text=text, now=services.now()
    )
    services.trail.audited(add, user.caller.name, _ACTIONS[kind], result_as="note_id", message_id=str(message_id))


# --- The list -------------------------------------------------------------------------------------------


class CaseFilterSchema(AccountFilterSchema):
    """The filters of the list of cases."""

    q = Text()
    handled = StrictBoolean()


@blueprint.get("/cases")
def cases() -> Response:
    """List cases, those with the newest entry first; by text, the notes that contain it."""
    given = {name: value.strip() for name, value in request.args.items() if value.strip()}
    wanted: dict[str, str] = {name: given[name] for name in ("q", "handled", "account", "cursor") if name in given}
    narrowed: dict[str, str] = {name: value for name, value in wanted.items() if name != "cursor"}
    views = {
        "all": (gettext("All"), {}),
        "open": (gettext("Open"), {"handled": "false"}),
        "handled": (gettext("Handled"), {"handled": "true"}),
    }
    values: dict[str, Any] = {"given": given, "narrowed": narrowed, "views": views, "accounts": seen_accounts()}
    values |= {"first_page": "cursor" not in wanted, "errors": {}, "items": [], "next_cursor": None}
    try:
        arguments = CaseFilterSchema().load(wanted)
        if "account" in arguments and arguments["account"] not in values["accounts"]:
            raise ma.ValidationError(gettext("This account is not configured."), "account")
        audit_look_up("notes.read", q="q" in arguments or None)
        values |= _read_page(arguments, narrowed)
    except ma.ValidationError as error:
        return render("cases.html", 422, **values | {"errors": faults(error)})
    except InvalidCursor as error:
        return render("cases.html", 422, **values | {"errors": {"cursor": fault_words(error.args[0])}})
    return render("cases.html", **values)


def _read_page(arguments: Mapping[str, Any], narrowed: Mapping[str, str]) -> dict[str, Any]:
    """Return the rows of a page, each with its message, and the next page's cursor. Raises InvalidCursor."""
    services = runtime()
    cursors = Cursors(services.shared_secret("cursor"), "cases", narrowed)
    before = int(cursors.read(arguments["cursor"])[0]) if "cursor" in arguments else None
    accounts, clock = readable_accounts(arguments.get("account")), services.clock()

    def read(connection: Connection) -> dict[str, Any]:
        page = notes.list_cases(
            connection,
            limit=arguments["limit"],
            before=before,
            text=arguments.get("q"),
            handled=arguments.get("handled"),
            accounts=accounts,
        )
        of = queries.get_messages(connection, [case.entry.message_id for case in page.cases], clock)
        items = [(case, shown(of[case.entry.message_id])) for case in page.cases if case.entry.message_id in of]
        return {"items": items, "next_cursor": None if page.before is None else cursors.make(page.before)}

    return services.ask(read)
