"""Shared parts of the API: fields, schemas, pagination, visibility."""

from __future__ import annotations

from receiver.web.api.common.blueprint import (
    Blueprint,
    documents,
    documents_text,
    inbound_event_links,
    link,
    next_page,
    operation,
    read_json,
)
from receiver.web.api.common.fields import (
    MOBILE_PATTERN,
    InputTime,
    MobileField,
    OurTime,
    PlatformTime,
    StrictBoolean,
    Text,
    WholeNumber,
)
from receiver.web.api.common.pagination import MAX_WAIT_SECONDS, answer_page, hold
from receiver.web.api.common.schemas import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    MESSAGE_STATUSES,
    RECEIPT_STATUSES,
    AccountFilterSchema,
    InboundEventFilterSchema,
    InboundEventSchema,
    PageSchema,
    ProblemSchema,
    ReceivedFilterSchema,
    StrictSchema,
    list_schema,
)
from receiver.web.api.common.visibility import account_to_write, audit_list, audit_look_up, readable_accounts, shown

__all__ = [
    "DEFAULT_LIMIT",
    "MAX_LIMIT",
    "MAX_WAIT_SECONDS",
    "MESSAGE_STATUSES",
    "MOBILE_PATTERN",
    "RECEIPT_STATUSES",
    "AccountFilterSchema",
    "Blueprint",
    "InboundEventFilterSchema",
    "InboundEventSchema",
    "InputTime",
    "MobileField",
    "OurTime",
    "PageSchema",
    "PlatformTime",
    "ProblemSchema",
    "ReceivedFilterSchema",
    "StrictBoolean",
    "StrictSchema",
    "Text",
    "WholeNumber",
    "account_to_write",
    "answer_page",
    "audit_list",
    "audit_look_up",
    "documents",
    "documents_text",
    "hold",
    "inbound_event_links",
    "link",
    "list_schema",
    "next_page",
    "operation",
    "read_json",
    "readable_accounts",
    "shown",
]
