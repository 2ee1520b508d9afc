"""`/messages`: record sends, look them up, wait for their fate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import marshmallow as ma
from flask import Response, jsonify
from flask.views import MethodView

from receiver.domain import (
    TASK_ID_MAX_CHARS,
    MessageStatus,
    is_masked,
    iso_milliseconds,
    iso_seconds,
    whole_milliseconds,
)
from receiver.errors import NotFound
from receiver.records import InvalidSend, SendReader
from receiver.store import read
from receiver.store.write import Recorded, record_verified
from receiver.times import implausible
from receiver.web import runtime
from receiver.web.api.common import (
    MAX_WAIT_SECONDS,
    MESSAGE_STATUSES,
    AccountFilterSchema,
    Blueprint,
    InputTime,
    MobileField,
    OurTime,
    PlatformTime,
    ProblemSchema,
    StrictBoolean,
    StrictSchema,
    Text,
    WholeNumber,
    account_to_write,
    answer_page,
    audit_list,
    audit_look_up,
    documents,
    hold,
    link,
    list_schema,
    next_page,
    operation,
    read_json,
    shown,
)
from receiver.web.auth import caller
from receiver.web.problems import Invalid, pointers, problem_body

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from receiver.domain import SentMessage
    from receiver.intake.recorder import Recorder
    from receiver.store.read import MessageRow, ReceiptRow, ReplyRow
    from receiver.store.write import RecordResult

blueprint = Blueprint("messages", __name__, description="What was sent, and what became of it.")

MAX_RECORDS = 1000


class MessageFilterSchema(AccountFilterSchema):
    """What messages can be narrowed to."""

    mobile = MobileField()
    task_id = Text(max_chars=64)
    status = ma.fields.String(validate=ma.validate.OneOf(MESSAGE_STATUSES))
    late = StrictBoolean(metadata={"description": "Pending for longer than `RECEIVER_LATE_AFTER_SECONDS`."})
    template_id = Text()
    reference = Text()
    sent_from = InputTime(metadata={"description": "Sent then or later."})
    sent_to = InputTime(metadata={"description": "Sent before then."})
    matched = StrictBoolean(metadata={"description": "Whether the send is recorded."})
    conflicting = StrictBoolean(metadata={"description": "Whether both delivered and failed were reported."})


class MessageSchema(ma.Schema):
    """One message: one (account, task_id, mobile)."""

    id = ma.fields.String(required=True)
    account = ma.fields.String(required=True)
    task_id = ma.fields.String(required=True, allow_none=True)
    mobile = ma.fields.String(required=True)
    template_id = ma.fields.String(required=True, allow_none=True)
    reference = ma.fields.String(required=True, allow_none=True)
    sent_at = OurTime(required=True, allow_none=True)
    recorded_at = OurTime(required=True, allow_none=True, metadata={"description": "Null: unmatched."})
    status = ma.fields.String(required=True, validate=ma.validate.OneOf(MESSAGE_STATUSES))
    late = ma.fields.Boolean(required=True)
    reported_at = PlatformTime(required=True, allow_none=True)
    latency_seconds = ma.fields.Float(required=True, allow_none=True)
    matched = ma.fields.Boolean(required=True)
    conflicting = ma.fields.Boolean(required=True)
    error_message = ma.fields.String(required=True, allow_none=True)
    receipt_count = ma.fields.Integer(required=True)
    reply_count = ma.fields.Integer(required=True)


class TimelineEntrySchema(ma.Schema):
    """One thing that happened to a message."""

    kind = ma.fields.String(
        required=True, validate=ma.validate.OneOf(["sent", "recorded", "refused", "receipt", "reply", "verified"])
    )
    at = ma.fields.String(
        required=True,
        metadata={
            "format": "date-time",
            "description": "When it happened; for a push, by the platform's clock.",
        },
    )
    received_at = OurTime(allow_none=True)
    receipt_id = ma.fields.String()
    reply_id = ma.fields.String()
    status = ma.fields.String()
    vendor_status = ma.fields.String()
    content = ma.fields.String()
    detail = ma.fields.String()
    copies = ma.fields.Integer()
    push_id = ma.fields.String()


class MessageDetailSchema(MessageSchema):
    """A message with its timeline."""

    timeline = ma.fields.List(ma.fields.Nested(TimelineEntrySchema), required=True)


# Senders keep ids and counts as text or as numbers, as the platform's own answer does.
_ID: dict[str, Any] = {"allow_none": True, "metadata": {"type": ["string", "integer"]}}
_COUNT: dict[str, Any] = {
    "allow_none": True,
    "metadata": {"type": ["string", "integer"], "pattern": "^-?[0-9]{1,9}$"},
}


class SendSchema(StrictSchema):
    """The record of one send; with `return_status` 0, of one that the platform refused.

    Describes what `receiver.records` reads, which is faster and serves imports too; a test holds the two together.
    """

    task_id = Text(max_chars=64, **_ID)
    mobile = MobileField(required=True, metadata={"type": ["string", "integer"]})
    account = Text(max_chars=64, **_ID)
    template_id = Text(**_ID)
    reference = Text(**_ID)
    sent_at = InputTime(allow_none=True)
    success_counts = Text(**_COUNT)
    remain_point = Text(**_COUNT)
    return_status = ma.fields.Raw(
        metadata={
            "anyOf": [{"type": "string", "enum": ["0", "1"]}, {"type": "integer", "enum": [0, 1]}, {"type": "null"}],
            "description": "0: the platform refused it.",
        }
    )
    message = Text(**_ID | {"metadata": {"description": "The platform's words, for a refused one."}})


_MESSAGE = MessageSchema()
MessageListSchema = list_schema(MessageSchema, "MessageList")

_RECORD_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "oneOf": [
                    {"$ref": "#/components/schemas/Send"},
                    {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": MAX_RECORDS,
                        "items": {
                            "anyOf": [
                                {"$ref": "#/components/schemas/Send"},
                                {"description": "Anything else is answered as wrong, in its place."},
                            ]
                        },
                    },
                ]
            }
        }
    },
}


class RecordedItemSchema(ma.Schema):
    """What became of one record of a list."""

    status = ma.fields.Integer(required=True, validate=ma.validate.OneOf([200, 201, 202, 403, 409, 422]))
    message = ma.fields.Nested(MessageSchema)
    error = ma.fields.Nested(ProblemSchema)


class RecordedListSchema(ma.Schema):
    """What became of a list of records, each in its place."""

    items = ma.fields.List(ma.fields.Nested(RecordedItemSchema), required=True)


class SpooledSchema(ma.Schema):
    """Kept in the spool, since the database is away; whether it is new will be seen when that is back."""

    status = ma.fields.Integer(required=True, validate=ma.validate.OneOf([202]))


# What the description of recording refers to by name.
BODIES: Mapping[str, type[ma.Schema]] = {
    "Send": SendSchema,
    "RecordedList": RecordedListSchema,
    "Spooled": SpooledSchema,
}


def _record_answer(description: str, one: str) -> dict[str, Any]:
    """An answer to a record, `one` by its schema, or to a list of them."""
    either = {"oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in (one, "RecordedList")]}
    return {"description": description, "content": {"application/json": {"schema": either}}}


_RECORDED = {
    "message": link("get_message", message_id="id"),
    "first": link("get_message", message_id="items/0/message/id"),
}
_RECORD_ANSWERS = {
    "200": _record_answer("Nothing new.", "Message") | {"links": _RECORDED},
    "201": _record_answer("At least one is new.", "Message") | {"links": _RECORDED},
    "202": _record_answer("Kept in the spool: the database is away.", "Spooled"),
}


@blueprint.route("/messages")
class Messages(MethodView):
    """The list, and recording."""

    @operation(
        blueprint,
        "list_messages",
        links={"next_page": next_page("list_messages"), "newest": link("get_message", message_id="items/0/id")},
    )
    @documents(blueprint, 401, 403, 422, 503)
    @blueprint.arguments(MessageFilterSchema, location="query")
    @blueprint.response(200, MessageListSchema)
    def get(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """List messages, newest first."""
        return _answer_list(arguments)

    @documents(blueprint, 400, 401, 403, 409, 413, 415, 422, 503)
    @blueprint.doc(operationId="record_messages", requestBody=_RECORD_BODY, responses=_RECORD_ANSWERS)
    def post(self) -> Response:
        """Record one send, or up to 1000. Repeating is no change; one bad item refuses no other."""
        body = read_json()
        if isinstance(body, list):
            return _record_list(body)
        return _record_one(body)


class VerifiedSchema(StrictSchema):
    """A code that was used: whose, never which."""

    task_id = Text(required=True, max_chars=TASK_ID_MAX_CHARS)
    mobile = MobileField(required=True)
    account = Text(max_chars=64, metadata={"description": "May be left out where only one is configured."})
    verified_at = InputTime(metadata={"description": "By default, now."})


@blueprint.route("/messages/verified")
class MessageVerified(MethodView):
    """Codes that were used."""

    @operation(blueprint, "record_verified", links={"message": link("get_message", message_id="id")})
    @documents(blueprint, 400, 401, 403, 413, 415, 422, 503)
    @blueprint.arguments(VerifiedSchema, location="json")
    @blueprint.response(200, MessageSchema)
    def post(self, body: dict[str, Any]) -> Any:
        """Note that the code of a message was used, for the conversion rate of reports. The earliest time stands."""
        account = account_to_write(body.get("account"))
        if is_masked(body["mobile"]):
            raise Invalid({"#/mobile": "masked; give the full number"})
        parts = runtime()
        parts.require_database()
        moment = whole_milliseconds(body.get("verified_at") or parts.now())
        if (fault := implausible(moment, parts.now(), parts.settings.timezone)) is not None:
            raise Invalid({"#/verified_at": fault})
        message_id = parts.database.write(
            lambda connection: record_verified(
                connection, account=account, task_id=body["task_id"], mobile=body["mobile"], verified_at=moment
            )
        )
        return shown(_find(str(message_id)))


@blueprint.route("/messages/search")
class MessageSearch(MethodView):
    """The list again, with the filters in the body."""

    @operation(blueprint, "search_messages", links={"newest": link("get_message", message_id="items/0/id")})
    @documents(blueprint, 400, 401, 403, 413, 415, 422, 503)
    @blueprint.arguments(MessageFilterSchema, location="json", required=False)
    @blueprint.response(200, MessageListSchema)
    def post(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """List messages, newest first: the filters of the list as JSON, so that numbers stay out of URLs."""
        return _answer_list(arguments)


class WaitSchema(StrictSchema):
    """How long to hold the answer."""

    wait = WholeNumber(
        load_default=0,
        validate=ma.validate.Range(0, MAX_WAIT_SECONDS),
        metadata={"description": "Seconds to wait for the status to change."},
    )


@blueprint.route("/messages/<row_id:message_id>")
class Message(MethodView):
    """One message."""

    @operation(blueprint, "get_message")
    @documents(blueprint, 401, 403, 404, 422, 503)
    @blueprint.arguments(WaitSchema, location="query")
    @blueprint.response(200, MessageDetailSchema)
    def get(self, arguments: dict[str, Any], message_id: str) -> dict[str, Any]:
        """Give one message with its timeline."""
        row = _find(message_id)
        if arguments["wait"]:
            row = _changed(row, arguments["wait"])
        return _with_timeline(row)


# --- Reading ------------------------------------------------------------------------------------------


def _answer_list(arguments: dict[str, Any]) -> dict[str, Any]:
    audit_list("messages", arguments)
    return answer_page("messages", arguments, read.list_messages, shown)


def _find(text: str) -> MessageRow:
    parts = runtime()
    found = parts.ask(lambda connection: read.find_message(connection, int(text), parts.clock(), caller().accounts))
    if found is None:
        raise NotFound("there is no message under that id")
    return found


def _changed(row: MessageRow, seconds: int) -> MessageRow:
    def look() -> MessageRow | None:
        latest = _find(str(row.id))
        return latest if latest.status != row.status else None

    return hold(seconds, look) or row


def _with_timeline(row: MessageRow) -> dict[str, Any]:
    receipts, replies = runtime().ask(lambda connection: read.list_sightings(connection, row.id))
    if replies or caller().sees_numbers:
        audit_look_up("message.read", message_id=str(row.id), replies=len(replies) or None)
    moments: list[tuple[datetime, dict[str, Any]]] = []
    if row.sent_at is not None:
        kind = "refused" if row.status is MessageStatus.REFUSED else "sent"
        moments.append((row.sent_at, {"kind": kind, "at": iso_milliseconds(row.sent_at), "detail": row.error_message}))
    if row.recorded_at is not None:
        moments.append((row.recorded_at, {"kind": "recorded", "at": iso_milliseconds(row.recorded_at)}))
    if row.verified_at is not None:
        moments.append((row.verified_at, {"kind": "verified", "at": iso_milliseconds(row.verified_at)}))
    for receipt in receipts:
        said = {"receipt_id": receipt.id, "status": receipt.status, "vendor_status": receipt.vendor_status}
        moments.append((receipt.reported_at, _pushed("receipt", receipt.reported_at, receipt) | said))
    for reply in replies:
        wrote = {"reply_id": reply.id, "content": reply.content}
        moments.append((reply.replied_at, _pushed("reply", reply.replied_at, reply) | wrote))
    masked = shown(row)
    detail = {name: getattr(masked, name) for name in _MESSAGE.fields}
    in_order = sorted(moments, key=lambda moment: moment[0])
    return detail | {"timeline": [{k: v for k, v in entry.items() if v is not None} for _, entry in in_order]}


def _pushed(kind: str, at: datetime, row: ReceiptRow | ReplyRow) -> dict[str, Any]:
    return {
        "kind": kind,
        "at": iso_seconds(at),
        "received_at": row.received_at,
        "copies": row.copies,
        "push_id": row.push_id,
    }


# --- Recording ----------------------------------------------------------------------------------------


# The database is away: durable here, recorded there when it is back. Whether it is new will be seen then.
_SPOOLED = {"status": 202}


def _recorder() -> Recorder:
    parts = runtime()
    parts.start()  # what goes to the spool is to be saved from there
    return parts.recorder


def _record_one(body: Any) -> Response:
    send = _send(body)
    results = _recorder().record([send])
    if results is None:
        return _json(_SPOOLED, 202)
    (result,) = results
    if result.outcome is Recorded.CONFLICT:
        raise Invalid(_differences(result), status=409, code="conflict")
    return _json(_messages([result])[result.message_id], 201 if result.outcome is Recorded.NEW else 200)


def _record_list(body: list[Any]) -> Response:
    if not 1 <= len(body) <= MAX_RECORDS:
        raise Invalid({"#": f"a list of 1 to {MAX_RECORDS} records is taken at once"})
    items: list[dict[str, Any]] = [{} for _ in body]
    sends: dict[int, SentMessage] = {}
    for index, item in enumerate(body):
        try:
            sends[index] = _send(item, f"#/{index}")
        except Invalid as invalid:
            items[index] = _failed(invalid)
    recorded = _recorder().record(list(sends.values())) if sends else []
    if recorded is None:
        return _json({"items": [item or _SPOOLED for item in items]}, 202)
    results = dict(zip(sends, recorded, strict=True))
    found = _messages(list(results.values()))
    for index, result in results.items():
        if result.outcome is Recorded.CONFLICT:
            items[index] = _failed(Invalid(_differences(result, f"#/{index}"), status=409, code="conflict"))
        else:
            status = 201 if result.outcome is Recorded.NEW else 200
            items[index] = {"status": status, "message": found[result.message_id]}
    anything_new = any(item["status"] == 201 for item in items)
    return _json({"items": items}, 201 if anything_new else 200)


def _send(item: Any, path: str = "#") -> SentMessage:
    """Check one record. Raises Invalid, naming its wrong fields."""
    if not isinstance(item, dict):
        raise Invalid({path: "not an object"})
    settings, allowed = runtime().settings, caller().accounts
    reader = SendReader(
        zone=settings.timezone,
        accounts=settings.accounts,
        allowed=None if allowed is None else frozenset(allowed),
    )
    try:
        return reader.read(item)
    except InvalidSend as error:
        status, code = (403, "account_closed") if error.closed else (422, "invalid")
        raise Invalid(pointers(error.faults, path), status=status, code=code) from None


def _messages(results: Sequence[RecordResult]) -> Mapping[int, Any]:
    parts = runtime()
    ids = [result.message_id for result in results]
    rows = parts.ask(lambda connection: read.get_messages(connection, ids, parts.clock()))
    return {message_id: _MESSAGE.dump(shown(row)) for message_id, row in rows.items()}


def _differences(result: RecordResult, path: str = "#") -> dict[str, str]:
    names = {"error_message": "message"}
    return {f"{path}/{names.get(name, name)}": "differs from what is recorded" for name in result.differing}


def _failed(invalid: Invalid) -> dict[str, Any]:
    detail = "some of this item cannot be used"
    return {
        "status": invalid.status,
        "error": problem_body(invalid.status, invalid.code, detail, invalid.errors),
    }


def _json(body: Any, status: int) -> Response:
    response = jsonify(body)
    response.status_code = status
    return response
