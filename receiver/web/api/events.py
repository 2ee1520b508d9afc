"""`/events`: receipts, replies and changes of messages as a resumable stream."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import marshmallow as ma
from flask import Response, g, request, stream_with_context
from flask.views import MethodView
from webargs.fields import DelimitedList

from receiver.core import InputFault, InvalidCursor
from receiver.core.cursors import Cursors
from receiver.messages import events
from receiver.messages.events import Event, EventKind, Position
from receiver.messages.queries import MessageRow, ReceiptRow, ReplyRow
from receiver.web import runtime
from receiver.web.api.common import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    MAX_WAIT_SECONDS,
    Blueprint,
    InputTime,
    OneOf,
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
    row_json,
    row_schema,
)
from receiver.web.auth import caller, check_again
from receiver.web.errors import Denied, Invalid

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


blueprint = Blueprint(
    "events", __name__, description="Receipts, replies and changes of messages, in the order of arrival."
)

NDJSON = "application/x-ndjson"
_STREAMED_AT_ONCE = 1000
_ABOUT_CURSOR = "`next_cursor` of the previous page; without it, or empty, from the beginning."


class EventFilterSchema(StrictSchema):
    """The cursor of a reader, what it wants, and how long it waits."""

    cursor = Text(max_chars=1000, metadata={"description": _ABOUT_CURSOR})
    after = Text(max_chars=1000, metadata={"description": "The same as `cursor`."})
    from_ = InputTime(
        data_key="from",
        metadata={
            "description": "Where no cursor is given: begin with what was received, or changed, at this time. Some that"
            " is older may be among it.",
            "example": "2026-11-23",
        },
    )
    kind = DelimitedList(
        ma.fields.String(validate=OneOf([kind.value for kind in EventKind])),
        metadata={"description": "These kinds only, separated by commas. A cursor is for the kinds it was made for."},
    )
    limit = WholeNumber(load_default=DEFAULT_LIMIT, validate=ma.validate.Range(1, MAX_LIMIT))
    account = Text(max_chars=64, metadata={"description": "One of the configured accounts."})
    wait = WholeNumber(
        load_default=0,
        validate=ma.validate.Range(0, MAX_WAIT_SECONDS),
        metadata={"description": "Seconds to wait for new events."},
    )


_ROWS: Mapping[EventKind, Any] = {
    EventKind.RECEIPT: ReceiptRow,
    EventKind.REPLY: ReplyRow,
    EventKind.MESSAGE: MessageRow,
}


def _event_schema(kind: EventKind) -> type[ma.Schema]:
    event_id = ma.fields.String(
        required=True, metadata={"description": "Unique over all kinds, and the same whenever it is read."}
    )
    return row_schema(
        _ROWS[kind],
        f"{kind.title()}Event",
        kind=ma.fields.String(required=True, validate=ma.validate.OneOf([kind.value])),
        event_id=event_id,
    )


# What `EVENT` refers to by name.
SCHEMAS: Mapping[str, type[ma.Schema]] = {f"{kind.title()}Event": _event_schema(kind) for kind in EventKind}
_REFERENCES = {kind.value: f"#/components/schemas/{kind.title()}Event" for kind in EventKind}
EVENT = {
    "oneOf": [{"$ref": reference} for reference in _REFERENCES.values()],
    "discriminator": {"propertyName": "kind", "mapping": _REFERENCES},
}

EventListSchema = ma.Schema.from_dict(
    {
        # JSON already: nothing is left to convert.
        "items": ma.fields.List(ma.fields.Raw(metadata={"$ref": "#/components/schemas/Event"}), required=True),
        "next_cursor": ma.fields.String(required=True, metadata={"description": "Always given, to go on later."}),
        "has_more": ma.fields.Boolean(required=True, metadata={"description": "Whether there are more at present."}),
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
        links={"next_page": next_page("list_events"), "push": link("get_push", push_id="items/0/push_id")},
    )
    @documents(blueprint, 401, 403, 422, 503)
    @blueprint.arguments(EventFilterSchema, location="query")
    @blueprint.response(200, EventListSchema)
    @documents_text(blueprint, NDJSON)
    def get(self, arguments: dict[str, Any]) -> Any:
        """Return receipts, replies and messages that have changed, oldest first.

        A reader that continues from `next_cursor` misses no event and sees none twice, also with many writers. A
        message comes as it is, once after its last change: whoever stores it by `id` has every message right. What time
        alone brings about, `late` and `no_receipt`, and what is deleted, is no event.
        With `Accept: application/x-ndjson`, the answer is a stream: one event per line, each with its `cursor`. It ends
        when there was nothing new for `wait` seconds. For missing receipts, use `GET /messages?status=no_receipt`, or
        `late=true` with a `sent_from` of a few minutes ago.
        """
        reader = _Reader(arguments)
        if request.accept_mimetypes.best_match(["application/json", NDJSON]) == NDJSON:
            return Response(stream_with_context(reader.lines()), mimetype=NDJSON)
        page = reader.next_page(arguments["limit"])
        if not page and arguments["wait"]:
            page = hold(arguments["wait"], lambda: reader.next_page(arguments["limit"]) or None) or []
        g.next_cursor = reader.cursor if reader.has_more else None
        return {
            "items": [reader.shown(event) for event in page],
            "next_cursor": reader.cursor,
            "has_more": reader.has_more,
            "lag_seconds": round(runtime().projector.lag_seconds, 3),
        }


class _Reader:
    """The position of one reader in the stream."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self._services = runtime()
        self._accounts = readable_accounts(arguments.get("account"))
        self._kinds = frozenset(map(EventKind, arguments.get("kind") or EventKind))
        self._wait = arguments["wait"]
        self._audited = False  # once per request, however long its stream is
        self.has_more = False
        self._cursors = self._make_cursors()
        self._position = replace(self._begin(arguments), kinds=self._kinds)

    def _make_cursors(self) -> Cursors:
        filters: dict[str, Any] = {"accounts": self._accounts}
        # Cursors from before messages were events go on, with these or without.
        if self._kinds not in (frozenset(EventKind), {EventKind.RECEIPT, EventKind.REPLY}):
            filters["kinds"] = sorted(self._kinds)
        return Cursors(self._services.shared_secret("cursor"), "events", filters)

    def _begin(self, arguments: dict[str, Any]) -> Position:
        """Return where to go on. Raises Invalid or InvalidCursor."""
        given = {name: arguments[name] for name in ("cursor", "after") if arguments.get(name)}
        if len(set(given.values())) > 1:
            raise Invalid({"#/after": "differs from `cursor`, which means the same: give one of them"})
        for name, cursor in given.items():
            try:
                return Position.of_parts(self._cursors.read(cursor))
            except InvalidCursor as error:
                raise InvalidCursor(str(error), parameter=name) from None
            except ValueError:
                raise InvalidCursor(InputFault.INVALID_CURSOR, parameter=name) from None
        if (moment := arguments.get("from_")) is not None:
            self._services.require_database()
            return self._services.ask(lambda connection: events.find_position(connection, moment))
        return Position()

    @property
    def cursor(self) -> str:
        """The cursor to continue from."""
        return self._cursors.make(*self._position.parts)

    def next_page(self, limit: int) -> Sequence[Event]:
        """Return the next events, and advance."""
        self._services.require_database()
        found = self._services.ask(
            lambda connection: events.list_events(
                connection, self._position, limit + 1, self._accounts, self._services.clock()
            ),
            stamped=EventKind.MESSAGE in self._kinds,
        )
        page, self.has_more = found[:limit], len(found) > limit
        if page:
            self._position = page[-1].position
        if page and not self._audited and self._shows_content(page):
            audit_look_up("events.read")
            self._audited = True
        return page

    @staticmethod
    def _shows_content(page: Sequence[Event]) -> bool:
        return caller().sees_numbers or any(event.kind is EventKind.REPLY for event in page)

    def _page_to_write(self) -> Sequence[Event]:
        page = self.next_page(_STREAMED_AT_ONCE)
        if not page and self._wait:
            return hold(self._wait, lambda: self.next_page(_STREAMED_AT_ONCE) or None) or []
        check_again()  # the client may have read the lines before slowly
        return page

    def shown(self, event: Event) -> dict[str, Any]:
        """Return an event as this reader may see it."""
        return {"kind": event.kind.value, "event_id": event.id} | row_json(event.row)

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
                line = self.shown(event) | {"cursor": self._cursors.make(*event.position.parts)}
                yield json.dumps(line, ensure_ascii=False) + "\n"
