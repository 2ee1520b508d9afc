"""The audit log: written as a hash chain, verified, exported, shipped to syslog."""

from __future__ import annotations

from receiver.audit.checkpoints import Checkpoint, Checkpoints, thinned
from receiver.audit.export import MEDIA_TYPES, AuditFormat, as_fields, iter_audit_file
from receiver.audit.log import (
    BEGINNING,
    AuditFilter,
    create_statements,
    drop_statements,
    find_shipped,
    find_unshipped_since,
    iter_entries,
    list_audit,
    list_entries,
    note_shipped,
    prune_audit,
    write_audit,
)
from receiver.audit.shipper import Shipper
from receiver.audit.trail import AuditTrail
from receiver.audit.verification import verify_audit

__all__ = [
    "BEGINNING",
    "MEDIA_TYPES",
    "AuditFilter",
    "AuditFormat",
    "AuditTrail",
    "Checkpoint",
    "Checkpoints",
    "Shipper",
    "as_fields",
    "create_statements",
    "drop_statements",
    "find_shipped",
    "find_unshipped_since",
    "iter_audit_file",
    "iter_entries",
    "list_audit",
    "list_entries",
    "note_shipped",
    "prune_audit",
    "thinned",
    "verify_audit",
    "write_audit",
]
