"""One page of a list of the console: its filters from the address, its rows in the order that they show, its hits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import marshmallow as ma
from flask import request
from flask_babel import gettext

from receiver.core import InvalidCursor, NotFound
from receiver.core.cursors import Cursors
from receiver.messages.queries import Filter, Hits, Listed, Page, PushRow
from receiver.support.lookup_store import find_look_up, number_of_row
from receiver.support.number_list import parse_numbers
from receiver.web import runtime
from receiver.web.console import state_words
from receiver.web.console.error_texts import fault_words
from receiver.web.console.pages import faults
from receiver.web.console.session import Permission, current_user, seen_accounts
from receiver.web.lists.fields import OneOf, Text
from receiver.web.lists.filters import MessageFilterSchema, PushFilterSchema, ReplyFilterSchema
from receiver.web.lists.pages import page_may_lag
from receiver.web.lists.spans import SPANS, with_span
from receiver.web.lists.visibility import readable_accounts, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from receiver.db.engine import Connection
    from receiver.messages.queries import Clock

SPAN_NAMES: Mapping[str, Any] = {name: state_words.SPANS[name] for name in SPANS}
OF_ADDRESS = ("range", "numbers")  # filters that the API does not have; links to other lists keep them


class _SpanSchema(ma.Schema):
    range = ma.fields.String(validate=OneOf(SPANS))


class _NumbersSchema(_SpanSchema):
    numbers = Text(max_chars=64)


class MessageListSchema(_NumbersSchema, MessageFilterSchema):
    """Filters of the console's messages."""


class ReplyListSchema(_NumbersSchema, ReplyFilterSchema):
    """Filters of the console's replies."""


class OptOutListSchema(_SpanSchema, ReplyFilterSchema):
    """Filters of the console's list of opt-outs."""


class PushListSchema(_NumbersSchema, PushFilterSchema):
    """Filters of the console's journal."""

    task_id = Text(max_chars=64)
    error = Text(max_chars=1000)


@dataclass(frozen=True, kw_only=True, slots=True)
class ListKind:
    """A list of the console: its filters, and what finds and counts its rows."""

    name: str
    schema: type[ma.Schema]
    filters: tuple[str, ...]
    span: tuple[str, str]  # the filters that hold a span of time
    find: Callable[[Connection, Page, Clock], Listed[Any]]
    read_place: Callable[[Sequence[str]], Any]  # from a cursor: what `find` gave as the end of a page
    count: Callable[[Connection, Filter, Clock], Hits] | None = None


def find_by_id(
    find: Callable[[Connection, Page], Sequence[Any]],
) -> Callable[[Connection, Page, Clock], Listed[Any]]:
    """Return a query in the order of ids as a list's `find`: one row more than the page has shows that it goes on."""

    def find_page(connection: Connection, page: Page, _clock: Clock) -> Listed[Any]:
        rows = find(connection, replace(page, limit=page.limit + 1))
        shown_rows = rows[: page.limit]
        return Listed(rows=shown_rows, end=(shown_rows[-1].id,) if len(rows) > page.limit else None)

    return find_page


def time_and_id(parts: Sequence[str]) -> tuple[datetime, int]:
    """Return the place of a row in a list by time."""
    moment, row_id = parts
    return datetime.fromisoformat(moment), int(row_id)


def read_list(kind: ListKind, *, fault: Mapping[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    """Return the status and the template's values for the page of a list.

    An invalid filter is shown beside its field, and the list stays empty; so it is with a `fault` of what was typed.
    """
    given = {field: value.strip() for field, value in request.args.items() if value.strip()}
    wanted = {field: given[field] for field in (*kind.filters, *OF_ADDRESS, "cursor") if field in given}
    if not wanted.keys().isdisjoint(kind.span):
        wanted.pop("range", None)
    narrowed = {field: value for field, value in wanted.items() if field != "cursor"}
    values: dict[str, Any] = {
        "given": given,
        "narrowed": narrowed,
        "kept": {field: value for field, value in narrowed.items() if field in OF_ADDRESS},
        "errors": {},
        "items": [],
        "hits": None,
        "numbers": (),
        "typed_numbers": (),
        "searched_to": None,
        "next_cursor": None,
        "accounts": seen_accounts(),
        "first_page": "cursor" not in wanted,
        "spans": SPAN_NAMES,
        "now": runtime().now(),
    }
    if fault:
        return 422, values | {"errors": fault}
    try:
        arguments = kind.schema().load(wanted)
    except ma.ValidationError as error:
        return 422, values | {"errors": faults(error)}
    if "account" in arguments and arguments["account"] not in values["accounts"]:
        return 422, values | {"errors": {"account": gettext("This account is not configured.")}}
    if "numbers" in arguments:
        values["numbers"], values["typed_numbers"] = find_numbers(arguments["numbers"])
        if not values["numbers"]:
            return 422, values | {"errors": {"numbers": _numbers_are_gone()}}
    try:
        return 200, values | _answer(kind, arguments, values["numbers"], values["typed_numbers"])
    except InvalidCursor as error:
        return 422, values | {"errors": {"cursor": fault_words(error.args[0])}}


def with_address(kind: ListKind, arguments: Mapping[str, Any], given: Mapping[str, str]) -> tuple[dict[str, Any], bool]:
    """Return loaded filters with those that only an address of the console has, `range` and `numbers`.

    Return besides whether the user has typed these numbers.

    Raises ValidationError for a value that is none, NotFound for numbers that are gone.
    """
    narrowed, typed = dict(arguments), False
    own = _NumbersSchema().load({field: given[field] for field in OF_ADDRESS if field in given})
    if "range" in own:
        span = {"range": own["range"]}
        narrowed = with_span(narrowed | span, kind.span, runtime().now(), runtime().settings.timezone)
    if "numbers" in own:
        narrowed["mobiles"], seen = find_numbers(own["numbers"])
        if not narrowed["mobiles"]:
            raise NotFound(_numbers_are_gone())
        typed = bool(seen)
    return narrowed, typed


def _numbers_are_gone() -> str:
    return gettext("This list of numbers has expired after a day, or belongs to another user. Enter it again.")  # type: ignore[no-any-return]


def find_numbers(token: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the numbers that the current user saved under an opaque address, and those of them that they typed.

    The number of a row is not typed: its user sees it masked. None: there are none, or not for them.
    """
    services, staff = runtime(), current_user()
    if not staff.may(Permission.LOOK_UP):
        return (), ()
    text = services.ask(lambda connection: find_look_up(connection, staff.user.id, token, now=services.now())) or ""
    of_row = number_of_row(text)
    if of_row is not None:
        return (of_row,), ()
    numbers = tuple(parse_numbers(text).numbers)
    return numbers, numbers


def _answer(
    kind: ListKind, arguments: Mapping[str, Any], numbers: tuple[str, ...], typed: tuple[str, ...]
) -> dict[str, Any]:
    """Return one page. What depends on the time has that of the first page, which the cursor carries."""
    services = runtime()
    filters = {name: value for name, value in arguments.items() if name not in ("limit", "cursor")}
    cursors = Cursors(services.shared_secret("cursor"), f"console.{kind.name}", filters)
    before, since = None, None
    if "cursor" in arguments:
        *place, moment = cursors.read(arguments["cursor"])
        before, since = kind.read_place(place), datetime.fromisoformat(moment)
    now = since or services.now()
    wanted = wanted_of(kind, filters, numbers, now)
    page, clock = Page(limit=arguments["limit"], before=before, filter=wanted), services.clock(now)
    asked = {*filters} | ({"mobiles"} if numbers else set())
    ask = services.browse if page_may_lag(asked, since) else services.ask
    listed = ask(lambda connection: kind.find(connection, page, clock))
    hits, count = None, kind.count
    if since is None and listed.end is None:
        hits = Hits(number=len(listed.rows), exact=True)
    elif since is None and count is not None:
        counted = ask(lambda connection: count(connection, wanted, clock))
        hits = replace(counted, number=max(counted.number, len(listed.rows)))
    return {
        "items": [_shown(row, typed) for row in listed.rows],
        "hits": hits,
        "filter": wanted,
        "clock": clock,
        # Fewer rows than fit: the search has not come to its end.
        "searched_to": listed.end[0] if listed.end and len(listed.rows) < page.limit else None,
        "next_cursor": cursors.make(*map(_written, listed.end), now.isoformat()) if listed.end else None,
    }


def wanted_of(kind: ListKind, filters: Mapping[str, Any], numbers: tuple[str, ...], now: datetime) -> Filter:
    """Return the filter of a list from its loaded arguments, at this moment and within the user's accounts."""
    narrowed = with_span(filters, kind.span, now, runtime().settings.timezone)
    accounts = readable_accounts(narrowed.pop("account", None))
    for field in ("numbers", "limit", "cursor"):
        narrowed.pop(field, None)
    return Filter(**narrowed, accounts=accounts, mobiles=numbers or None)


def _shown(row: Any, typed: tuple[str, ...]) -> Any:
    """Return a row as the user may see it: a number that they typed is shown in full."""
    if isinstance(row, PushRow):
        return row
    return replace(shown(row), mobile=row.mobile) if row.mobile in typed else shown(row)


def _written(part: object) -> str:
    return part.isoformat() if isinstance(part, datetime) else str(part)
