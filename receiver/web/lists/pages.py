"""Pages of lists, for the API and the console."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from flask import g

from receiver.audit import AuditFilter, list_entries
from receiver.core import CLOCKS_APART, InputFault, InvalidCursor, NotFound
from receiver.core.cursors import Cursors
from receiver.messages import queries
from receiver.messages.queries import Clock, Filter, Page, PushRow
from receiver.messages.stamps import settled
from receiver.web import runtime
from receiver.web.auth import caller
from receiver.web.lists.visibility import readable_accounts

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from receiver.audit.log import Entry
    from receiver.db.engine import Connection

T = TypeVar("T")


def answer_page(
    name: str,
    arguments: Mapping[str, Any],
    fetch: Callable[[Connection, Page, Clock], Sequence[Any]],
    present: Callable[[Any], Any],
) -> dict[str, Any]:
    """Return one page of the list `name`, its items converted by `present`.

    `arguments` are the loaded filters with `limit` and `cursor`. Filters that depend on the time use the time of the
    first page, which the cursor carries; so do those that ask for changes, with the last stamp. Raises InvalidCursor.
    """
    services = runtime()
    wanted = {key: value for key, value in arguments.items() if key not in ("limit", "cursor", "account")}
    accounts = readable_accounts(arguments.get("account"))
    narrowed = Filter(**wanted, accounts=accounts)
    cursors = Cursors(services.shared_secret("cursor"), name, _in_cursors(narrowed))
    before, now, page_filter = None, services.now(), narrowed
    if "cursor" in arguments:
        last, moment, *stamps = cursors.read(arguments["cursor"])
        before, now = _key_of(name, last), datetime.fromisoformat(moment)
        if narrowed.of_changes:
            if len(stamps) != 2:  # from before they came in the order of changes
                raise InvalidCursor(InputFault.INVALID_CURSOR)
            stamped_upto, stamp = map(datetime.fromisoformat, stamps)
            before, page_filter = (stamp, before), replace(narrowed, stamped_upto=stamped_upto)
    elif narrowed.of_changes:
        page_filter = services.ask(lambda connection: settled(connection, narrowed), stamped=True)
    limit = arguments["limit"]
    page = Page(limit=limit + 1, before=before, filter=page_filter)
    may_lag = not narrowed.of_changes and page_may_lag(wanted, now if "cursor" in arguments else None)
    rows = (services.browse if may_lag else services.ask)(
        lambda connection: fetch(connection, page, services.clock(now))
    )
    next_cursor = None
    if len(rows) > limit:
        end = rows[limit - 1]
        moments = [now, page_filter.stamped_upto, end.updated_at] if narrowed.of_changes else [now]
        next_cursor = cursors.make(end.id, *(moment.isoformat() for moment in moments))
    return as_page([present(row) for row in rows[:limit]], next_cursor)


def page_may_lag(filters: Collection[str], since: datetime | None) -> bool:
    """Return whether a replica may answer for a page. `since`: when the first page was shown; None: this is the first.

    A search for one person or message needs the newest rows; a list may lag. A later page may only lag once the
    replica certainly has what the first page showed: otherwise rows would be missing.
    """
    services = runtime()
    replicated = since is None or services.now() - since > services.settings.replica_max_lag + CLOCKS_APART
    return replicated and _ASKS_FOR_ONE.isdisjoint(filters)


def _in_cursors(wanted: Filter) -> dict[str, Any]:
    """Return what a cursor is for. Cursors from before a filter was known go on: null, a later one is left out."""
    return {key: value for key, value in asdict(wanted).items() if value is not None or key not in _LATER_FILTERS}


def as_page(items: list[Any], next_cursor: str | None) -> dict[str, Any]:
    """Return one page of a list, as its readers get it; the API names the next one in a header too."""
    g.next_cursor = next_cursor
    return {"items": items, "next_cursor": next_cursor, "has_more": next_cursor is not None}


_LATER_FILTERS = frozenset({"updated_from", "updated_to", "stamped_upto", "mobiles", "error"})
_ASKS_FOR_ONE = frozenset({"mobile", "mobiles", "task_id", "reference"})


def _key_of(name: str, last: str) -> Any:
    return UUID(last) if name == "pushes" else int(last)


def find_push(text: str) -> PushRow:
    """Return the push with an id, within the caller's accounts. Raises NotFound."""
    try:
        push_id = UUID(text)
    except ValueError:
        raise NotFound(InputFault.UNKNOWN_PUSH) from None
    found = runtime().ask(lambda connection: queries.find_push(connection, push_id, caller().accounts))
    if found is None:
        raise NotFound(InputFault.UNKNOWN_PUSH)
    return found


def read_by_id(
    name: str,
    filters: Mapping[str, Any],
    arguments: Mapping[str, Any],
    query: Callable[..., list[T]],
    *,
    audit: Callable[[], None] = lambda: None,
) -> tuple[list[T], str | None]:
    """Return one page of a list that has no filters but these, newest first, and the next page's cursor.

    `query` takes `limit`, and `before`: the id that its rows are below. `audit` is called before it. Raises
    InvalidCursor.
    """
    cursors, limit = Cursors(runtime().shared_secret("cursor"), name, filters), arguments["limit"]
    before = int(cursors.read(arguments["cursor"])[0]) if "cursor" in arguments else None
    audit()
    found: list[Any] = runtime().ask(partial(query, limit=limit + 1, before=before))
    next_cursor = cursors.make(found[limit - 1].id) if len(found) > limit else None
    return found[:limit], next_cursor


def audit_filter_of(arguments: dict[str, Any]) -> AuditFilter:
    """Return the filter of loaded arguments; a number becomes its keyed hash."""
    wanted = {name: value for name, value in arguments.items() if name in ("actor", "action", "since", "until")}
    mobile = arguments.get("mobile")
    hashed = arguments.get("mobile_hmac") if mobile is None else runtime().mobile_hmac(mobile)
    return AuditFilter(**wanted, mobile_hmac=hashed)


_EXPORTS_SHOWN = 20


def find_exports(names: Iterable[str], *, since: datetime) -> list[Entry]:
    """Return the caller's newest exports of these lists."""
    asked = [AuditFilter(actor=caller().name, action=f"{name}.export", since=since) for name in names]

    def read(connection: Connection) -> list[Entry]:
        return [entry for each in asked for entry in list_entries(connection, each, limit=_EXPORTS_SHOWN)]

    return sorted(runtime().browse(read), key=lambda entry: entry.id, reverse=True)[:_EXPORTS_SHOWN]


def read_audit(arguments: dict[str, Any]) -> tuple[list[Entry], str | None]:
    """Return one page of entries, newest first, and the next page's cursor; the read is audited too.

    Raises InvalidCursor.
    """
    audit_filter = audit_filter_of(arguments)
    audit = partial(runtime().audit, caller().name, "audit.read", mobile_hmac=audit_filter.mobile_hmac)
    return read_by_id("audit", asdict(audit_filter), arguments, partial(list_entries, asked=audit_filter), audit=audit)
