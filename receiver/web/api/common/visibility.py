"""What a caller may see: its accounts, whole numbers or masked ones; and the audit of what was read."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from receiver.core import mask_mobile
from receiver.web import runtime
from receiver.web.auth import caller
from receiver.web.errors import Denied, Invalid

if TYPE_CHECKING:
    from collections.abc import Mapping


Row = TypeVar("Row")


def readable_accounts(asked: str | None) -> tuple[str, ...] | None:
    """The accounts that a read covers; None: all. Raises Invalid for an unknown one, Denied for a closed one."""
    allowed = caller().accounts
    if asked is None:
        return allowed
    if asked not in runtime().settings.accounts:
        raise Invalid({"#/account": "no such account is configured"})
    if allowed is not None and asked not in allowed:
        raise Denied(403, "account_closed", "this key is bound to other accounts")
    return (asked,)


def account_to_write(asked: str | None) -> str:
    """The account that a write is for: the one asked for, else the only one. Raises Invalid or Denied."""
    if asked is not None:
        readable_accounts(asked)
        return asked
    choices = runtime().settings.accounts
    allowed = caller().accounts
    if allowed is not None:
        choices &= set(allowed)
    if len(choices) != 1:
        raise Invalid({"#/account": "several accounts are configured: say which"})
    return next(iter(choices))


_NUMBER_INSIDE = re.compile(r"(?<![0-9])(?:86|0086)?1[0-9]{10}(?![0-9])")


def shown(row: Row) -> Row:
    """Return a row as the caller may see it: numbers masked without the scope `pii`."""
    if caller().sees_numbers:
        return row
    changes: dict[str, Any] = {"mobile": mask_mobile(row.mobile)}  # type: ignore[attr-defined]
    if extra := getattr(row, "extra", None):
        changes["extra"] = {_without_numbers(name): _without_numbers(value) for name, value in extra.items()}
    return replace(row, **changes)  # type: ignore[type-var]


def _without_numbers(text: str) -> str:
    return _NUMBER_INSIDE.sub(lambda match: mask_mobile(match[0]), text)


def audit_list(name: str, arguments: Mapping[str, Any]) -> None:
    """Note a list of messages or receipts where it was asked for by number, or shows numbers in full."""
    mobile = arguments.get("mobile")
    if mobile is not None:
        audit_look_up(f"{name}.look_up", mobile=mobile)
    elif caller().sees_numbers:
        audit_look_up(f"{name}.read")


def audit_look_up(action: str, *, mobile: str | None = None, **detail: Any) -> None:
    """Note a look-up by number, or a read of content. The number goes in as a keyed hash."""
    runtime().audit(caller().name, action, mobile=mobile, **detail)
