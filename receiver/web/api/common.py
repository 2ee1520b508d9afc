"""What the resources share: fields, filters, pages, masking."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from json import JSONDecodeError
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import marshmallow as ma
from flask import after_this_request, current_app, request
from flask_smorest import Blueprint as SmorestBlueprint
from webargs.flaskparser import FlaskParser

from receiver.cursors import Cursors
from receiver.domain import MessageStatus, iso_milliseconds, iso_seconds, mask_mobile, parse_mobile
from receiver.records import parse_filter_time
from receiver.store.read import Clock, Filter, Page
from receiver.web import runtime
from receiver.web.auth import caller, check_again
from receiver.web.problems import MEDIA_TYPE, Denied, Invalid, Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import sqlalchemy as sa
    from flask import Request, Response

Row = TypeVar("Row")
T = TypeVar("T")

DEFAULT_LIMIT, MAX_LIMIT = 50, 1000
_TEXT_MAX_CHARS = 255
_TEXT = r"^[^\u0000-\u001f\u007f-\u009f]*$"  # PostgreSQL takes no NUL, and nobody means the others
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
MOBILE_PATTERN = r"^[+0-9][-0-9 *]{3,23}[0-9*]$"


class Parser(FlaskParser):
    """Refuses a parameter that nobody knows, where it would otherwise be passed over in silence."""

    DEFAULT_UNKNOWN_BY_LOCATION = {"query": ma.RAISE, "json": ma.RAISE, "headers": ma.EXCLUDE}  # noqa: RUF012  (as in the base class)

    def _raw_load_json(self, req: Request) -> Any:
        return read_json() if req.get_data() else ma.missing


class Blueprint(SmorestBlueprint):  # type: ignore[misc]  # flask-smorest has no types
    """A resource of the API."""

    ARGUMENTS_PARSER = Parser()

    def route(self, rule: str, **options: Any) -> Any:
        """Serve a path, with a slash at its end or without."""
        return super().route(rule, strict_slashes=False, **options)


def read_json() -> Any:
    """Return what the body of the present request says. Raises Unreadable."""
    if not request.is_json:
        raise Unreadable(415, "the body is not declared as JSON: send it with Content-Type: application/json")
    try:
        return current_app.json.loads(request.get_data())
    except JSONDecodeError as error:
        raise Unreadable(400, f"not JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise Unreadable(400, f"not UTF-8 at byte {error.start + 1}: JSON is always UTF-8") from None


# --- Fields -------------------------------------------------------------------------------------------


class Text(ma.fields.String):
    """Text that both databases take: no control characters, bounded."""

    def __init__(self, *, max_chars: int = _TEXT_MAX_CHARS, **kwargs: Any) -> None:
        metadata = {"pattern": _TEXT, "maxLength": max_chars}
        super().__init__(**kwargs | {"metadata": metadata | kwargs.get("metadata", {})})
        self._max_chars = max_chars

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        if isinstance(text, str) and _CONTROL.search(text):
            raise ma.ValidationError("Has a control character.")
        if isinstance(text, str) and len(text) > self._max_chars:
            raise ma.ValidationError(f"Longer than {self._max_chars} characters.")
        return text


class MobileField(ma.fields.String):
    """A telephone number in any usual spelling; comes out as digits."""

    def __init__(self, **kwargs: Any) -> None:
        metadata = {"pattern": MOBILE_PATTERN, "example": "15080921090"}
        super().__init__(**kwargs | {"metadata": metadata | kwargs.get("metadata", {})})

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        number = parse_mobile(text)
        if number is None:
            raise ma.ValidationError("Not a phone number.")
        return number


class InputTime(ma.fields.String):
    """A moment as ISO 8601, with or without an offset (without: the platform's zone); comes out as UTC."""

    def __init__(self, **kwargs: Any) -> None:
        metadata = {"format": "date-time", "example": "2026-11-23T09:14:03+08:00"}
        super().__init__(**kwargs | {"metadata": metadata | kwargs.get("metadata", {})})

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        # In a query, `+08:00` arrives as ` 08:00` from whoever forgets to encode it.
        text = re.sub(r" (\d\d:?\d\d)$", r"+\1", text) if "T" in text else text
        try:
            return parse_filter_time(text, runtime().settings.timezone)
        except ValueError as error:
            raise ma.ValidationError(str(error)) from None


class StrictBoolean(ma.fields.Boolean):
    """`true` or `false`, nothing like it."""

    truthy = {"true", True}  # noqa: RUF012  (as in the base class)
    falsy = {"false", False}  # noqa: RUF012

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, bool) or value in ("true", "false"):
            return super()._deserialize(value, attr, data, **kwargs)
        raise ma.ValidationError("Not true or false.")


class WholeNumber(ma.fields.Integer):
    """An integer as JSON writes it, or as digits."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, str) and not re.fullmatch(r"-?[0-9]{1,18}", value):
            raise ma.ValidationError("Not a whole number.")
        if isinstance(value, bool | float):
            raise ma.ValidationError("Not a whole number.")
        return super()._deserialize(value, attr, data, **kwargs)


def _date_time(kwargs: dict[str, Any]) -> dict[str, Any]:
    return kwargs | {"metadata": {"format": "date-time"} | kwargs.get("metadata", {})}


class PlatformTime(ma.fields.DateTime):
    """A time of the platform's: whole seconds, UTC."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**_date_time(kwargs))

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> Any:
        return None if value is None else iso_seconds(value)


class OurTime(ma.fields.DateTime):
    """A time of ours or the sender's: milliseconds, UTC."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**_date_time(kwargs))

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> Any:
        return None if value is None else iso_milliseconds(value)


# --- Schemas ------------------------------------------------------------------------------------------


class StrictSchema(ma.Schema):
    """Takes the fields that it names and no other."""

    class Meta:
        unknown = ma.RAISE


class PageSchema(StrictSchema):
    """Where a list goes on."""

    limit = WholeNumber(
        load_default=DEFAULT_LIMIT,
        validate=ma.validate.Range(1, MAX_LIMIT),
        metadata={"description": "How many items at most."},
    )
    cursor = Text(
        max_chars=1000,
        metadata={"description": "`next_cursor` of the page before, with the same filters."},
    )


class AccountFilterSchema(PageSchema):
    """What every list can be narrowed to."""

    account = Text(max_chars=64, metadata={"description": "One of the configured accounts."})


class ReceivedFilterSchema(AccountFilterSchema):
    """Lists of what the platform pushed."""

    received_from = InputTime(metadata={"description": "Received then or later."})
    received_to = InputTime(metadata={"description": "Received before then."})


class SightingFilterSchema(ReceivedFilterSchema):
    """Lists of receipts and replies."""

    mobile = MobileField()
    task_id = Text(max_chars=64)
    matched = StrictBoolean(metadata={"description": "Whether its message's send is recorded."})


class ProblemErrorSchema(ma.Schema):
    """One wrong field."""

    pointer = ma.fields.String(required=True, metadata={"description": "JSON pointer to the field."})
    detail = ma.fields.String(required=True)


class ProblemSchema(ma.Schema):
    """An error, as RFC 9457 has it."""

    type = ma.fields.String(required=True)
    title = ma.fields.String(required=True)
    status = ma.fields.Integer(required=True)
    code = ma.fields.String(required=True, metadata={"description": "Stable; what a program decides by."})
    detail = ma.fields.String(required=True)
    errors = ma.fields.List(ma.fields.Nested(ProblemErrorSchema))
    waiting_helps = ma.fields.Boolean(
        metadata={"description": "Of a refusal of the platform's: whether it may be sent later."}
    )
    advice = ma.fields.String(metadata={"description": "Of a refusal of the platform's: what to do."})


class SightingSchema(ma.Schema):
    """What receipts and replies share."""

    id = ma.fields.String(required=True)
    message_id = ma.fields.String(required=True, allow_none=True)
    account = ma.fields.String(required=True)
    task_id = ma.fields.String(required=True)
    mobile = ma.fields.String(required=True)
    received_at = OurTime(required=True)
    last_seen_at = OurTime(required=True)
    copies = ma.fields.Integer(required=True, metadata={"description": "How often it was pushed."})
    extra = ma.fields.Dict(
        keys=ma.fields.String(),
        values=ma.fields.String(),
        required=True,
        metadata={"description": "Fields that the platform's page does not name."},
    )
    push_id = ma.fields.String(required=True, metadata={"description": "The push that first brought it."})


def list_schema(item: type[ma.Schema], name: str) -> type[ma.Schema]:
    """The schema of a page of items."""
    return ma.Schema.from_dict(
        {
            "items": ma.fields.List(ma.fields.Nested(item), required=True),
            "next_cursor": ma.fields.String(required=True, allow_none=True),
        },
        name=name,
    )


MESSAGE_STATUSES = [status.value for status in MessageStatus]
RECEIPT_STATUSES = ["delivered", "failed", "unknown"]

PROBLEMS: Mapping[int, str] = {
    400: "The body is not JSON.",
    401: "No key, or one that is unknown, revoked or expired.",
    403: "The key lacks the scope.",
    404: "Nothing is there.",
    409: "A given value differs from the recorded one.",
    413: "The body is over 4 MiB.",
    415: "The body is not declared as JSON.",
    422: "Some input cannot be used; `errors` names it.",
    429: "Too many wrong keys came from this address; try again after `Retry-After` seconds.",
    502: "The platform was not reached, or said nothing that can be read; `code` says which.",
    504: "The platform did not answer in time; the message may have been sent.",
    503: "The database is unavailable; try again after `Retry-After` seconds.",
}


def documents(blueprint: Blueprint, *statuses: int) -> Callable[[Any], Any]:
    """Document the errors of a call."""

    def decorate(view: Any) -> Any:
        for status in (*statuses, *((429,) if 401 in statuses else ())):
            view = blueprint.alt_response(
                status, schema=ProblemSchema, description=PROBLEMS[status], content_type=MEDIA_TYPE
            )(view)
        return view

    return decorate


def operation(blueprint: Blueprint, name: str, links: Mapping[str, Any] | None = None) -> Callable[[Any], Any]:
    """Name a call for generated clients, and say where its answer leads."""
    doc: dict[str, Any] = {"operationId": name}
    if links:
        doc["responses"] = {200: {"links": links}}
    decorate: Callable[[Any], Any] = blueprint.doc(**doc)
    return decorate


def link(name: str, **parameters: str) -> dict[str, Any]:
    """A call that an answer leads to, its `parameters` by the place of their values in the answer's body."""
    return {
        "operationId": name,
        "parameters": {parameter: f"$response.body#/{place}" for parameter, place in parameters.items()},
    }


def next_page(name: str, parameter: str = "cursor") -> dict[str, Any]:
    """Where a list goes on."""
    return link(name, **{parameter: "next_cursor"}) | {"description": "With the same filters."}


def sighting_links(name: str) -> dict[str, Any]:
    """Where a list of receipts or replies leads."""
    return {
        "next_page": next_page(name),
        "message": link("get_message", message_id="items/0/message_id"),
        "push": link("get_push", push_id="items/0/push_id"),
    }


def documents_text(blueprint: Blueprint, content_type: str) -> Callable[[Any], Any]:
    """Document that the answer comes as this instead of JSON, where `Accept` asks for it."""
    decorate: Callable[[Any], Any] = blueprint.alt_response(200, schema={"type": "string"}, content_type=content_type)
    return decorate


# --- Accounts -----------------------------------------------------------------------------------------


def readable_accounts(asked: str | None) -> tuple[str, ...] | None:
    """The accounts that a read covers; None: all. Raises Invalid for an unknown one, Denied for a closed one."""
    allowed = caller().accounts
    if asked is None:
        return allowed
    if asked not in runtime().settings.accounts:
        raise Invalid({"#/account": "no such account is configured"})
    if allowed is not None and asked not in allowed:
        raise Denied(403, "account_closed", "this key is bound to other accounts")
    return (asked,)


def account_to_write(asked: str | None) -> str:
    """The account that a write is for: the one asked for, else the only one. Raises Invalid or Denied."""
    if asked is not None:
        readable_accounts(asked)
        return asked
    choices = runtime().settings.accounts
    allowed = caller().accounts
    if allowed is not None:
        choices &= set(allowed)
    if len(choices) != 1:
        raise Invalid({"#/account": "several accounts are configured: say which"})
    return next(iter(choices))


# --- Pages --------------------------------------------------------------------------------------------


def answer_page(
    name: str,
    arguments: Mapping[str, Any],
    fetch: Callable[[sa.Connection, Page, Clock], Sequence[Any]],
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


def browse(question: Callable[[sa.Connection], T]) -> T:
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


# --- Waiting ------------------------------------------------------------------------------------------

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


# --- What a caller sees -------------------------------------------------------------------------------

_NUMBER_INSIDE = re.compile(r"(?<![0-9])(?:86|0086)?1[0-9]{10}(?![0-9])")


def shown(row: Row) -> Row:
    """Give a row as the caller may see it: numbers masked without the scope `pii`."""
    if caller().sees_numbers:
        return row
    changes: dict[str, Any] = {"mobile": mask_mobile(row.mobile)}  # type: ignore[attr-defined]
    if extra := getattr(row, "extra", None):
        changes["extra"] = {_without_numbers(name): _without_numbers(value) for name, value in extra.items()}
    return replace(row, **changes)  # type: ignore[type-var]


def _without_numbers(text: str) -> str:
    return _NUMBER_INSIDE.sub(lambda match: mask_mobile(match[0]), text)


def audit_list(name: str, arguments: Mapping[str, Any]) -> None:
    """Note a list of messages or receipts where it was asked for by number, or shows numbers in full."""
    mobile = arguments.get("mobile")
    if mobile is not None:
        audit_look_up(f"{name}.look_up", mobile=mobile)
    elif caller().sees_numbers:
        audit_look_up(f"{name}.read")


def audit_look_up(action: str, *, mobile: str | None = None, **detail: Any) -> None:
    """Note a look-up by number, or a read of content. The number goes in as a keyed hash."""
    runtime().audit(caller().name, action, mobile=mobile, **detail)
