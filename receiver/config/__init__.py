"""The settings: read once, checked, with every wrong one named."""

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
    keeping_problems,
    load_data_dir,
    load_settings,
    make_data_dir,
    near,
    push_urls,
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
    "keeping_problems",
    "load_data_dir",
    "load_settings",
    "make_data_dir",
    "near",
    "push_urls",
    "secure_url",
    "sqlite_url",
    "tokens",
]
