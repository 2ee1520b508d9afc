"""The settings: read once, and checked together."""

from __future__ import annotations

from receiver.config.addresses import address_text, inside_at, is_local_only, is_loopback, near, push_urls, within
from receiver.config.loading import load_data_dir, load_settings, make_data_dir, retention_problems
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
from receiver.config.push_tokens import Tokens, TokensFile, find_tokens_file, tokens_text
from receiver.config.settings import CHECKPOINTS_FILE, PUSH_SECRET_FILE, SETTINGS, SPOOL_DIR, SecondFactor, Settings

__all__ = [
    "ALARM_LANGUAGES",
    "CHECKPOINTS_FILE",
    "PUSH_SECRET_FILE",
    "ROLES",
    "SETTINGS",
    "SPOOL_DIR",
    "Network",
    "SecondFactor",
    "Settings",
    "Tokens",
    "TokensFile",
    "address_text",
    "audit_days",
    "database_url",
    "find_tokens_file",
    "http_url",
    "inside_at",
    "is_local_only",
    "is_loopback",
    "load_data_dir",
    "load_settings",
    "make_data_dir",
    "near",
    "push_urls",
    "retention_problems",
    "secure_url",
    "sqlite_url",
    "tokens",
    "tokens_text",
    "within",
]
