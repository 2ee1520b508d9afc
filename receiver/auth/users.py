"""Staff who log in to the console: their roles, sessions and failed log-ins."""

from __future__ import annotations

import hashlib
import re
import secrets
import unicodedata
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.auth import recovery_codes
from receiver.core import CLOCKS_APART, NotFound, ReceiverError
from receiver.db.engine import insert
from receiver.db.sql import is_over, still_lasts
from receiver.db.tables import login_failures, user_sessions, users

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

NAME = re.compile(r"\w[\w.@+-]{0,63}")
IDLE_MAX = timedelta(hours=2)  # an idle session ends
SEEN_EVERY = timedelta(minutes=1)  # how exactly that is known, at a write each
_STEPS_APART = 2 + CLOCKS_APART // timedelta(seconds=30)  # codes of neighbouring steps are accepted too


class WrongCode(ReceiverError):
    """No recovery code of the user, or one that was used."""


class Role(StrEnum):
    """The role of a user."""

    SUPPORT = "support"
    ANALYST = "analyst"
    ADMIN = "admin"


class Ending(StrEnum):
    """Why a session is over."""

    TIME = "time"  # it expired, or nobody used it
    LOG_OUT = "log_out"  # by the user, in this browser or for all
    PASSWORD = "password"  # noqa: S105  (a reason: there is a new one)
    ADMIN = "admin"  # access was changed, or the session ended, by an administrator


@dataclass(frozen=True, kw_only=True, slots=True)
class User:
    """A console user."""

    id: int
    name: str
    role: Role
    password_hash: str | None
    oidc_subject: str | None
    totp_secret: str | None
    totp_step: int | None
    created_at: datetime
    created_by: str | None  # as in the audit; None: before that was kept
    disabled_at: datetime | None
    accounts: tuple[str, ...] | None  # None: every account
    last_used_at: datetime | None  # as exactly as SEEN_EVERY
    recovery_codes_left: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """One log-in that holds."""

    id: int
    user: User
    confirmed: bool  # false: the password was right, the second factor is missing
    last_seen_at: datetime  # as exactly as SEEN_EVERY
    expires_at: datetime
    idle: bool = False  # unused for so long that it only views


# --- Users --------------------------------------------------------------------------------------------


def fold_name(name: str) -> str:
    """Return a name without differences of case and width."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def list_alike(connection: sa.Connection, name: str) -> list[str]:
    """Return the names that fold to the same: one at most, but where two are of a time when both could be made."""
    folded = fold_name(name)
    return [other for other in connection.scalars(sa.select(users.c.name)) if fold_name(other) == folded]


def match_user(connection: sa.Connection, name: str) -> User | None:
    """Return the user of a name, in any case and width; None: there is none.

    Of two whose names fold to the same, only the exact name finds each.
    """
    names = list_alike(connection, name)
    if name in names:
        return find_user(connection, name)
    return find_user(connection, names[0]) if len(names) == 1 else None


def find_user(connection: sa.Connection, name: str) -> User | None:
    """Return the user of exactly that name; None: there is none."""
    row = connection.execute(sa.select(users).where(users.c.name == name)).one_or_none()
    return _user(row) if row else None


def find_user_of_subject(connection: sa.Connection, subject: str) -> User | None:
    """Return the user whom an OpenID provider knows by that subject."""
    row = connection.execute(sa.select(users).where(users.c.oidc_subject == subject)).one_or_none()
    return _user(row) if row else None


def get_user(connection: sa.Connection, name: str) -> User:
    """Return the user of a name, as `match_user` does. Raises NotFound."""
    user = match_user(connection, name)
    if user is None:
        raise NotFound(f"there is no user named {name}; see `receiver users list`")
    return user


def list_users(connection: sa.Connection) -> list[User]:
    """Return every user, by name."""
    return [_user(row) for row in connection.execute(sa.select(users).order_by(users.c.name))]


def use_totp_step(connection: sa.Connection, user_id: int, step: int) -> bool:
    """Record that the code of this time step was used; return False if it, or a later one, was used before.

    A step far in the future was recorded while a clock was ahead, and is ignored: it would lock the user out until
    then.
    """
    far_later = users.c.totp_step > step + _STEPS_APART
    unused = sa.or_(users.c.totp_step.is_(None), users.c.totp_step < step, far_later)
    done = connection.execute(sa.update(users).where(users.c.id == user_id, unused).values(totp_step=step))
    return done.rowcount == 1


def use_recovery_code(connection: sa.Connection, user_id: int, code: str) -> int:
    """Use a code up and return how many are left. Raises WrongCode."""
    query = sa.select(users.c.recovery_codes).where(users.c.id == user_id).with_for_update()
    left, used = list(connection.scalar(query) or ()), recovery_codes.digest_of(code, user_id)
    if used not in left:
        raise WrongCode("not a recovery code of this user, or it was used before")
    left.remove(used)
    set_recovery_codes(connection, user_id, left)
    return len(left)


def set_recovery_codes(connection: sa.Connection, user_id: int, digests: Sequence[str]) -> None:
    """Replace the recovery codes of a user."""
    connection.execute(sa.update(users).where(users.c.id == user_id).values(recovery_codes=list(digests)))


_MADE = {"role", "accounts", "recovery_codes_left"}  # fields that are not the column of the same name


def _user(row: Any) -> User:
    fields = {name: getattr(row, name) for name in User.__slots__ if name not in _MADE}
    accounts = tuple(row.accounts) if row.accounts is not None else None
    left = len(row.recovery_codes or ())
    return User(**fields, role=Role(row.role), accounts=accounts, recovery_codes_left=left)


# --- Sessions -----------------------------------------------------------------------------------------


def begin_session(
    connection: sa.Connection, user_id: int, *, confirmed: bool, address: str, now: datetime, lasts: timedelta
) -> str:
    """Create a session and return its token, this once: only its digest is stored."""
    token = secrets.token_urlsafe(32)
    times = {"created_at": now, "last_seen_at": now, "expires_at": now + lasts}
    connection.execute(
        sa.insert(user_sessions).values(
            token_sha256=_digest(token), user_id=user_id, confirmed=confirmed, address=address, **times
        )
    )
    connection.execute(sa.delete(user_sessions).where(user_sessions.c.expires_at < now - timedelta(days=30)))
    note_used(connection, user_id, now)
    return token


def find_session(connection: sa.Connection, token: str, now: datetime, *, idle_too: bool = False) -> Session | None:
    """Return the session of a token; None: it ended, expired or was idle, or its user is disabled.

    `idle_too`: one that was idle is returned as such.
    """
    column = user_sessions.c
    in_use = still_lasts(column.last_seen_at, IDLE_MAX, now)
    query = (
        sa.select(
            users,
            column.id.label("session_id"),
            *(column[name] for name in ("confirmed", "expires_at", "last_seen_at")),
            in_use.label("in_use"),
        )
        .join(users, users.c.id == column.user_id)
        .where(
            column.token_sha256 == _digest(token),
            column.ended_at.is_(None),
            column.expires_at > now,
            sa.true() if idle_too else in_use,
            users.c.disabled_at.is_(None),
        )
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    times = {"last_seen_at": row.last_seen_at, "expires_at": row.expires_at}
    return Session(id=row.session_id, user=_user(row), confirmed=row.confirmed, idle=not row.in_use, **times)


def find_ending(connection: sa.Connection, token: str, now: datetime) -> Ending | None:
    """Return why the session of a token is over; None: it lasts, or the reason is not known."""
    column = user_sessions.c
    query = (
        sa.select(column.ended_at, column.ended_because, users.c.disabled_at)
        .add_columns(sa.and_(column.expires_at > now, still_lasts(column.last_seen_at, IDLE_MAX, now)).label("lasts"))
        .join(users, users.c.id == column.user_id)
        .where(column.token_sha256 == _digest(token))
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    if row.disabled_at is not None:
        return Ending.ADMIN
    if row.ended_at is not None:
        return Ending(row.ended_because) if row.ended_because else None
    return None if row.lasts else Ending.TIME


def find_owner(connection: sa.Connection, token: str) -> int | None:
    """Return the id of the user whose session has that token, over or not."""
    column = user_sessions.c
    found: int | None = connection.scalar(sa.select(column.user_id).where(column.token_sha256 == _digest(token)))
    return found


def note_seen(connection: sa.Connection, session: Session, now: datetime) -> None:
    """Record that a session is in use, and its user active."""
    column = user_sessions.c
    connection.execute(sa.update(user_sessions).where(column.id == session.id).values(last_seen_at=now))
    note_used(connection, session.user.id, now)


def note_used(connection: sa.Connection, user_id: int, now: datetime) -> None:
    """Note that a user was here."""
    connection.execute(sa.update(users).where(users.c.id == user_id).values(last_used_at=now))


def end_session(connection: sa.Connection, token: str, *, now: datetime) -> None:
    """End one session; ending it twice changes nothing."""
    column = user_sessions.c
    held = (column.token_sha256 == _digest(token), column.ended_at.is_(None))
    connection.execute(sa.update(user_sessions).where(*held).values(ended_at=now, ended_because=Ending.LOG_OUT.value))


def end_sessions_of(connection: sa.Connection, user_id: int, *, now: datetime, because: Ending = Ending.ADMIN) -> int:
    """End every session of a user; return how many."""
    column = user_sessions.c
    held = (column.user_id == user_id, column.ended_at.is_(None), column.expires_at > now)
    ended = {"ended_at": now, "ended_because": because.value}
    return connection.execute(sa.update(user_sessions).where(*held).values(**ended)).rowcount


def count_sessions(connection: sa.Connection, now: datetime) -> Mapping[int, int]:
    """Return how many sessions hold, by user."""
    column = user_sessions.c
    held = (
        column.ended_at.is_(None),
        column.expires_at > now,
        still_lasts(column.last_seen_at, IDLE_MAX, now),
        column.confirmed,
    )
    query = sa.select(column.user_id, sa.func.count()).where(*held).group_by(column.user_id)
    return {row[0]: row[1] for row in connection.execute(query)}


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()


# --- Failed log-ins -----------------------------------------------------------------------------------

LOCKED_FOR = timedelta(minutes=15)
# An attacker can neither lock a user out everywhere with a few attempts, nor try many names from one address.
_FAILURES_MAX = {"name and address": 5, "address": 20, "name": 50}


def is_locked(connection: sa.Connection, *, name: str, address: str, now: datetime) -> bool:
    """Return whether too many log-ins with this name, from this address, or both, failed recently."""
    limits = _failure_keys(name, address)
    found = connection.execute(
        sa.select(login_failures.c.key_sha256, login_failures.c.failures).where(
            login_failures.c.key_sha256.in_(list(limits)), still_lasts(login_failures.c.last_at, LOCKED_FOR, now)
        )
    )
    return any(failures >= limits[bytes(key)] for key, failures in found)


def note_failure(connection: sa.Connection, *, name: str, address: str, now: datetime) -> None:
    """Count one failed log-in; the count restarts after a quarter of an hour without any."""
    column = login_failures.c
    added = sa.case((still_lasts(column.last_at, LOCKED_FOR, now), column.failures + 1), else_=1)
    statement = insert(connection.dialect.name, login_failures)
    for key in sorted(_failure_keys(name, address)):
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=[column.key_sha256], set_={"failures": added, "last_at": now}
            ),
            {"key_sha256": key, "failures": 1, "last_at": now},
        )
    connection.execute(sa.delete(login_failures).where(is_over(column.last_at, timedelta(days=1), now)))


def forget_failures(connection: sa.Connection, *, name: str, address: str) -> None:
    """Reset the count for this name from this address, after a log-in."""
    key = next(iter(_failure_keys(name, address)))
    connection.execute(sa.delete(login_failures).where(login_failures.c.key_sha256 == key))


def _failure_keys(name: str, address: str) -> dict[bytes, int]:
    name = fold_name(name)  # else each spelling would have its own attempts
    texts = {"name and address": f"{name}\0{address}", "address": f"\0{address}", "name": f"{name}\0"}
    return {_digest(texts[kind]): most for kind, most in _FAILURES_MAX.items()}
