"""Shared parts of the API: fields, schemas, pagination, visibility."""

from __future__ import annotations

from receiver.web.api.common.blueprint import (
    Blueprint,
    documents,
    documents_text,
    inbound_event_links,
    link,
    location,
    next_page,
    operation,
    read_json,
    shortened,
)
from receiver.web.api.common.polling import MAX_WAIT_SECONDS, hold
from receiver.web.api.common.schemas import ProblemSchema, field_schema, list_schema, row_schema
from receiver.web.lists.fields import (
    MOBILE_PATTERN,
    InputTime,
    MobileField,
    OneOf,
    OurTime,
    StrictBoolean,
    Text,
    WholeNumber,
)
from receiver.web.lists.filters import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    PageSchema,
    StrictSchema,
)
from receiver.web.lists.pages import answer_page
from receiver.web.lists.visibility import (
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
    "Blueprint",
    "InputTime",
    "MobileField",
    "OneOf",
    "OurTime",
    "PageSchema",
    "ProblemSchema",
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
    "location",
    "next_page",
    "operation",
    "read_json",
    "readable_accounts",
    "row_json",
    "row_schema",
    "shortened",
    "shown",
]
