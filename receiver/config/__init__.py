"""The settings: read once, and checked together."""

from __future__ import annotations

from receiver.config.parsers import (
    ALARM_LANGUAGES,
    ROLES,
    Network,
    audit_days,
    database_url,
    http_url,
    secure_url,
    sqlite_url,
    tokens,
)
from receiver.config.settings import (
    PUSH_SECRET_FILE,
    Settings,
    address_text,
    inside_at,
    load_data_dir,
    load_settings,
    make_data_dir,
    near,
    push_urls,
    retention_problems,
)

__all__ = [
    "ALARM_LANGUAGES",
    "PUSH_SECRET_FILE",
    "ROLES",
    "Network",
    "Settings",
    "address_text",
    "audit_days",
    "database_url",
    "http_url",
    "inside_at",
    "load_data_dir",
    "load_settings",
    "make_data_dir",
    "near",
    "push_urls",
    "retention_problems",
    "secure_url",
    "sqlite_url",
    "tokens",
]
