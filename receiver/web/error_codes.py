"""The codes of the API's errors: all that `code` of a problem may be, and what each means.

`make reference` writes a page of them, and its Chinese is in deploy/docs/zh-CN/reference.po.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from receiver.platform.client import EVERY_REFUSAL

if TYPE_CHECKING:
    from collections.abc import Mapping

PAGE = "/api/v1/errors"  # where `web.api_docs` serves what stands here; `type` of a problem leads there


class ErrorCode(StrEnum):
    """The code of a problem. Stable: programs decide by it."""

    ACCOUNT_CLOSED = "account_closed"
    BAD_GATEWAY = "bad_gateway"
    CONFLICT = "conflict"
    DATABASE_UNAVAILABLE = "database_unavailable"
    DATABASE_UNFIT = "database_unfit"
    FORBIDDEN = "forbidden"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    INTERNAL = "internal"
    INVALID = "invalid"
    INVALID_CURSOR = "invalid_cursor"
    MALFORMED = "malformed"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    MISSING_EXTRA = "missing_extra"
    MISSING_SCOPE = "missing_scope"
    NAME_TAKEN = "name_taken"
    NOT_FOUND = "not_found"
    NOT_READY = "not_ready"
    OUTCOME_UNKNOWN = "outcome_unknown"
    OVERLOADED = "overloaded"
    PLATFORM_UNREACHABLE = "platform_unreachable"
    SPOOL_UNAVAILABLE = "spool_unavailable"
    TOO_LARGE = "too_large"
    TOO_MANY_FAILURES = "too_many_failures"
    TOO_MANY_ROWS = "too_many_rows"
    UNAUTHORIZED = "unauthorized"
    UNAVAILABLE = "unavailable"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    # Refusals of a send, as `platform.client` tells them apart.
    ACCOUNT_LOCKED = "account_locked"
    ADDRESS_NOT_ALLOWED = "address_not_allowed"
    DAILY_VOLUME = "daily_volume"
    LOCAL_LIMIT = "local_limit"
    NO_BALANCE = "no_balance"
    NUMBER_DAILY_LIMIT = "number_daily_limit"
    NUMBER_MALFORMED = "number_malformed"
    NUMBER_MINUTE_LIMIT = "number_minute_limit"
    PLATFORM_BAD_PARAMETER = "platform_bad_parameter"
    PLATFORM_CREDENTIALS = "platform_credentials"
    PLATFORM_MISSING_PARAMETER = "platform_missing_parameter"
    PLATFORM_REFUSED = "platform_refused"
    PLATFORM_UNKNOWN_REASON = "platform_unknown_reason"
    TEMPLATE_ID_MALFORMED = "template_id_malformed"
    TEMPLATE_UNUSABLE = "template_unusable"


class Explanation(NamedTuple):
    """What a code means."""

    statuses: tuple[int, ...]  # HTTP; the usual one first
    meaning: str
    advice: str  # what to do


# Of each refusal of a send; what to do stands in `platform.client`.
_REFUSED: Mapping[ErrorCode, str] = {
    ErrorCode.ACCOUNT_LOCKED: "The platform has locked the account.",
    ErrorCode.ADDRESS_NOT_ALLOWED: "The platform does not accept sends from this server's address.",
    ErrorCode.DAILY_VOLUME: "The account has reached its limit of messages for today.",
    ErrorCode.LOCAL_LIMIT: "The send is over a limit that is configured here; the platform was not asked.",
    ErrorCode.NO_BALANCE: "The account has no messages left.",
    ErrorCode.NUMBER_DAILY_LIMIT: "This number has received as many messages today as the platform allows.",
    ErrorCode.NUMBER_MALFORMED: "The platform does not accept this as a phone number.",
    ErrorCode.NUMBER_MINUTE_LIMIT: "This number was sent a message within the last minute.",
    ErrorCode.PLATFORM_BAD_PARAMETER: "The platform says that a parameter is wrong.",
    ErrorCode.PLATFORM_CREDENTIALS: "The platform does not accept the account's credentials.",
    ErrorCode.PLATFORM_MISSING_PARAMETER: "The platform says that a parameter is missing.",
    ErrorCode.PLATFORM_REFUSED: "The platform has refused with a message that is not in its documentation.",
    ErrorCode.PLATFORM_UNKNOWN_REASON: "The platform has refused without naming a reason.",
    ErrorCode.TEMPLATE_ID_MALFORMED: "The template id does not have the platform's form.",
    ErrorCode.TEMPLATE_UNUSABLE: "The template does not exist, or the platform has not approved it.",
}
_ADVICE = {refusal.code: refusal.advice for refusal in EVERY_REFUSAL}

EXPLANATIONS: Mapping[ErrorCode, Explanation] = {
    ErrorCode.ACCOUNT_CLOSED: Explanation(
        (403,), "The key is bound to other accounts.", "use a key of that account, or one that is bound to none"
    ),
    ErrorCode.BAD_GATEWAY: Explanation((502,), "A server behind this one did not answer properly.", "try again"),
    ErrorCode.CONFLICT: Explanation(
        (409,),
        "A value differs from what is stored, or the same is under way already.",
        "read the message; the pointers name the fields that differ; without pointers, try again later",
    ),
    ErrorCode.DATABASE_UNAVAILABLE: Explanation(
        (503,), "The database cannot be reached, or does not answer.", "try again after the time in Retry-After"
    ),
    ErrorCode.DATABASE_UNFIT: Explanation(
        (503,), "The database answers, but cannot be used as it is.", "ask an operator; the detail names the remedy"
    ),
    ErrorCode.FORBIDDEN: Explanation(
        (403,), "The address or the route is not allowed.", "ask an operator; the detail names the setting"
    ),
    ErrorCode.IDEMPOTENCY_KEY_REUSED: Explanation(
        (422,), "The Idempotency-Key was used for another request.", "use a new key for each new request"
    ),
    ErrorCode.INTERNAL: Explanation(
        (500,), "An unexpected fault of the receiver.", "ask an operator; the log has it under X-Request-Id"
    ),
    ErrorCode.INVALID: Explanation(
        (422,), "Some fields are not valid.", "correct the fields that the pointers in errors name"
    ),
    ErrorCode.INVALID_CURSOR: Explanation(
        (422,), "The cursor belongs to another list or filter, or is damaged.", "start again without a cursor"
    ),
    ErrorCode.MALFORMED: Explanation(
        (400,), "The request cannot be read.", "correct the request's form; nothing was done"
    ),
    ErrorCode.METHOD_NOT_ALLOWED: Explanation(
        (405,), "This address does not take this method.", "use a method that the header Allow names"
    ),
    ErrorCode.MISSING_EXTRA: Explanation(
        (422,), "A part of the package is not installed.", "install the extra that the detail names"
    ),
    ErrorCode.MISSING_SCOPE: Explanation(
        (403,), "The key lacks a scope.", "use a key with the scope that the detail names"
    ),
    ErrorCode.NAME_TAKEN: Explanation((409,), "The name is in use.", "choose another name"),
    ErrorCode.NOT_FOUND: Explanation((404,), "There is nothing at this address.", "check the path and the id"),
    ErrorCode.NOT_READY: Explanation(
        (503,), "Pushes can be stored neither in the database nor in the spool.", "restore one of them at once"
    ),
    ErrorCode.OUTCOME_UNKNOWN: Explanation(
        (502, 504),
        "The platform gave no usable answer; the message may have been sent.",
        "wait for its receipt before you send again",
    ),
    ErrorCode.OVERLOADED: Explanation(
        (503,), "Too much is asked for at once; nothing was stored or read.", "try again after the time in Retry-After"
    ),
    ErrorCode.PLATFORM_UNREACHABLE: Explanation(
        (502,), "There is no connection to the platform; nothing was sent.", "try again"
    ),
    ErrorCode.SPOOL_UNAVAILABLE: Explanation(
        (503,),
        "Neither the database nor the spool can store it; nothing was stored.",
        "try again after the time in Retry-After",
    ),
    ErrorCode.TOO_LARGE: Explanation((413,), "The body is too large.", "send less at once"),
    ErrorCode.TOO_MANY_FAILURES: Explanation(
        (429,), "Too many wrong keys have come from this address.", "correct the key; wait for the time in Retry-After"
    ),
    ErrorCode.TOO_MANY_ROWS: Explanation(
        (422,), "There are more rows than the file format can hold.", "choose a shorter period, or another format"
    ),
    ErrorCode.UNAUTHORIZED: Explanation(
        (401,), "The key is missing, unknown, revoked or expired.", "send a valid key: Authorization: Bearer KEY"
    ),
    ErrorCode.UNAVAILABLE: Explanation(
        (503,), "The service cannot answer now.", "try again after the time in Retry-After"
    ),
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: Explanation(
        (415,), "The body has the wrong content type.", "send JSON, as application/json"
    ),
    **{code: Explanation((422,), meaning, _ADVICE[code]) for code, meaning in _REFUSED.items()},
}
