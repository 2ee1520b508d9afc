"""Errors as `application/problem+json` (RFC 9457). This module alone decides an error's status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Response, abort, g, has_request_context, json, request
from werkzeug.exceptions import HTTPException, InternalServerError

from receiver.core import (
    DatabaseMisconfigured,
    DatabaseUnavailable,
    InvalidCursor,
    MissingExtra,
    NotFound,
    Overloaded,
    ReceiverError,
    SpoolUnavailable,
    TooManyRows,
)
from receiver.intake.admission import Refused
from receiver.platform.client import PlatformProtocolError, PlatformUnreachable, Unsendable
from receiver.sending.attempts import KeyReused
from receiver.sending.service import PlatformRefused
from receiver.web.error_codes import EXPLANATIONS, PAGE, ErrorCode
from receiver.webhooks.service import ReplayRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flask import Flask

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = "1"

_CODE_OF_ERROR: Mapping[type[ReceiverError], ErrorCode] = {
    NotFound: ErrorCode.NOT_FOUND,
    InvalidCursor: ErrorCode.INVALID_CURSOR,
    Overloaded: ErrorCode.OVERLOADED,
    SpoolUnavailable: ErrorCode.SPOOL_UNAVAILABLE,
    MissingExtra: ErrorCode.MISSING_EXTRA,
    TooManyRows: ErrorCode.TOO_MANY_ROWS,
    DatabaseUnavailable: ErrorCode.DATABASE_UNAVAILABLE,
    DatabaseMisconfigured: ErrorCode.DATABASE_UNFIT,
    KeyReused: ErrorCode.IDEMPOTENCY_KEY_REUSED,
    ReplayRefused: ErrorCode.CONFLICT,
}
_CODE_OF: Mapping[int, ErrorCode] = {
    400: ErrorCode.MALFORMED,
    401: ErrorCode.UNAUTHORIZED,
    403: ErrorCode.FORBIDDEN,
    404: ErrorCode.NOT_FOUND,
    405: ErrorCode.METHOD_NOT_ALLOWED,
    409: ErrorCode.CONFLICT,
    413: ErrorCode.TOO_LARGE,
    415: ErrorCode.UNSUPPORTED_MEDIA_TYPE,
    422: ErrorCode.INVALID,
    502: ErrorCode.BAD_GATEWAY,
    503: ErrorCode.UNAVAILABLE,
}


def problem_body(status: int, code: ErrorCode, detail: str, errors: Iterable[dict[str, str]] = ()) -> dict[str, Any]:
    """Return the body of a problem; `errors` are {pointer, detail}, one for each wrong field.

    A GET has no body that a pointer could lead into: its errors name the `parameter` too.
    """
    body: dict[str, Any] = {
        "type": _type_of(code),
        "title": code.replace("_", " "),
        "status": status,
        "code": code,
        "detail": detail,
    }
    if listed := list(errors):
        of_query = has_request_context() and request.method in ("GET", "HEAD")
        body["errors"] = [error | _parameter_of(error) if of_query else error for error in listed]
    return body


def _parameter_of(error: dict[str, str]) -> dict[str, str]:
    name = error["pointer"].removeprefix("#/")
    return {"parameter": name.replace("~1", "/").replace("~0", "~")}


def _type_of(code: ErrorCode) -> str:
    """Return where the code is explained; about:blank to senders of pushes, and at listeners without that page."""
    if not has_request_context() or request.blueprint == "push":
        return "about:blank"
    return f"{request.script_root}{PAGE}#{code}"


def problem(
    status: int,
    code: ErrorCode,
    detail: str,
    errors: Iterable[dict[str, str]] = (),
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Response:
    """Return a problem as a response; `more` are extra members, as RFC 9457 allows."""
    body = problem_body(status, code, detail, errors) | more
    response = Response(json.dumps(body), status=status, mimetype=MEDIA_TYPE)
    response.headers.update(headers or {})
    if status == 503:
        response.headers.setdefault("Retry-After", RETRY_AFTER_SECONDS)
    return response


class Invalid(ReceiverError):
    """Invalid input; `errors` maps JSON pointers to faults."""

    def __init__(self, errors: Mapping[str, str], *, status: int = 422, code: ErrorCode = ErrorCode.INVALID) -> None:
        super().__init__("; ".join(f"{pointer}: {detail}" for pointer, detail in errors.items()))
        self.errors = [{"pointer": pointer, "detail": detail} for pointer, detail in errors.items()]
        self.status = status
        self.code = code
        self.summary = "some fields are not valid"


class Unreadable(Invalid):
    """A body with the wrong content type (415) or the wrong format (400)."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__({"#": text}, status=status, code=_CODE_OF[status])
        self.summary = text


class Denied(ReceiverError):
    """A request without a valid key (401), without the right (403), or too many requests (429).

    `challenge`: what is wrong with the key that was sent, as RFC 6750 says it.
    """

    def __init__(
        self,
        status: int,
        code: ErrorCode,
        text: str,
        *,
        retry_after: int | None = None,
        challenge: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.headers: dict[str, str] = {} if retry_after is None else {"Retry-After": str(retry_after)}
        if status == 401 or challenge:
            parameters = {"realm": "receiver", **(challenge or {})}
            said = ", ".join(f'{name}="{value}"' for name, value in parameters.items())
            self.headers["WWW-Authenticate"] = f"Bearer {said}"


def missing_scope(scope: str, text: str) -> Denied:
    """Return the refusal of a key without a scope."""
    challenge = {"error": "insufficient_scope", "scope": scope}
    return Denied(403, ErrorCode.MISSING_SCOPE, text, challenge=challenge)


def pointers(messages: Any, path: str = "#") -> dict[str, str]:
    """Return nested validation messages as {pointer: detail}."""
    if isinstance(messages, dict):
        flat: dict[str, str] = {}
        for key, inner in messages.items():
            part = "" if key == "_schema" else "/" + str(key).replace("~", "~0").replace("/", "~1")
            flat |= pointers(inner, path + part)
        return flat
    if isinstance(messages, list):
        return {path: " ".join(str(message) for message in messages)}
    return {path: str(messages)}


def _receiver_error(error: ReceiverError) -> Response:
    answer = answer_for(error)
    if answer.status_code >= 500:
        g.fault = error  # for the request's line in the log
    return answer


def answer_for(error: ReceiverError) -> Response:
    """Return the response to an error, also outside of an application."""
    match error:
        case Invalid():
            return problem(error.status, error.code, error.summary, error.errors)
        case Denied():
            return problem(error.status, error.code, str(error), headers=error.headers)
        case Refused():
            return problem(error.status, _CODE_OF[error.status], str(error))
        case PlatformRefused():
            meaning = error.meaning
            return problem(
                422, ErrorCode(meaning.code), str(error), waiting_helps=meaning.waiting_helps, advice=meaning.advice
            )
        case PlatformProtocolError():
            status = 504 if error.timed_out else 502
            return problem(status, ErrorCode.OUTCOME_UNKNOWN, f"{error}; the message may have been sent")
        case Unsendable():
            return problem(400, ErrorCode.MALFORMED, f"{error}; nothing was sent")
        case PlatformUnreachable():
            return problem(502, ErrorCode.PLATFORM_UNREACHABLE, f"{error}; nothing was sent")
        case InvalidCursor():
            found = {"pointer": f"#/{error.parameter}", "detail": str(error)}
            return problem(422, ErrorCode.INVALID_CURSOR, str(error), [found])
    code = _CODE_OF_ERROR.get(type(error), ErrorCode.INTERNAL)
    status = EXPLANATIONS[code].statuses[0]
    headers = {"Retry-After": str(error.retry_after_seconds)} if isinstance(error, Overloaded) else None
    return problem(status, code, str(error), headers=headers)


def _http_error(error: HTTPException) -> Response:
    status = error.code or 500
    data = getattr(error, "data", {})
    if isinstance(error, InternalServerError) and error.original_exception is not None:
        g.fault = error.original_exception
    if messages := data.get("messages"):
        # webargs puts the name of the part in front: {"json": {...}} or {"query": {...}}.
        flat: dict[str, str] = {}
        for inner in messages.values():
            flat |= pointers(inner)
        return (
            _receiver_error(Invalid(flat))
            if status == 422
            else problem(
                status, _CODE_OF.get(status, ErrorCode.MALFORMED), "the request is malformed", _as_errors(flat)
            )
        )
    headers = {name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")}
    title = (error.name or "error").lower()
    return problem(
        status,
        _CODE_OF.get(status, ErrorCode.INTERNAL if status >= 500 else ErrorCode.MALFORMED),
        title,
        headers=headers,
    )


def _as_errors(flat: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"pointer": pointer, "detail": detail} for pointer, detail in flat.items()]


def _reject_nul() -> None:
    """Answer 404 where a name in the path contains NUL: PostgreSQL would reject the query."""
    if request.blueprint != "push" and any("\0" in str(value) for value in (request.view_args or {}).values()):
        abort(404)


def register(app: Flask) -> None:
    """Register the error handlers: every error becomes a problem."""
    app.before_request(_reject_nul)
    app.register_error_handler(ReceiverError, _receiver_error)
    app.register_error_handler(HTTPException, _http_error)
