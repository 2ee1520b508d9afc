"""Lists with the API's filters in the URL. Numbers are masked and never part of a URL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import marshmallow as ma
from flask import request
from flask_babel import gettext, lazy_gettext

from receiver.core import InvalidCursor
from receiver.messages import queries
from receiver.web.console.error_texts import fault_words
from receiver.web.console.pages import blueprint, faults, render
from receiver.web.console.session import seen_accounts
from receiver.web.lists.filters import MessageFilterSchema, ReplyFilterSchema
from receiver.web.lists.pages import answer_page
from receiver.web.lists.visibility import audit_look_up, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from werkzeug.wrappers import Response

# Common lists and their filters.
MESSAGE_VIEWS: Mapping[str, tuple[Any, Mapping[str, str]]] = {
    "all": (lazy_gettext("All"), {}),
    "late": (lazy_gettext("Late"), {"late": "true"}),
    "no_receipt": (lazy_gettext("No receipt"), {"status": "no_receipt"}),
    "failed": (lazy_gettext("Failed"), {"status": "failed"}),
    "refused": (lazy_gettext("Refused"), {"status": "refused"}),
    "conflicting": (lazy_gettext("Conflicting"), {"conflicting": "true"}),
    "unmatched": (lazy_gettext("Unmatched"), {"matched": "false"}),
}
_MESSAGE_FILTERS = (
    "status", "late", "matched", "conflicting", "template_id", "task_id", "reference", "account",
    "sent_from", "sent_to",
)  # fmt: skip
_REPLY_FILTERS = ("q", "opt_out", "opt_out_review", "task_id", "account", "received_from", "received_to")


def read_list(
    name: str,
    schema: type[ma.Schema],
    filters: Iterable[str],
    fetch: Callable[..., Any],
    present: Callable[[Any], Any],
) -> tuple[int, dict[str, Any]]:
    """Return the status and the template's values for the page of a list.

    An invalid filter is shown beside its field, and the list stays empty.
    """
    given = {field: value.strip() for field, value in request.args.items() if value.strip()}
    wanted = {field: given[field] for field in (*filters, "cursor") if field in given}
    values: dict[str, Any] = {
        "given": given,
        "narrowed": {field: value for field, value in wanted.items() if field != "cursor"},
        "errors": {},
        "items": [],
        "next_cursor": None,
        "accounts": seen_accounts(),
        "first_page": "cursor" not in wanted,
    }
    try:
        arguments = schema().load(wanted)
    except ma.ValidationError as error:
        return 422, values | {"errors": faults(error)}
    if "account" in arguments and arguments["account"] not in values["accounts"]:
        return 422, values | {"errors": {"account": gettext("This account is not configured.")}}
    try:
        return 200, values | answer_page(name, arguments, fetch, present)
    except InvalidCursor as error:
        return 422, values | {"errors": {"cursor": fault_words(error.args[0])}}


@blueprint.get("/messages")
def messages() -> Response:
    """List messages."""
    status, values = read_list("messages", MessageFilterSchema, _MESSAGE_FILTERS, queries.list_messages, shown)
    return render("messages.html", status, **values, views=MESSAGE_VIEWS, statuses=queries.MESSAGE_STATUSES)


@blueprint.get("/replies")
def replies() -> Response:
    """List replies."""
    audit_look_up("replies.read")
    status, values = read_list(
        "replies",
        ReplyFilterSchema,
        _REPLY_FILTERS,
        lambda connection, page, _: queries.list_replies(connection, page),
        shown,
    )
    views = {
        "all": (gettext("All"), {}),
        "opt_out": (gettext("Opt-outs"), {"opt_out": "true"}),
        "review": (gettext("Possible opt-outs"), {"opt_out_review": "true"}),
    }
    return render("replies.html", status, **values, views=views)
