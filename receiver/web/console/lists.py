"""Lists with the API's filters in the URL. Numbers are masked and never part of a URL."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import redirect, request, url_for
from flask_babel import gettext, lazy_gettext

from receiver.messages import queries
from receiver.support.lookup import NUMBERS_MAX as LOOKED_UP_MAX
from receiver.support.lookup_store import save_look_up
from receiver.support.number_list import NUMBERS_MAX, NumberList, parse_numbers
from receiver.web import runtime
from receiver.web.console.list_pages import ListKind, MessageListSchema, ReplyListSchema, read_list, time_and_id
from receiver.web.console.pages import blueprint, render
from receiver.web.console.session import current_user
from receiver.web.lists.visibility import audit_look_up

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flask import Response
    from werkzeug.wrappers import Response as AnyResponse

_NAMED_MAX, _NAMED_CHARS = 5, 30  # of a list's wrong pieces

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
MESSAGES = ListKind(
    name="messages",
    schema=MessageListSchema,
    filters=(
        "status", "late", "matched", "conflicting", "template_id", "task_id", "reference", "account",
        "sent_from", "sent_to",
    ),
    span=("sent_from", "sent_to"),
    find=queries.list_messages_by_time,
    count=queries.count_messages,
    read_place=time_and_id,
)  # fmt: skip
REPLIES = ListKind(
    name="replies",
    schema=ReplyListSchema,
    filters=("q", "opt_out", "opt_out_review", "task_id", "account", "received_from", "received_to"),
    span=("received_from", "received_to"),
    find=lambda connection, page, _clock: queries.list_replies_by_time(connection, page),
    count=lambda connection, wanted, _clock: queries.count_replies(connection, wanted),
    read_place=time_and_id,
)
LISTS: Mapping[str, ListKind] = {kind.name: kind for kind in (MESSAGES, REPLIES)}


@blueprint.get("/messages")
def messages() -> Response:
    """List messages."""
    return _list_messages()


def _list_messages(**typed: Any) -> Response:
    status, values = read_list(MESSAGES, fault=typed.get("fault"))
    numbers, missing = values["typed_numbers"], []
    if numbers and "filter" in values and values["first_page"] and "HX-Request" not in request.headers:
        missing = runtime().ask(
            lambda connection: queries.find_numbers_without_messages(
                connection, numbers, values["filter"], values["clock"]
            )
        )
    page = {**values, **typed, "missing": missing, "views": MESSAGE_VIEWS, "statuses": queries.MESSAGE_STATUSES}
    return render("messages.html", status, **page)


@blueprint.get("/replies")
def replies() -> Response:
    """List replies."""
    audit_look_up("replies.read")
    return _list_replies()


def _list_replies(**typed: Any) -> Response:
    status, values = read_list(REPLIES, fault=typed.get("fault"))
    views = {
        "all": (gettext("All"), {}),
        "opt_out": (gettext("Opt-outs"), {"opt_out": "true"}),
        "review": (gettext("Possible opt-outs"), {"opt_out_review": "true"}),
    }
    return render("replies.html", status, **{**values, **typed, "views": views})


@blueprint.post("/messages/numbers", endpoint="numbers", defaults={"name": "messages"})
@blueprint.post("/replies/numbers", endpoint="numbers", defaults={"name": "replies"})
def filter_by_numbers(name: str) -> AnyResponse:
    """Narrow a list to pasted numbers, as `narrow_to_numbers` does."""
    return narrow_to_numbers(LISTS[name], _list_messages if name == "messages" else _list_replies)


def narrow_to_numbers(kind: ListKind, show: Callable[..., Response]) -> AnyResponse:
    """Save the numbers of a form under an opaque address, and redirect to the list with these alone.

    The other filters are in the query. What is no number is named, and nothing is saved; `show` makes that page.
    """
    text = request.form.get("numbers", "")
    found = parse_numbers(text)
    fault = _fault_of(found)
    if fault:
        return show(fault={"numbers": fault}, typed=text)
    services, user = runtime(), current_user().user
    _audit_numbers(f"{kind.name}.look_up", found.numbers)
    saved = "\n".join(found.numbers)
    token = services.database.write(lambda connection: save_look_up(connection, user.id, saved, now=services.now()))
    others = {field: request.args[field] for field in (*kind.filters, "range") if field in request.args}
    narrowed: dict[str, Any] = {**others, "numbers": token}
    return redirect(url_for(f"console.{kind.name}", **narrowed), HTTPStatus.SEE_OTHER)


def _audit_numbers(action: str, numbers: Sequence[str]) -> None:
    """Audit a look-up of several numbers: as many as the search field takes each on its own, more in one entry."""
    if len(numbers) > LOOKED_UP_MAX:
        audit_look_up(action, numbers=len(numbers), mobile_hmacs=[runtime().mobile_hmac(number) for number in numbers])
        return
    for number in numbers:
        audit_look_up(action, mobile=number)


def _fault_of(found: NumberList) -> str:
    """Return why a pasted list cannot be used, in the page's language; empty: it can."""
    text: str = ""
    if found.wrong:
        named = ", ".join(piece[:_NAMED_CHARS] for piece in found.wrong[:_NAMED_MAX])
        rest = len(found.wrong) - _NAMED_MAX
        if rest > 0:
            text = gettext("Not phone numbers: %(named)s, and %(rest)s more.", named=named, rest=rest)
        else:
            text = gettext("Not phone numbers: %(named)s", named=named)
    elif not found.numbers:
        text = gettext("Enter at least one number.")
    elif len(found.numbers) > NUMBERS_MAX:
        text = gettext("At most %(most)s numbers. These are %(count)s.", most=NUMBERS_MAX, count=len(found.numbers))
    return text
