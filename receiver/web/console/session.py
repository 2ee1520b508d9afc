"""Who has logged in, and what their role lets them see: one table of policies, as with the API's keys."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any

from flask import g, request, session
from flask.sessions import SecureCookieSessionInterface

from receiver.auth import users
from receiver.auth.users import SEEN_EVERY, Role, Session, User
from receiver.core import DatabaseMisconfigured, DatabaseUnavailable
from receiver.intake import client_address, within
from receiver.web import runtime
from receiver.web.auth import Caller

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flask import Flask, Request

PREFIX = "/console"
TOKEN = "token"  # noqa: S105  (a name: of the session's token in the cookie)
_HALF_LASTS = timedelta(minutes=10)


class Permission(StrEnum):
    """What a role may do."""

    LOOK_UP = "look up"
    READ = "read lists"
    REPORT = "read reports"
    EXPORT = "export"
    JOURNAL = "read the journal and replay"
    ADMINISTER = "administer"


_OF_ROLE: Mapping[Role, frozenset[Permission]] = {
    Role.SUPPORT: frozenset({Permission.LOOK_UP, Permission.READ}),
    Role.ANALYST: frozenset({Permission.READ, Permission.REPORT, Permission.EXPORT}),
    Role.ADMIN: frozenset(Permission),
}


class Access(Enum):
    """Pages that no role is asked for."""

    OPEN = "to all"
    HALF = "after the password, before the second factor"
    STAFF = "to all who have logged in"


# Endpoint: what it takes. What is not here is closed.
POLICIES: Mapping[str, Access | Permission] = {
    "console.static": Access.OPEN,
    "console.log_in": Access.OPEN,
    "console.oidc_begin": Access.OPEN,
    "console.oidc_done": Access.OPEN,
    "console.language": Access.OPEN,
    "console.second_factor": Access.HALF,
    "console.log_out": Access.HALF,
    "console.home": Access.STAFF,
    "console.banner": Access.STAFF,
    "console.account": Access.STAFF,
    "console.status": Access.STAFF,
    "console.missing": Access.STAFF,
    "console.look_up": Permission.LOOK_UP,
    "console.found": Permission.LOOK_UP,
    "console.found_answer": Permission.LOOK_UP,
    "console.reveal": Permission.LOOK_UP,
    "console.messages": Permission.READ,
    "console.message": Permission.READ,
    "console.replies": Permission.READ,
    "console.reports": Permission.REPORT,
    "console.report_csv": Permission.REPORT,
    "console.exports": Permission.EXPORT,
    "console.export": Permission.EXPORT,
    "console.pushes": Permission.JOURNAL,
    "console.push": Permission.JOURNAL,
    "console.replay": Permission.JOURNAL,
    "console.quarantine_seen": Permission.JOURNAL,
    "console.setup": Permission.ADMINISTER,
    "console.self_test": Permission.ADMINISTER,
    "console.users": Permission.ADMINISTER,
    "console.user": Permission.ADMINISTER,
    "console.keys": Permission.ADMINISTER,
    "console.revoke_key": Permission.ADMINISTER,
    "console.webhooks": Permission.ADMINISTER,
    "console.change_target": Permission.ADMINISTER,
    "console.dead_letters": Permission.ADMINISTER,
    "console.audit": Permission.ADMINISTER,
    "console.audit_export": Permission.ADMINISTER,
    "console.access": Permission.ADMINISTER,
    "console.advice": Permission.ADMINISTER,
}


# What concerns every account, and so is closed to whoever is bound to some.
OF_ALL_ACCOUNTS = frozenset(
    {
        "console.audit", "console.audit_export", "console.advice", "console.quarantine_seen",
        "console.webhooks", "console.change_target", "console.dead_letters",
    }
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class CurrentUser:
    """Somebody who has logged in, wholly or but for the second factor."""

    user: User
    confirmed: bool

    def may(self, what: Permission) -> bool:
        """Return whether their role lets them."""
        return self.confirmed and what in _OF_ROLE[self.user.role]

    @property
    def caller(self) -> Caller:
        """The same as the API's rows and audit know it; numbers are masked until they are asked for one by one."""
        return Caller(name=f"user:{self.user.name}", sees_numbers=False, accounts=self.user.accounts)


def visitor() -> CurrentUser:
    """Who makes the present request; only on pages that are not open."""
    found = g.visitor
    assert isinstance(found, CurrentUser)  # noqa: S101
    return found


def seen_accounts() -> list[str]:
    """The configured accounts that the present visitor may see."""
    own = visitor().user.accounts
    return sorted(account for account in runtime().settings.accounts if own is None or account in own)


def may_manage(accounts: Sequence[str] | None) -> bool:
    """Return whether a key or user bound to these (None: to none) is within what the present visitor is bound to."""
    own = visitor().user.accounts
    return own is None or (accounts is not None and set(accounts) <= set(own))


def address() -> str:
    """Where the present request comes from."""
    settings = runtime().settings
    peer, forwarded = request.environ.get("REMOTE_ADDR") or "", request.headers.get("X-Forwarded-For")
    return client_address(peer, forwarded, settings.trusted_proxies)


def by_trusted_proxy() -> bool:
    """Return whether the present request comes by a proxy whose headers are believed."""
    return within(request.environ.get("REMOTE_ADDR") or "", runtime().settings.trusted_proxies)


def find_visitor() -> CurrentUser | None:
    """Find out who makes the present request: by the proxy that they have logged in at, else by their session."""
    header = runtime().settings.console_user_header
    if header and by_trusted_proxy() and (name := request.headers.get(header, "")):
        # Exactly: names that are one here may be two people's there.
        user = runtime().ask(lambda connection: users.find_user(connection, name))
        if user is None or user.disabled_at is not None:
            return None
        return CurrentUser(user=user, confirmed=True)
    token = session.get(TOKEN)
    held = _find_session(token) if isinstance(token, str) else None
    return CurrentUser(user=held.user, confirmed=held.confirmed) if held else None


_SEEN_MAX = 1000
_seen: OrderedDict[bytes, Session] = OrderedDict()  # by digest: sessions that hold on while the database is away


def _find_session(token: str) -> Session | None:
    parts = runtime()
    now = parts.now()
    digest = hashlib.sha256(token.encode()).digest()
    try:
        held = parts.ask(lambda connection: users.find_session(connection, token, now))
    except (DatabaseUnavailable, DatabaseMisconfigured):
        kept = _seen.get(digest)
        if kept is None or kept.expires_at <= now:
            raise
        return kept
    _seen.pop(digest, None)
    if held is None:
        return None
    _seen[digest] = held
    if len(_seen) > _SEEN_MAX:
        _seen.popitem(last=False)
    looks_again = "HX-Request" in request.headers  # by itself, which is nobody's use
    if held.confirmed and not looks_again and now - held.last_seen_at > SEEN_EVERY:
        parts.database.write(lambda connection: users.note_seen(connection, held, now))
    return held


def end() -> None:
    """End the session of the present request, here and in the browser."""
    token = session.get(TOKEN)
    if isinstance(token, str):
        now = runtime().now()
        runtime().database.write(lambda connection: users.end_session(connection, token, now=now))
        _forget(token)
    _empty_cookie()


def _forget(token: str) -> None:
    _seen.pop(hashlib.sha256(token.encode()).digest(), None)


def _empty_cookie() -> None:
    """Keep nothing in the browser but the language that was chosen."""
    language = session.get("language")
    session.clear()
    if language:
        session["language"] = language


def in_console(path: str) -> bool:
    """Return whether a path is one of the staff pages', there or not."""
    return path == PREFIX or path.startswith(f"{PREFIX}/")


class Sessions(SecureCookieSessionInterface):
    """Flask's signed cookie, for the console alone, signed with a key that all nodes share.

    It holds the session's token, which the database knows, what guards forms, the language that was chosen, and
    while somebody logs in at an OpenID provider, what its answer has to fit; nothing else is kept in it.
    """

    def open_session(self, app: Flask, request: Request) -> Any:
        """Read the cookie; anywhere but in the console there is none."""
        if not in_console(request.path):
            return None
        if not app.secret_key:
            try:
                app.secret_key = runtime().shared_secret("console")
            except (DatabaseUnavailable, DatabaseMisconfigured):
                return None
        return super().open_session(app, request)

    def get_cookie_path(self, app: Flask) -> str:  # noqa: ARG002  (Flask's own signature)
        """Where the browser is to send it: to the console, wherever that is mounted."""
        return request.script_root + PREFIX

    def get_cookie_secure(self, app: Flask) -> bool:  # noqa: ARG002  (Flask's own signature)
        """Return whether the browser is to send it over HTTPS only: where it came so."""
        return over_https()


def over_https() -> bool:
    """Return whether the browser reached us over HTTPS, here or at a trusted proxy."""
    if request.is_secure:
        return True
    said = request.headers.get("X-Forwarded-Proto", "")  # each proxy may add its own; the first is the browser's
    return by_trusted_proxy() and said.partition(",")[0].strip().lower() == "https"


def begin(user: User, *, confirmed: bool) -> None:
    """Begin a session under a token of its own, whatever the browser had before."""
    parts = runtime()
    lasts = parts.settings.console_session if confirmed else _HALF_LASTS
    came_from = address()

    def work(connection: Any) -> str:
        token = session.get(TOKEN)
        if isinstance(token, str):
            users.end_session(connection, token, now=parts.now())
            _forget(token)
        return users.begin_session(
            connection, user.id, confirmed=confirmed, address=came_from, now=parts.now(), lasts=lasts
        )

    token = parts.database.write(work)
    _empty_cookie()
    session[TOKEN] = token
