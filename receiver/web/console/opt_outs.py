"""Opt-outs as a list of numbers, to read and to take away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import marshmallow as ma
from flask import request
from flask_babel import gettext, lazy_gettext

from receiver.messages import queries
from receiver.messages.export_files import FileFormat
from receiver.web import runtime
from receiver.web.console.file_words import names_of, wording_of
from receiver.web.console.list_pages import ListKind, OptOutListSchema, find_by_id, read_list, wanted_of
from receiver.web.console.pages import blueprint, render
from receiver.web.console.reasons import find_reason
from receiver.web.lists.exports import FileStyle, answer_opt_outs
from receiver.web.lists.visibility import audit_look_up

if TYPE_CHECKING:
    from flask import Response

VIEWS = {
    "sure": (lazy_gettext("Opt-outs"), {}),
    "review": (lazy_gettext("Possible opt-outs"), {"opt_out_review": "true"}),
}
OPT_OUTS = ListKind(
    name="opt_outs",
    schema=OptOutListSchema,
    filters=("opt_out_review", "account", "received_from", "received_to"),
    span=("received_from", "received_to"),
    find=find_by_id(queries.list_opt_outs),
    read_place=lambda parts: int(parts[0]),
)


@blueprint.get("/opt-outs")
def opt_outs() -> Response:
    """List the numbers that have opted out, masked."""
    audit_look_up("opt_outs.read")
    return _show(200)


def _show(status: int, *, error: str | None = None) -> Response:
    found, values = read_list(OPT_OUTS)
    return render("opt_outs.html", max(status, found), **values, views=VIEWS, error=error)


@blueprint.post("/opt-outs/export")
def opt_outs_export() -> Response:
    """Return the list as a file with full numbers, for a reason. Audited."""
    reason = find_reason()
    if reason is None:
        return _show(422, error=gettext("Enter a reason for exporting full numbers."))
    try:
        filters = OptOutListSchema().load({name: value for name, value in request.args.items() if value})
    except ma.ValidationError:
        return _show(422)
    filters.pop("limit")
    wanted = wanted_of(OPT_OUTS, filters, (), runtime().now())
    form = FileFormat.CSV if request.form.get("format") == FileFormat.CSV else FileFormat.XLSX
    return answer_opt_outs(
        wanted,
        form,
        account=filters.get("account"),
        style=_style_of(wanted, form),
        wording=wording_of("opt_outs"),
        reason=reason,
    )


def _style_of(wanted: queries.Filter, form: FileFormat) -> FileStyle:
    name, title = "opt-outs", gettext("Opt-out list")
    if wanted.opt_out_review:
        name, title = "possible-opt-outs", gettext("Possible opt-outs")
    span = {"received_from": wanted.received_from, "received_to": wanted.received_to}
    times = {field: moment for field, moment in span.items() if moment is not None}
    plain, worded = names_of(name, title, times, form.value)
    return FileStyle(plain_name=plain, worded_name=worded)
