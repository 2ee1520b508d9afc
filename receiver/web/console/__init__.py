"""The staff pages, `/console`."""

from __future__ import annotations

from receiver.web.console import (
    admin,
    audit,
    cases,
    docs,
    exports,
    handover,
    home,
    incidents,
    journal,
    lists,
    login,
    lookup,
    message,
    oidc,
    opt_outs,
    reports,
    row_lookup,
    status,
    tail,
    test_message,
    webhooks,
)
from receiver.web.console.pages import register

__all__ = [
    "admin",
    "audit",
    "cases",
    "docs",
    "exports",
    "handover",
    "home",
    "incidents",
    "journal",
    "lists",
    "login",
    "lookup",
    "message",
    "oidc",
    "opt_outs",
    "register",
    "reports",
    "row_lookup",
    "status",
    "tail",
    "test_message",
    "webhooks",
]
