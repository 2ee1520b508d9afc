"""The audit log, for administrators: as a page and as a file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import marshmallow as ma
from flask import Response, request

from receiver.audit import MEDIA_TYPES, AuditFormat, iter_audit_file, iter_entries, verify_audit
from receiver.core import CheckResult, InvalidCursor
from receiver.web import runtime
from receiver.web.console.audit_texts import ACTIONS
from receiver.web.console.error_texts import fault_words
from receiver.web.console.pages import blueprint, faults, render
from receiver.web.console.session import current_user
from receiver.web.lists.filters import AuditFilterSchema
from receiver.web.lists.pages import audit_filter_of, read_audit

if TYPE_CHECKING:
    from collections.abc import Iterator


_FILTERS = ("actor", "action", "mobile", "mobile_hmac", "since", "until")
_HMAC = re.compile(r"[0-9a-f]{64}\Z")
_PROVED = 1000  # newest entries checked with each page; `receiver verify` checks all


class _FilterSchema(AuditFilterSchema):
    """As the API's, and the number of another entry, by its hash."""

    mobile_hmac = ma.fields.String(validate=ma.validate.Regexp(_HMAC))


@blueprint.route("/audit", methods=["GET", "POST"])
def audit() -> Response:
    """Show the entries, newest first. Filters are sent by POST, so that numbers stay out of URLs."""
    return _show(dict(request.values))


@blueprint.post("/audit/export")
def audit_export() -> Response:
    """Return all entries as a file, with the same filters."""
    given = dict(request.form)
    form = AuditFormat.NDJSON if given.get("format") == AuditFormat.NDJSON else AuditFormat.CSV
    try:
        arguments = _FilterSchema().load(_narrowed(given))
    except ma.ValidationError:
        return _show(given)
    services, audit_filter = runtime(), audit_filter_of(arguments)
    services.audit(current_user().caller.name, "audit.export", format=form.value, mobile_hmac=audit_filter.mobile_hmac)

    def pieces() -> Iterator[bytes]:
        with services.exporting() as connection:
            yield from iter_audit_file(iter_entries(connection, audit_filter), form)

    file = pieces()
    response = Response(file, content_type=MEDIA_TYPES[form])
    response.headers["Content-Disposition"] = f'attachment; filename="audit.{form.value}"'
    return response


def _narrowed(given: dict[str, str]) -> dict[str, str]:
    return {name: given[name].strip() for name in _FILTERS if given.get(name, "").strip()}


def _show(given: dict[str, str]) -> Response:
    narrowed = _narrowed(given)
    values: dict[str, Any] = {
        "given": given,
        "narrowed": narrowed,
        "errors": {},
        "items": [],
        "next_cursor": None,
        "first_page": not given.get("cursor"),
        "actions": sorted(((name, str(words)) for name, words in ACTIONS.items()), key=lambda choice: choice[1]),
        "proof": _proof(),
        "proved": _PROVED,
    }
    cursor = {"cursor": given["cursor"]} if given.get("cursor") else {}
    try:
        entries, next_cursor = read_audit(_FilterSchema().load(narrowed | cursor))
        return render("audit.html", **values | {"items": entries, "next_cursor": next_cursor})
    except ma.ValidationError as error:
        return render("audit.html", 422, **values | {"errors": faults(error)})
    except InvalidCursor as error:
        return render("audit.html", 422, **values | {"errors": {"cursor": fault_words(error.args[0])}})


def _proof() -> CheckResult:
    services = runtime()
    checkpoints, _ = services.checkpoints.read()
    return verify_audit(services.database, checkpoints, newest=_PROVED)
