"""Lists as files for people: what is shown now, and the page of all exports."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import marshmallow as ma
from flask import request
from flask_babel import gettext

from receiver.core import NotFound
from receiver.messages import queries
from receiver.messages.export_columns import LISTED_ROWS
from receiver.messages.export_files import FileFormat
from receiver.messages.export_sheets import SHEET_ROWS
from receiver.web import runtime
from receiver.web.console.file_words import TITLES, names_of, wording_of
from receiver.web.console.filters import without
from receiver.web.console.list_pages import OF_ADDRESS, SPAN_NAMES, with_address
from receiver.web.console.lists import LISTS
from receiver.web.console.pages import blueprint, faults, render
from receiver.web.console.session import Permission, current_user, seen_accounts
from receiver.web.lists.exports import FORMS, FileStyle, answer_export
from receiver.web.lists.pages import find_exports

if TYPE_CHECKING:
    from flask import Response

_PAST = timedelta(days=30)
# What those may have as a file who may not export everything: the lists that they have as pages.
_LISTED = tuple(LISTS)


def exportable() -> tuple[str, ...]:
    """Return the lists that the current user may have as files."""
    return tuple(FORMS) if current_user().may(Permission.EXPORT) else _LISTED


@blueprint.get("/exports")
def exports() -> Response:
    """Show the page of exports."""
    return _offer(200, errors={}, given={})


def _offer(status: int, **values: Any) -> Response:
    names = exportable()
    since = runtime().now() - _PAST
    return render(
        "exports.html",
        status,
        names=names,
        titles=TITLES,
        states={"messages": queries.MESSAGE_STATUSES, "receipts": queries.RECEIPT_STATUSES},
        formats=tuple(FileFormat),
        ranged=_LISTED,
        spans=SPAN_NAMES,
        accounts=seen_accounts(),
        bounded=not current_user().may(Permission.EXPORT),
        listed_rows=LISTED_ROWS,
        sheet_rows=SHEET_ROWS,
        past=find_exports((*names, "opt_outs"), since=since),
        **values,
    )


@blueprint.get("/exports/<name>")
def export(name: str) -> Any:
    """Return a list as a file, with masked numbers but for those that were typed."""
    if name not in exportable():
        raise NotFound(gettext("There is no such list."))
    typed = False
    given = {field: value.strip() for field, value in request.args.items() if value.strip()}
    try:
        if name in LISTS:
            arguments, typed = with_address(LISTS[name], FORMS[name]().load(without(given, *OF_ADDRESS)), given)
        else:
            arguments = FORMS[name]().load(given)
    except ma.ValidationError as error:
        return _offer(422, errors=faults(error), given=given, chosen=name)
    return answer_export(name, arguments, style=style_of(name, arguments, typed=typed))


def style_of(name: str, arguments: dict[str, Any], *, typed: bool) -> FileStyle:
    """Return how a list is written for the current user: for people, unless it is asked for otherwise.

    `typed`: by the user, the numbers that it is narrowed to.
    """
    form = arguments["format"]
    plain, worded = names_of(name, TITLES[name], arguments, form.value)
    for_people = arguments["neutral"] and form in (FileFormat.CSV, FileFormat.XLSX)
    return FileStyle(
        plain_name=plain,
        worded_name=worded,
        wording=wording_of(name) if for_people else None,
        bounded=not current_user().may(Permission.EXPORT),
        in_full=name == "messages" and typed,  # whose rows have the numbers that were typed, and no other
    )
