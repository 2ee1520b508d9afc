"""Sessions of the staff pages, and their access control: one table of policies, as for API keys."""

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
from receiver.auth.users import SEEN_EVERY, Ending, Role, Session, User
from receiver.config import within
from receiver.core import DatabaseMisconfigured, DatabaseUnavailable
from receiver.intake.admission import client_address
from receiver.web import runtime
from receiver.web.auth import Caller

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flask import Flask, Request

PREFIX = "/console"
TOKEN = "token"  # noqa: S105  (a name: of the session's token in the cookie)
_LOGGED_OUT = "logged_out"
_FORM_TOKEN = "csrf_token"  # noqa: S105  (the name by which Flask-WTF stores it)
_PENDING_LASTS = timedelta(minutes=10)


class Permission(StrEnum):
    """Permissions of roles."""

    LOOK_UP = "look up"
    READ = "read lists"
    REPORT = "read reports"
    EXPORT = "export"
    JOURNAL = "read the journal and replay"
    SEND = "send a test message"
    ADMINISTER = "administer"


_OF_ROLE: Mapping[Role, frozenset[Permission]] = {
    Role.SUPPORT: frozenset({Permission.LOOK_UP, Permission.READ}),
    Role.ANALYST: frozenset({Permission.READ, Permission.REPORT, Permission.EXPORT}),
    Role.ADMIN: frozenset(Permission),
}


class Access(Enum):
    """Access that depends on no role."""

    OPEN = "to all"
    PENDING_2FA = "after the password, before the second factor"
    STAFF = "to all who have logged in"


# Endpoint: the access that it requires. Endpoints outside the table are closed.
POLICIES: Mapping[str, Access | Permission] = {
    "console.static": Access.OPEN,
    "console.log_in": Access.OPEN,
    "console.oidc_begin": Access.OPEN,
    "console.oidc_done": Access.OPEN,
    "console.language": Access.OPEN,
    "console.second_factor": Access.PENDING_2FA,
    "console.log_out": Access.PENDING_2FA,
    "console.home": Access.STAFF,
    "console.banner": Access.STAFF,
    "console.account": Access.STAFF,
    "console.status": Access.STAFF,
    "console.incidents": Access.STAFF,
    "console.runbook": Access.STAFF,
    "console.docs": Access.STAFF,
    "console.document": Access.STAFF,
    "console.document_image": Access.STAFF,
    "console.missing": Access.STAFF,
    "console.look_up": Permission.LOOK_UP,
    "console.look_up_row": Permission.LOOK_UP,
    "console.found": Permission.LOOK_UP,
    "console.found_answer": Permission.LOOK_UP,
    "console.reveal": Permission.LOOK_UP,
    "console.revealed": Permission.LOOK_UP,
    "console.note": Permission.LOOK_UP,
    "console.cases": Permission.READ,
    "console.messages": Permission.READ,
    "console.numbers": Permission.LOOK_UP,
    "console.message": Permission.READ,
    "console.replies": Permission.READ,
    "console.opt_outs": Permission.READ,
    "console.opt_outs_export": Permission.EXPORT,
    "console.reports": Permission.REPORT,
    "console.report_csv": Permission.REPORT,
    "console.exports": Permission.READ,
    "console.export": Permission.READ,  # without EXPORT, the lists that are pages too, up to a bound
    "console.pushes": Permission.JOURNAL,
    "console.tail": Permission.JOURNAL,
    "console.push": Permission.JOURNAL,
    "console.replay": Permission.JOURNAL,
    "console.replay_list": Permission.JOURNAL,
    "console.push_numbers": Permission.JOURNAL,
    "console.quarantine_seen": Permission.JOURNAL,
    "console.setup": Permission.ADMINISTER,
    "console.self_test": Permission.ADMINISTER,
    "console.test_message": Permission.SEND,
    "console.send_test_message": Permission.SEND,
    "console.test_message_way": Permission.SEND,
    "console.users": Permission.ADMINISTER,
    "console.user": Permission.ADMINISTER,
    "console.keys": Permission.ADMINISTER,
    "console.revoke_key": Permission.ADMINISTER,
    "console.webhooks": Permission.ADMINISTER,
    "console.change_target": Permission.ADMINISTER,
    "console.dead_letters": Permission.ADMINISTER,
    "console.webhook": Permission.ADMINISTER,
    "console.audit": Permission.ADMINISTER,
    "console.audit_export": Permission.ADMINISTER,
    "console.access": Permission.ADMINISTER,
    "console.advice": Permission.ADMINISTER,
}


# Endpoints that concern all accounts: closed to users bound to some.
OF_ALL_ACCOUNTS = frozenset(
    {
        "console.audit", "console.audit_export", "console.advice", "console.quarantine_seen",
        "console.webhooks", "console.change_target", "console.dead_letters",
        "console.webhook",
    }
)  # fmt: skip


# What a session that was idle still opens until it expires, so that a status page on a wall screen stays. The banner
# of other pages is not among it: these lead to the log-in.
STAYS_OPEN = frozenset({"console.status", "console.log_out"})


@dataclass(frozen=True, kw_only=True, slots=True)
class CurrentUser:
    """A logged-in user; `confirmed`: with the second factor, where one is required."""

    user: User
    confirmed: bool
    view_only: bool = False  # by a session that was idle: it opens STAYS_OPEN alone

    def may(self, what: Permission) -> bool:
        """Return whether the user has a permission."""
        return self.confirmed and not self.view_only and what in _OF_ROLE[self.user.role]

    @property
    def caller(self) -> Caller:
        """The user as caller of the API; numbers are masked until they are revealed one by one."""
        return Caller(name=f"user:{self.user.name}", sees_numbers=False, accounts=self.user.accounts)


def reason_against(user: CurrentUser, endpoint: str | None, policy: Access | Permission | None) -> str | None:
    """Return why a logged-in user may not see a page; None: they may."""
    if policy is None:
        return "closed"
    if isinstance(policy, Permission) and not user.may(policy):
        return "role"
    if user.user.accounts is not None and endpoint in OF_ALL_ACCOUNTS:
        return "account"
    return None


def current_user() -> CurrentUser:
    """Return the user of the current request; only on pages that require a login."""
    found = g.current_user
    assert isinstance(found, CurrentUser)  # noqa: S101
    return found


def seen_accounts() -> list[str]:
    """Return the configured accounts that the current user may see."""
    own = current_user().user.accounts
    return sorted(account for account in runtime().settings.accounts if own is None or account in own)


def may_manage(accounts: Sequence[str] | None) -> bool:
    """Return whether the current user may manage a key or user with these accounts (None: all)."""
    own = current_user().user.accounts
    return own is None or (accounts is not None and set(accounts) <= set(own))


def address() -> str:
    """Return the client address of the current request."""
    settings = runtime().settings
    peer, forwarded = request.environ.get("REMOTE_ADDR") or "", request.headers.get("X-Forwarded-For")
    return client_address(peer, forwarded, settings.trusted_proxies)


def by_trusted_proxy() -> bool:
    """Return whether the current request comes from a trusted proxy."""
    return within(request.environ.get("REMOTE_ADDR") or "", runtime().settings.trusted_proxies)


def find_current_user() -> CurrentUser | None:
    """Return the user of the current request, by a trusted proxy's header, else by the session; None: nobody."""
    header = runtime().settings.console_user_header
    if header and by_trusted_proxy() and (name := request.headers.get(header, "")):
        # An exact match: names that are equal here may be two people's there.
        user = runtime().ask_present(lambda connection: users.find_user(connection, name))
        if user is None or user.disabled_at is not None:
            return None
        return CurrentUser(user=user, confirmed=True)
    token = session.get(TOKEN)
    held = _find_session(token) if isinstance(token, str) else None
    return CurrentUser(user=held.user, confirmed=held.confirmed, view_only=held.idle) if held else None


def _stays_open() -> bool:
    """Return whether a session that was idle may make this request."""
    if request.endpoint == "console.banner":
        return request.headers.get("HX-Current-URL", "").partition("?")[0].endswith(f"{PREFIX}/status")
    return request.endpoint in STAYS_OPEN


_SEEN_MAX = 1000
_seen: OrderedDict[bytes, Session] = OrderedDict()  # by digest: sessions for times without a database


def _find_session(token: str) -> Session | None:
    services, idle_too = runtime(), _stays_open()
    now = services.now()
    digest = hashlib.sha256(token.encode()).digest()
    try:
        held = services.ask_present(lambda connection: users.find_session(connection, token, now, idle_too=idle_too))
    except (DatabaseUnavailable, DatabaseMisconfigured):
        cached = _seen.get(digest)
        if cached is None or cached.expires_at <= now or (cached.idle and not idle_too):
            raise
        return cached
    _seen.pop(digest, None)
    if held is None:
        return None
    _seen[digest] = held
    if len(_seen) > _SEEN_MAX:
        _seen.popitem(last=False)
    refreshes = "HX-Request" in request.headers  # a refresh by the page is no use by the user
    if held.confirmed and not held.idle and not refreshes and now - held.last_seen_at > SEEN_EVERY:
        services.database.write(lambda connection: users.note_seen(connection, held, now))
    return held


def end() -> None:
    """End the session of the current request, here and in the browser."""
    token = session.get(TOKEN)
    if isinstance(token, str):
        now = runtime().now()
        runtime().database.write(lambda connection: users.end_session(connection, token, now=now))
        _forget(token)
    _empty_cookie()
    session[_LOGGED_OUT] = True


def find_ending() -> Ending | None:
    """Return why this browser's session is over; None: it has had none, it lasts, or the reason is not known."""
    token, services = session.get(TOKEN), runtime()
    if not isinstance(token, str):
        return Ending.LOG_OUT if session.get(_LOGGED_OUT) else None
    try:
        return services.ask_present(lambda connection: users.find_ending(connection, token, services.now()))
    except (DatabaseUnavailable, DatabaseMisconfigured):
        return None


def _forget(token: str) -> None:
    _seen.pop(hashlib.sha256(token.encode()).digest(), None)


def _empty_cookie() -> None:
    """Clear the cookie, except for the chosen language."""
    language = session.get("language")
    session.clear()
    if language:
        session["language"] = language


def in_console(path: str) -> bool:
    """Return whether a path belongs to the staff pages."""
    return path == PREFIX or path.startswith(f"{PREFIX}/")


class Sessions(SecureCookieSessionInterface):
    """Flask's signed cookie, for the console only, signed with a key that all nodes share.

    It holds the session's token, the CSRF token, the chosen language and, during a login at an OpenID provider, the
    state of that login.
    """

    def open_session(self, app: Flask, request: Request) -> Any:
        """Return the cookie's session; None outside of the console."""
        if not in_console(request.path):
            return None
        if not app.secret_key:
            try:
                app.secret_key = runtime().shared_secret("console")
            except (DatabaseUnavailable, DatabaseMisconfigured):
                return None
        return super().open_session(app, request)

    def get_cookie_path(self, app: Flask) -> str:  # noqa: ARG002  (Flask's own signature)
        """Return the path of the console, including its prefix."""
        return request.script_root + PREFIX

    def get_cookie_secure(self, app: Flask) -> bool:  # noqa: ARG002  (Flask's own signature)
        """Return whether the cookie is for HTTPS only: if the request came by HTTPS."""
        return over_https()


def over_https() -> bool:
    """Return whether the browser used HTTPS, to us or to a trusted proxy."""
    if request.is_secure:
        return True
    said = request.headers.get("X-Forwarded-Proto", "")  # each proxy may append a value; the first is the browser's
    return by_trusted_proxy() and said.partition(",")[0].strip().lower() == "https"


def begin(user: User, *, confirmed: bool) -> None:
    """Begin a session with a new token, and end the browser's old one."""
    services = runtime()
    lasts = services.settings.console_session if confirmed else _PENDING_LASTS
    came_from = address()

    def work(connection: Any) -> tuple[str, bool]:
        token, same_user = session.get(TOKEN), False
        if isinstance(token, str):
            same_user = users.find_owner(connection, token) == user.id
            users.end_session(connection, token, now=services.now())
            _forget(token)
        token = users.begin_session(
            connection, user.id, confirmed=confirmed, address=came_from, now=services.now(), lasts=lasts
        )
        return token, same_user

    token, same_user = services.database.write(work)
    # Forms that the same user has open in other tabs stay valid. Another user's never do, nor do those of before the
    # first log-in: that cookie may have been planted.
    form_token = session.get(_FORM_TOKEN) if same_user else None
    _empty_cookie()
    session[TOKEN] = token
    if form_token:
        session[_FORM_TOKEN] = form_token
