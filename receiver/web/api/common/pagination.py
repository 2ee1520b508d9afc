"""Pages of a list, and answers that wait or may lag behind."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from flask import after_this_request

from receiver.core import Cursors
from receiver.messages.queries import Clock, Filter, Page
from receiver.web import runtime
from receiver.web.api.common.visibility import readable_accounts
from receiver.web.auth import check_again

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flask import Response

    from receiver.db.engine import Connection


T = TypeVar("T")


def answer_page(
    name: str,
    arguments: Mapping[str, Any],
    fetch: Callable[[Connection, Page, Clock], Sequence[Any]],
    present: Callable[[Any], Any],
) -> dict[str, Any]:
    """Fetch one page of the list `name`, its items as `present` shows them.

    `arguments` are the loaded filters with `limit` and `cursor`. What depends on the present moment is asked as of
    the moment of the first page, which the cursor carries.
    """
    parts = runtime()
    wanted = {key: value for key, value in arguments.items() if key not in ("limit", "cursor", "account")}
    accounts = readable_accounts(arguments.get("account"))
    narrowed = Filter(**wanted, accounts=accounts)
    cursors = Cursors(parts.shared_secret("cursor"), name, asdict(narrowed))
    before, now = None, parts.now()
    if "cursor" in arguments:
        before, moment = cursors.read(arguments["cursor"])
        now = datetime.fromisoformat(moment)
    limit = arguments["limit"]
    page = Page(limit=limit + 1, before=_key_of(name, before), filter=narrowed)
    # Who asks for one person or one message has just heard of it; lists may be a little behind. Not so the pages after
    # a first one, which may have shown more than the replica has: it would lack what comes next.
    settled = parts.now() - now > parts.settings.replica_max_lag + _CLOCKS_APART
    behind = not _ASKS_FOR_ONE.intersection(wanted) and ("cursor" not in arguments or settled)
    rows = (browse if behind else parts.ask)(lambda connection: fetch(connection, page, parts.clock(now)))
    next_cursor = cursors.make(rows[limit - 1].id, now.isoformat()) if len(rows) > limit else None
    return {"items": [present(row) for row in rows[:limit]], "next_cursor": next_cursor}


_CLOCKS_APART = timedelta(minutes=1)  # of nodes, at most
_ASKS_FOR_ONE = frozenset({"mobile", "task_id", "reference"})
DATA_LAG_HEADER = "X-Data-Lag-Seconds"


def browse(question: Callable[[Connection], T]) -> T:
    """Answer a question that does not need the newest rows; where a replica answers, the response says how old it is.

    Its `X-Data-Lag-Seconds`: what was kept before that many seconds is in the answer.
    """
    answer, lag = runtime().browse(question)
    if lag is not None:
        shown_lag = f"{lag:.1f}"

        @after_this_request
        def _tell(response: Response) -> Response:
            response.headers[DATA_LAG_HEADER] = shown_lag
            return response

    return answer


def _key_of(name: str, before: str | None) -> Any:
    if before is None:
        return None
    return UUID(before) if name == "pushes" else int(before)


MAX_WAIT_SECONDS = 30
_POLL_SECONDS = 0.25
# Every one that waits holds a thread; beyond these the answer comes at once, as it is.
_waiters = threading.BoundedSemaphore(16)


def hold(seconds: float, look: Callable[[], T | None]) -> T | None:
    """Look again and again for something, and give it once it is there; None: it was not in that time.

    Raises Denied where the caller's key was revoked, or has expired, meanwhile.
    """
    if not _waiters.acquire(blocking=False):
        return None
    try:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            if (found := look()) is not None:
                break
        else:
            found = None
        check_again()
        return found
    finally:
        _waiters.release()
