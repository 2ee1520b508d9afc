"""`/messages`: record sends, query messages, wait for a change of status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Response, jsonify
from flask.views import MethodView

from receiver.core import (
    MessageStatus,
    NotFound,
    SentMessage,
    implausible,
    is_masked,
    iso_milliseconds,
    iso_seconds,
    whole_milliseconds,
)
from receiver.messages import queries
from receiver.messages.recording import Recorded, RecordResult, record_verified
from receiver.messages.send_records import InvalidSendRecord, SendRecordParser
from receiver.web import runtime
from receiver.web.api.common import (
    Blueprint,
    account_to_write,
    answer_page,
    audit_list,
    audit_look_up,
    documents,
    hold,
    link,
    location,
    next_page,
    operation,
    read_json,
    row_json,
)
from receiver.web.api.message_schemas import (
    _RECORD_BODY,
    MAX_RECORDS,
    MessageDetailSchema,
    MessageListSchema,
    MessageSchema,
    RecordedListSchema,
    SendSchema,
    SpooledSchema,
    VerifiedSchema,
    WaitSchema,
)
from receiver.web.auth import caller
from receiver.web.error_codes import ErrorCode
from receiver.web.errors import Invalid, pointers, problem_body
from receiver.web.lists.filters import MessageFilterSchema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import marshmallow as ma

    from receiver.messages.queries import MessageRow, ReceiptRow, ReplyRow
    from receiver.sending.recorder import Recorder

blueprint = Blueprint("messages", __name__, description="Sent messages and their delivery state.")


# Schemas that the description of recording refers to by name.
BODIES: Mapping[str, type[ma.Schema]] = {
    "Send": SendSchema,
    "RecordedList": RecordedListSchema,
    "Spooled": SpooledSchema,
}


def _record_answer(description: str, one: str) -> dict[str, Any]:
    """Return the description of an answer to one record, of schema `one`, or to a list."""
    either = {"oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in (one, "RecordedList")]}
    return {"description": description, "content": {"application/json": {"schema": either}}}


_RECORDED = {
    "message": link("get_message", message_id="id"),
    "first": link("get_message", message_id="items/0/message/id"),
}
_RECORD_ANSWERS = {
    "200": _record_answer("Nothing new.", "Message") | {"links": _RECORDED},
    "201": _record_answer("At least one is new.", "Message") | {"links": _RECORDED},
    "202": _record_answer("Spooled: the database is unavailable.", "Spooled"),
}


@blueprint.route("/messages")
class Messages(MethodView):
    """List messages and record sends."""

    @operation(
        blueprint,
        "list_messages",
        links={"next_page": next_page("list_messages"), "newest": link("get_message", message_id="items/0/id")},
    )
    @documents(blueprint, 401, 403, 422, 503)
    @blueprint.arguments(MessageFilterSchema, location="query")
    @blueprint.response(200, MessageListSchema)
    def get(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return messages, newest first."""
        return _answer_list(arguments)

    @documents(blueprint, 400, 401, 403, 409, 413, 415, 422, 503)
    @blueprint.doc(operationId="record_messages", requestBody=_RECORD_BODY, responses=_RECORD_ANSWERS)
    def post(self) -> Response:
        """Record one send, or up to 1000. Repeating changes nothing; an invalid item does not affect others."""
        body = read_json()
        if isinstance(body, list):
            return _record_list(body)
        return _record_one(body)


@blueprint.route("/messages/verified")
class MessageVerified(MethodView):
    """Record used codes."""

    @operation(blueprint, "record_verified", links={"message": link("get_message", message_id="id")})
    @documents(blueprint, 400, 401, 403, 413, 415, 422, 503)
    @blueprint.arguments(VerifiedSchema, location="json")
    @blueprint.response(200, MessageSchema)
    def post(self, body: dict[str, Any]) -> Any:
        """Record that a message's code was used, for the conversion rate of reports. The earliest time is stored."""
        account = account_to_write(body.get("account"))
        if is_masked(body["mobile"]):
            raise Invalid({"#/mobile": "masked; send the full number"})
        services = runtime()
        services.require_database()
        moment = whole_milliseconds(body.get("verified_at") or services.now())
        if (fault := implausible(moment, services.now(), services.settings.timezone)) is not None:
            raise Invalid({"#/verified_at": fault})
        message_id = services.database.write(
            lambda connection: record_verified(
                connection, account=account, task_id=body["task_id"], mobile=body["mobile"], verified_at=moment
            )
        )
        services.projector.nudge()
        return row_json(_find(str(message_id)))


@blueprint.route("/messages/search")
class MessageSearch(MethodView):
    """List messages with the filters in the body."""

    @operation(blueprint, "search_messages", links={"newest": link("get_message", message_id="items/0/id")})
    @documents(blueprint, 400, 401, 403, 413, 415, 422, 503)
    @blueprint.arguments(MessageFilterSchema, location="json", required=False)
    @blueprint.response(200, MessageListSchema)
    def post(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return messages, newest first. Takes the filters as JSON, so that numbers stay out of URLs."""
        return _answer_list(arguments)


@blueprint.route("/messages/<row_id:message_id>")
class Message(MethodView):
    """One message."""

    @operation(blueprint, "get_message")
    @documents(blueprint, 401, 403, 404, 422, 503)
    @blueprint.arguments(WaitSchema, location="query")
    @blueprint.response(200, MessageDetailSchema)
    def get(self, arguments: dict[str, Any], message_id: str) -> dict[str, Any]:
        """Return one message with its timeline."""
        row = _find(message_id)
        if arguments["wait"]:
            row = _changed(row, arguments["wait"])
        return _with_timeline(row)


# --- Reading ------------------------------------------------------------------------------------------


def _answer_list(arguments: dict[str, Any]) -> dict[str, Any]:
    audit_list("messages", arguments)
    return answer_page("messages", arguments, queries.list_messages, row_json)


def _find(text: str) -> MessageRow:
    services = runtime()
    found = services.ask(
        lambda connection: queries.find_message(connection, int(text), services.clock(), caller().accounts)
    )
    if found is None:
        raise NotFound("there is no message with this id")
    return found


def _changed(row: MessageRow, seconds: int) -> MessageRow:
    def find_changed() -> MessageRow | None:
        latest = _find(str(row.id))
        return latest if latest.status != row.status else None

    return hold(seconds, find_changed) or row


def _with_timeline(row: MessageRow) -> dict[str, Any]:
    receipts, replies = runtime().ask(lambda connection: queries.list_inbound_events(connection, row.id))
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
    in_order = sorted(moments, key=lambda moment: moment[0])
    return row_json(row) | {"timeline": [{k: v for k, v in entry.items() if v is not None} for _, entry in in_order]}


def _pushed(kind: str, at: datetime, row: ReceiptRow | ReplyRow) -> dict[str, Any]:
    return {
        "kind": kind,
        "at": iso_seconds(at),
        "received_at": row.received_at,
        "copies": row.copies,
        "push_id": row.push_id,
    }


# --- Recording ----------------------------------------------------------------------------------------


# The database is unavailable: the record is durable in the spool and saved later. Whether it is new is decided then.
_SPOOLED = {"status": 202}


def _recorder() -> Recorder:
    services = runtime()
    services.start()  # starts the thread that saves the spool
    return services.recorder


def _record_one(body: Any) -> Response:
    send = _send(body)
    results = _recorder().record([send])
    if results is None:
        return _json(_SPOOLED, 202)
    (result,) = results
    if result.outcome is Recorded.CONFLICT:
        raise Invalid(_differences(result), status=409, code=ErrorCode.CONFLICT)
    message = _messages([result])[result.message_id]
    if result.outcome is not Recorded.NEW:
        return _json(message, 200)
    created = _json(message, 201)
    created.headers.update(location("messages.Message", message_id=message["id"]))
    return created


def _record_list(body: list[Any]) -> Response:
    if not 1 <= len(body) <= MAX_RECORDS:
        raise Invalid({"#": f"send a list of 1 to {MAX_RECORDS} records"})
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
            items[index] = _failed(Invalid(_differences(result, f"#/{index}"), status=409, code=ErrorCode.CONFLICT))
        else:
            status = 201 if result.outcome is Recorded.NEW else 200
            items[index] = {"status": status, "message": found[result.message_id]}
    anything_new = any(item["status"] == 201 for item in items)
    return _json({"items": items}, 201 if anything_new else 200)


def _send(item: Any, path: str = "#") -> SentMessage:
    """Return one parsed record. Raises Invalid, naming its wrong fields."""
    if not isinstance(item, dict):
        raise Invalid({path: "not an object"})
    settings, allowed = runtime().settings, caller().accounts
    reader = SendRecordParser(
        zone=settings.timezone,
        accounts=settings.accounts,
        allowed=None if allowed is None else frozenset(allowed),
    )
    try:
        return reader.read(item)
    except InvalidSendRecord as error:
        status, code = (403, ErrorCode.ACCOUNT_CLOSED) if error.closed else (422, ErrorCode.INVALID)
        raise Invalid(pointers(error.faults, path), status=status, code=code) from None


def _messages(results: Sequence[RecordResult]) -> Mapping[int, Any]:
    services = runtime()
    ids = [result.message_id for result in results]
    rows = services.ask(lambda connection: queries.get_messages(connection, ids, services.clock()))
    return {message_id: row_json(row) for message_id, row in rows.items()}


def _differences(result: RecordResult, path: str = "#") -> dict[str, str]:
    names = {"error_message": "message"}
    return {f"{path}/{names.get(name, name)}": "differs from the recorded value" for name in result.differing}


def _failed(invalid: Invalid) -> dict[str, Any]:
    detail = "some fields of this item are not valid"
    return {
        "status": invalid.status,
        "error": problem_body(invalid.status, invalid.code, detail, invalid.errors),
    }


def _json(body: Any, status: int) -> Response:
    response = jsonify(body)
    response.status_code = status
    return response
