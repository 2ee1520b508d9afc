"""`/events`: receipts and replies as a stream that a reader can go on from."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import marshmallow as ma
from flask import Response, request, stream_with_context
from flask.views import MethodView

from receiver.core import Cursors, Kind
from receiver.messages import Event, Position, events
from receiver.web import runtime
from receiver.web.api.common import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    MAX_WAIT_SECONDS,
    RECEIPT_STATUSES,
    Blueprint,
    PlatformTime,
    SightingSchema,
    StrictSchema,
    Text,
    WholeNumber,
    audit_look_up,
    documents,
    documents_text,
    hold,
    link,
    next_page,
    operation,
    readable_accounts,
    shown,
)
from receiver.web.auth import caller, check_again
from receiver.web.errors import Denied

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


blueprint = Blueprint("events", __name__, description="Receipts and replies in the order in which they came.")

NDJSON = "application/x-ndjson"


class EventFilterSchema(StrictSchema):
    """Where a reader goes on, and how long it waits."""

    after = Text(
        max_chars=1000,
        metadata={"description": "`next_cursor` of the page before; without it, from the beginning."},
    )
    limit = WholeNumber(load_default=DEFAULT_LIMIT, validate=ma.validate.Range(1, MAX_LIMIT))
    account = Text(max_chars=64, metadata={"description": "One of the configured accounts."})
    wait = WholeNumber(
        load_default=0,
        validate=ma.validate.Range(0, MAX_WAIT_SECONDS),
        metadata={"description": "Seconds to hold the answer while there is nothing new."},
    )


class EventSchema(SightingSchema):
    """A receipt or a reply, told apart by `kind`."""

    task_id = ma.fields.String(
        required=True, allow_none=True, metadata={"description": "Null for a reply that the platform gave none."}
    )
    kind = ma.fields.String(required=True, validate=ma.validate.OneOf([kind.value for kind in Kind]))
    status = ma.fields.String(validate=ma.validate.OneOf(RECEIPT_STATUSES), metadata={"description": "Receipts."})
    vendor_status = ma.fields.String(metadata={"description": "Receipts."})
    reported_at = PlatformTime(metadata={"description": "Receipts."})
    content = ma.fields.String(metadata={"description": "Replies."})
    opt_out = ma.fields.Boolean(metadata={"description": "Replies."})
    opt_out_review = ma.fields.Boolean(metadata={"description": "Replies."})
    replied_at = PlatformTime(metadata={"description": "Replies."})


_EVENT = EventSchema()
EventListSchema = ma.Schema.from_dict(
    {
        "items": ma.fields.List(ma.fields.Nested(EventSchema), required=True),
        "next_cursor": ma.fields.String(required=True),
        "lag_seconds": ma.fields.Float(
            required=True,
            metadata={"description": "For how long a transaction that does not end has held newer events back."},
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

        A reader that goes on from `next_cursor` never misses one and sees none twice, however many writers there are.
        With `Accept: application/x-ndjson`, every event that there is, one a line, each with the `cursor` to go on
        from; the stream ends once there was nothing new for `wait` seconds. What never comes is asked for by
        `GET /messages?status=no_receipt`, or `late=true` with a `sent_from` of a few minutes ago.
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
            "lag_seconds": round(runtime().horizon.lag_seconds, 3),
        }


class _Reader:
    """One reader's way through the stream."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self._parts = runtime()
        self._accounts = readable_accounts(arguments.get("account"))
        self._limit = arguments["limit"]
        self._wait = arguments["wait"]
        self._noted = False  # in the audit: once a request, however long its stream is
        self._cursors = Cursors(self._parts.shared_secret("cursor"), "events", {"accounts": self._accounts})
        self._position = Position()
        if "after" in arguments:
            self._position = Position(*map(int, self._cursors.read(arguments["after"])))

    @property
    def cursor(self) -> str:
        """Where it goes on."""
        return self._cursors.make(self._position.receipt_id, self._position.reply_id)

    def next_page(self) -> Sequence[Event]:
        """Return what comes next, and move on."""
        self._parts.require_database()
        final = self._parts.horizon.find()
        page = self._parts.ask(
            lambda connection: events.list_events(connection, self._position, final, self._limit, self._accounts)
        )
        if page:
            self._position = page[-1].position
        if page and not self._noted and (caller().sees_numbers or any(event.kind is Kind.REPLY for event in page)):
            audit_look_up("events.read")
            self._noted = True
        return page

    def _page_to_tell(self) -> Sequence[Event]:
        page = self.next_page()
        if not page and self._wait:
            return hold(self._wait, lambda: self.next_page() or None) or []
        check_again()  # however slowly the lines before were read
        return page

    def shown(self, event: Event) -> dict[str, Any]:
        """Return an event as this reader may see it."""
        return {"kind": event.kind.value, **asdict(shown(event.row))}

    def lines(self) -> Iterator[str]:
        """Return every event as a line, until there is nothing new for as long as asked for."""
        while True:
            try:
                page = self._page_to_tell()
            except Denied:  # the answer has begun: it ends here, and the next request is refused
                return
            if not page:
                return
            for event in page:
                position = event.position
                cursor = self._cursors.make(position.receipt_id, position.reply_id)
                line = _EVENT.dump(self.shown(event)) | {"cursor": cursor}
                yield json.dumps(line, ensure_ascii=False) + "\n"
