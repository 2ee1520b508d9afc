"""What a caller may see: its accounts, full or masked numbers; and the audit of reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from receiver.core import InputFault
from receiver.messages.fields import as_json, without_numbers
from receiver.web import runtime
from receiver.web.auth import caller
from receiver.web.error_codes import ErrorCode
from receiver.web.errors import Denied, Invalid

if TYPE_CHECKING:
    from collections.abc import Mapping


Row = TypeVar("Row")


def readable_accounts(account: str | None) -> tuple[str, ...] | None:
    """Return the accounts of a read; None: all. Raises Invalid for an unknown account, Denied without access."""
    allowed = caller().accounts
    if account is None:
        return allowed
    if account not in runtime().settings.accounts:
        raise Invalid({"#/account": InputFault.UNKNOWN_ACCOUNT})
    if allowed is not None and account not in allowed:
        raise Denied(403, ErrorCode.ACCOUNT_CLOSED, "this key is bound to other accounts")
    return (account,)


def account_to_write(account: str | None) -> str:
    """Return the account of a write: the given one, else the only one. Raises Invalid or Denied."""
    if account is not None:
        readable_accounts(account)
        return account
    choices = runtime().settings.accounts
    allowed = caller().accounts
    if allowed is not None:
        choices &= set(allowed)
    if len(choices) != 1:
        raise Invalid({"#/account": "several accounts are configured: name one"})
    return next(iter(choices))


def shown(row: Row) -> Row:
    """Return a row as the caller may see it: without the scope `pii`, numbers are masked."""
    return row if caller().sees_numbers else without_numbers(row)


def row_json(row: Any) -> dict[str, Any]:
    """Return a row as JSON, as the caller may see it."""
    return as_json(shown(row))


def audit_list(name: str, arguments: Mapping[str, Any]) -> None:
    """Audit a list of messages or receipts if it was filtered by number or shows full numbers."""
    mobile = arguments.get("mobile")
    if mobile is not None:
        audit_look_up(f"{name}.look_up", mobile=mobile)
    elif caller().sees_numbers:
        audit_look_up(f"{name}.read")


def audit_look_up(action: str, *, mobile: str | None = None, **detail: Any) -> None:
    """Audit a look-up by number or a read of content. The number is stored as a keyed hash."""
    runtime().audit(caller().name, action, mobile=mobile, **detail)
