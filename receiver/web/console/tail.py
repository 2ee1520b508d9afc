"""The tail: the newest pushes, as they come."""

from __future__ import annotations

from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING
from uuid import UUID

from flask import Response as EmptyResponse
from flask import request

from receiver.messages import queries
from receiver.web import runtime
from receiver.web.console.pages import blueprint, render
from receiver.web.console.session import current_user, seen_accounts

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

_ROWS_MAX = 50
_COMMITTED_AFTER = timedelta(seconds=10)  # until then an older push may still come


@blueprint.get("/tail")
def tail() -> Response:
    """Show the newest pushes; to the page itself, those that came since the newest that it has (`after`)."""
    after = _after() if "HX-Request" in request.headers else None
    accounts = current_user().user.accounts
    rows = runtime().ask(
        lambda connection: queries.list_tail(
            connection, limit=_ROWS_MAX, after=after and queries.read_back(after), accounts=accounts
        )
    )
    if "HX-Request" not in request.headers:
        return render("tail.html", rows=rows, several=len(seen_accounts()) > 1)
    nothing_new = not rows or (rows[0].id == after and runtime().now() - rows[0].received_at > _COMMITTED_AFTER)
    if nothing_new:
        return EmptyResponse(status=HTTPStatus.NO_CONTENT)
    return render("tail_rows.html", rows=rows, several=len(seen_accounts()) > 1)


def _after() -> UUID | None:
    try:
        return UUID(request.args.get("after", ""))
    except ValueError:
        return None
