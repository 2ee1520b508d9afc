"""Pages of a list, long polling, and reads from a replica."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from receiver.core.cursors import Cursors
from receiver.messages.queries import Clock, Filter, Page
from receiver.web import runtime
from receiver.web.api.common.visibility import readable_accounts
from receiver.web.auth import check_again

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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
    first page, which the cursor carries.
    """
    services = runtime()
    wanted = {key: value for key, value in arguments.items() if key not in ("limit", "cursor", "account")}
    accounts = readable_accounts(arguments.get("account"))
    narrowed = Filter(**wanted, accounts=accounts)
    cursors = Cursors(services.shared_secret("cursor"), name, asdict(narrowed))
    before, now = None, services.now()
    if "cursor" in arguments:
        before, moment = cursors.read(arguments["cursor"])
        now = datetime.fromisoformat(moment)
    limit = arguments["limit"]
    page = Page(limit=limit + 1, before=_key_of(name, before), filter=narrowed)
    # A search for one person or message needs the newest rows; a list may lag. A later page may only lag once the
    # replica certainly has what the first page showed: otherwise rows would be missing.
    replicated = services.now() - now > services.settings.replica_max_lag + _CLOCKS_APART
    may_lag = not _ASKS_FOR_ONE.intersection(wanted) and ("cursor" not in arguments or replicated)
    rows = (services.browse if may_lag else services.ask)(
        lambda connection: fetch(connection, page, services.clock(now))
    )
    next_cursor = cursors.make(rows[limit - 1].id, now.isoformat()) if len(rows) > limit else None
    return {"items": [present(row) for row in rows[:limit]], "next_cursor": next_cursor}


_CLOCKS_APART = timedelta(minutes=1)  # of nodes, at most
_ASKS_FOR_ONE = frozenset({"mobile", "task_id", "reference"})


def _key_of(name: str, before: str | None) -> Any:
    if before is None:
        return None
    return UUID(before) if name == "pushes" else int(before)


MAX_WAIT_SECONDS = 30
_POLL_SECONDS = 0.25
# Each waiting request holds a thread; beyond this number, requests are answered at once.
_waiters = threading.BoundedSemaphore(16)


def hold(seconds: float, find: Callable[[], T | None]) -> T | None:
    """Return the first result of `find`, called repeatedly; None: there was none in that time.

    Raises Denied if the caller's key was revoked or expired meanwhile.
    """
    if not _waiters.acquire(blocking=False):
        return None
    try:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            if (found := find()) is not None:
                break
        else:
            found = None
        check_again()
        return found
    finally:
        _waiters.release()
