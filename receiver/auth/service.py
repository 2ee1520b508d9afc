"""Changes of users and API keys, each audited in its own transaction.

Command line and console call these. `actor` is who makes the change. Each may raise DatabaseUnavailable or
DatabaseMisconfigured.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from receiver.auth import changes, recovery_codes, users
from receiver.auth.access_review import ReviewedAccess, list_access
from receiver.auth.passwords import hash_password
from receiver.auth.users import NAME, Ending
from receiver.core import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from receiver.audit import AuditTrail
    from receiver.auth.api_keys import Scope
    from receiver.auth.users import Role, User

EXPIRES_DAYS_MAX = 36500
_KEY_NAME_MAX_CHARS = 64


class InvalidName(SettingsError):
    """A name that no user or no key can have."""


# --- Users --------------------------------------------------------------------------------------------


def create_user(
    trail: AuditTrail,
    actor: str,
    *,
    name: str,
    role: Role,
    password: str | None = None,
    oidc_subject: str | None = None,
    accounts: Sequence[str] | None = None,
) -> User:
    """Create a user; `accounts` None: all. Raises InvalidName, NameTaken, or SettingsError for a weak password."""
    if not NAME.fullmatch(name):
        raise InvalidName("NAME: letters, digits, and . _ @ + - only, 64 at most")
    password_hash = None if password is None else hash_password(password, name=name)
    create = partial(
        changes.create_user,
        name=name,
        role=role,
        now=trail.now(),
        password_hash=password_hash,
        oidc_subject=oidc_subject,
        accounts=accounts,
        created_by=actor,
    )
    return trail.audited(create, actor, "user.create", name=name, role=role.value, accounts=accounts)


def set_password(trail: AuditTrail, actor: str, user: User, password: str) -> None:
    """Change a password, and end the user's sessions. Raises SettingsError for a weak one."""
    _change(trail, actor, user, "password", {"password_hash": hash_password(password, name=user.name)})


def set_role(trail: AuditTrail, actor: str, user: User, role: Role) -> None:
    """Change a user's role, and end their sessions."""
    _change(trail, actor, user, "role", {"role": role.value}, role=role.value)


def set_accounts(trail: AuditTrail, actor: str, user: User, accounts: Sequence[str] | None) -> None:
    """Limit a user to accounts (None: all of them) and end their sessions."""
    _change(trail, actor, user, "accounts", {"accounts": accounts and sorted(accounts)}, accounts=accounts or "all")


def disable_user(trail: AuditTrail, actor: str, user: User) -> None:
    """Disable a user, and end their sessions."""
    _change(trail, actor, user, "disable", {"disabled_at": trail.now()})


def enable_user(trail: AuditTrail, actor: str, user: User) -> None:
    """Enable a disabled user."""
    _change(trail, actor, user, "enable", {"disabled_at": None})


def reset_totp(trail: AuditTrail, actor: str, user: User) -> None:
    """Remove a user's second factor, and end their sessions."""
    _change(trail, actor, user, "reset_totp", {"totp_secret": None, "totp_step": None, "recovery_codes": None})


def set_totp(trail: AuditTrail, actor: str, user: User, secret: str, *, step: int) -> list[str]:
    """Set a user's second factor, whose code of a time step they have given; ends their sessions.

    Return its recovery codes, this once.
    """
    codes = recovery_codes.make_codes()
    values = {"totp_secret": secret, "totp_step": step, "recovery_codes": _digests(user, codes)}
    _change(trail, actor, user, "set_totp", values)
    return codes


def renew_recovery_codes(trail: AuditTrail, actor: str, user: User) -> list[str]:
    """Make new recovery codes in place of the old ones, and return them, this once."""
    codes = recovery_codes.make_codes()
    change = partial(users.set_recovery_codes, user_id=user.id, digests=_digests(user, codes))
    trail.audited(change, actor, "user.recovery_codes", name=user.name)
    return codes


def use_recovery_code(trail: AuditTrail, actor: str, user: User, code: str) -> int:
    """Use a recovery code up and return how many are left. Raises WrongCode, which is not audited here."""
    change = partial(users.use_recovery_code, user_id=user.id, code=code)
    return trail.audited(change, actor, "user.use_recovery_code", result_as="left", name=user.name)


def _digests(user: User, codes: Sequence[str]) -> list[str]:
    return [recovery_codes.digest_of(code, user.id) for code in codes]


def end_sessions(trail: AuditTrail, actor: str, user: User) -> None:
    """End every session of a user."""
    _change(trail, actor, user, "end_sessions", {})


def _change(trail: AuditTrail, actor: str, user: User, action: str, values: Mapping[str, Any], **detail: Any) -> None:
    by_themselves = Ending.LOG_OUT if actor == f"user:{user.name}" else Ending.ADMIN
    because = Ending.PASSWORD if action == "password" else by_themselves
    change = partial(changes.change_user, name=user.name, now=trail.now(), because=because, **values)
    trail.audited(change, actor, f"user.{action}", name=user.name, **detail)


# --- Keys ---------------------------------------------------------------------------------------------


def create_key(
    trail: AuditTrail,
    actor: str,
    *,
    name: str,
    scopes: Sequence[Scope],
    accounts: Sequence[str] | None = None,
    expires_days: int | None = None,
) -> str:
    """Create a key and return it, this once; `accounts` None: all. Raises InvalidName, NameTaken."""
    if not name or len(name) > _KEY_NAME_MAX_CHARS or not name.isprintable():
        raise InvalidName(f"NAME: 1 to {_KEY_NAME_MAX_CHARS} printable characters")
    now = trail.now()
    create = partial(
        changes.create_key,
        name=name,
        scopes=scopes,
        accounts=accounts,
        now=now,
        expires_at=now + timedelta(days=expires_days) if expires_days else None,
        created_by=actor,
    )
    return trail.audited(create, actor, "key.create", name=name, scopes=sorted(scopes), accounts=accounts)


def revoke_key(trail: AuditTrail, actor: str, name: str) -> None:
    """End a key at once; ending it twice changes nothing. Raises NotFound."""
    trail.audited(partial(changes.revoke_key, name=name, now=trail.now()), actor, "key.revoke", name=name)


# --- Review -------------------------------------------------------------------------------------------


def review_access(trail: AuditTrail, actor: str) -> list[ReviewedAccess]:
    """Return every key and user with their permissions and last use; also those that have ended."""
    return trail.audited(partial(list_access, now=trail.now()), actor, "access.review")
