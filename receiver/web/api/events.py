"""`/events`: receipts and replies as a resumable stream."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import marshmallow as ma
from flask import Response, request, stream_with_context
from flask.views import MethodView

from receiver.core import Kind
from receiver.core.cursors import Cursors
from receiver.messages import Event, Position, events
from receiver.messages.fields import fields_of
from receiver.messages.queries import ReceiptRow, ReplyRow
from receiver.web import runtime
from receiver.web.api.common import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    MAX_WAIT_SECONDS,
    Blueprint,
    StrictSchema,
    Text,
    WholeNumber,
    audit_look_up,
    documents,
    documents_text,
    field_schema,
    hold,
    link,
    next_page,
    operation,
    readable_accounts,
    row_json,
)
from receiver.web.auth import caller, check_again
from receiver.web.errors import Denied

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


blueprint = Blueprint("events", __name__, description="Receipts and replies in order of arrival.")

NDJSON = "application/x-ndjson"


class EventFilterSchema(StrictSchema):
    """The cursor of a reader, and how long it waits."""

    after = Text(
        max_chars=1000,
        metadata={"description": "`next_cursor` of the previous page; without it, from the beginning."},
    )
    limit = WholeNumber(load_default=DEFAULT_LIMIT, validate=ma.validate.Range(1, MAX_LIMIT))
    account = Text(max_chars=64, metadata={"description": "One of the configured accounts."})
    wait = WholeNumber(
        load_default=0,
        validate=ma.validate.Range(0, MAX_WAIT_SECONDS),
        metadata={"description": "Seconds to wait for new events."},
    )


def _event_schema() -> type[ma.Schema]:
    """Return the schema of a receipt or a reply, told apart by `kind`: a field that only one has is not required."""
    of_receipts, of_replies = ({field.name: field for field in fields_of(row)} for row in (ReceiptRow, ReplyRow))
    schemas: dict[str, Any] = {
        "kind": ma.fields.String(required=True, validate=ma.validate.OneOf([kind.value for kind in Kind]))
    }
    for name, field in (of_receipts | of_replies).items():
        if name in of_receipts and name in of_replies:
            schemas[name] = field_schema(field)
        else:
            whose = "Receipts." if name in of_receipts else "Replies."
            schemas[name] = field_schema(replace(field, description=whose), required=False)
    return ma.Schema.from_dict(schemas, name="Event")


EventListSchema = ma.Schema.from_dict(
    {
        "items": ma.fields.List(ma.fields.Nested(_event_schema()), required=True),
        "next_cursor": ma.fields.String(required=True),
        "lag_seconds": ma.fields.Float(
            required=True,
            metadata={"description": "For how long newer events have not been read from the journal yet."},
        ),
    },
    name="EventList",
)


@blueprint.route("/events")
class Events(MethodView):
    """The stream."""

    @operation(
        blueprint,
        "list_events",
        links={"next_page": next_page("list_events", "after"), "push": link("get_push", push_id="items/0/push_id")},
    )
    @documents(blueprint, 401, 403, 422, 503)
    @blueprint.arguments(EventFilterSchema, location="query")
    @blueprint.response(200, EventListSchema)
    @documents_text(blueprint, NDJSON)
    def get(self, arguments: dict[str, Any]) -> Any:
        """Return receipts and replies, oldest first.

        A reader that continues from `next_cursor` misses no event and sees none twice, also with many writers.
        With `Accept: application/x-ndjson`, the answer is a stream: one event per line, each with its `cursor`. It ends
        when there was nothing new for `wait` seconds. For missing receipts, use `GET /messages?status=no_receipt`, or
        `late=true` with a `sent_from` of a few minutes ago.
        """
        reader = _Reader(arguments)
        if request.accept_mimetypes.best_match(["application/json", NDJSON]) == NDJSON:
            return Response(stream_with_context(reader.lines()), mimetype=NDJSON)
        page = reader.next_page()
        if not page and arguments["wait"]:
            page = hold(arguments["wait"], lambda: reader.next_page() or None) or []
        return {
            "items": [reader.shown(event) for event in page],
            "next_cursor": reader.cursor,
            "lag_seconds": round(runtime().projector.lag_seconds, 3),
        }


class _Reader:
    """The position of one reader in the stream."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self._services = runtime()
        self._accounts = readable_accounts(arguments.get("account"))
        self._limit = arguments["limit"]
        self._wait = arguments["wait"]
        self._audited = False  # once per request, however long its stream is
        self._cursors = Cursors(self._services.shared_secret("cursor"), "events", {"accounts": self._accounts})
        self._position = Position()
        if "after" in arguments:
            self._position = Position(*map(int, self._cursors.read(arguments["after"])))

    @property
    def cursor(self) -> str:
        """The cursor to continue from."""
        return self._cursors.make(self._position.receipt_id, self._position.reply_id)

    def next_page(self) -> Sequence[Event]:
        """Return the next events, and advance."""
        self._services.require_database()
        page = self._services.ask(
            lambda connection: events.list_events(connection, self._position, self._limit, self._accounts)
        )
        if page:
            self._position = page[-1].position
        if page and not self._audited and (caller().sees_numbers or any(event.kind is Kind.REPLY for event in page)):
            audit_look_up("events.read")
            self._audited = True
        return page

    def _page_to_write(self) -> Sequence[Event]:
        page = self.next_page()
        if not page and self._wait:
            return hold(self._wait, lambda: self.next_page() or None) or []
        check_again()  # the client may have read the lines before slowly
        return page

    def shown(self, event: Event) -> dict[str, Any]:
        """Return an event as this reader may see it."""
        return {"kind": event.kind.value} | row_json(event.row)

    def lines(self) -> Iterator[str]:
        """Yield every event as a line, until there is nothing new for the wait time."""
        while True:
            try:
                page = self._page_to_write()
            except Denied:  # the answer has begun: it ends here, and the next request gets the error
                return
            if not page:
                return
            for event in page:
                position = event.position
                cursor = self._cursors.make(position.receipt_id, position.reply_id)
                line = self.shown(event) | {"cursor": cursor}
                yield json.dumps(line, ensure_ascii=False) + "\n"
