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
    StrictBoolean,
    Text,
    WholeNumber,
)
from receiver.web.api.common.pagination import MAX_WAIT_SECONDS, answer_page, hold
from receiver.web.api.common.schemas import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    AccountFilterSchema,
    InboundEventFilterSchema,
    PageSchema,
    ProblemSchema,
    ReceivedFilterSchema,
    StrictSchema,
    field_schema,
    list_schema,
    row_schema,
)
from receiver.web.api.common.visibility import (
    account_to_write,
    audit_list,
    audit_look_up,
    readable_accounts,
    row_json,
    shown,
)

__all__ = [
    "DEFAULT_LIMIT",
    "MAX_LIMIT",
    "MAX_WAIT_SECONDS",
    "MOBILE_PATTERN",
    "AccountFilterSchema",
    "Blueprint",
    "InboundEventFilterSchema",
    "InputTime",
    "MobileField",
    "OurTime",
    "PageSchema",
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
    "field_schema",
    "hold",
    "inbound_event_links",
    "link",
    "list_schema",
    "next_page",
    "operation",
    "read_json",
    "readable_accounts",
    "row_json",
    "row_schema",
    "shown",
]
