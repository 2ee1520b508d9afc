"""Pages for administrators: users, keys, access review, advice."""

from __future__ import annotations

import re
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from flask import flash, redirect, request, url_for
from flask_babel import force_locale, gettext

from receiver.auth import api_keys, users
from receiver.auth.access_review import list_access
from receiver.auth.api_keys import Scope
from receiver.auth.passwords import MIN_CHARS, hash_password
from receiver.auth.users import NAME, Role
from receiver.core import NameTaken, NotFound, SettingsError
from receiver.support.lookup import LookupAnswer
from receiver.translations import CATALOGUES
from receiver.web import runtime
from receiver.web.console.advice import BUILT_IN
from receiver.web.console.pages import LANGUAGES, blueprint, language, render
from receiver.web.console.session import current_user, may_manage, seen_accounts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from werkzeug.wrappers import Response

    from receiver.db.engine import Connection

T = TypeVar("T")

_ADVICE_MAX_CHARS = 500
_EXPIRES_DAYS_MAX = 36500
_DAYS = re.compile(r"[0-9]{1,5}")


def _change(work: Callable[[Connection], T], action: str, **detail: Any) -> T:
    """Run a change and audit it."""
    return runtime().audited(work, current_user().caller.name, action, **detail)


def _again(endpoint: str) -> Response:
    return redirect(url_for(f"console.{endpoint}"), HTTPStatus.SEE_OTHER)


# --- Users --------------------------------------------------------------------------------------------


@blueprint.route("/users", methods=["GET", "POST"], endpoint="users")
def users_page() -> Response:
    """List the users, and create one."""
    if request.method == "GET":
        return _show_users()
    services, name = runtime(), request.form.get("name", "").strip()
    if not NAME.fullmatch(name):
        return _show_users(gettext("A name may contain letters, digits and . _ @ + - only, at most 64 characters."))
    if request.form.get("role") not in set(Role):
        return _show_users(gettext("Choose a role."))
    role = Role(request.form["role"])
    accounts = _bound_to(request.form.getlist("account"))
    try:
        password_hash = hash_password(request.form.get("password", ""), name=name)
        _change(
            lambda connection: users.create_user(
                connection, name=name, role=role, now=services.now(), password_hash=password_hash, accounts=accounts
            ),
            "user.create",
            name=name,
            role=role.value,
            accounts=accounts,
        )
    except SettingsError:
        return _show_users(
            gettext("The password needs at least %(least)s characters and must not contain the name.", least=MIN_CHARS)
        )
    except NameTaken:
        return _show_users(gettext("A user with this name already exists."))
    flash(gettext("%(name)s can log in now.", name=name), "good")
    return _again("users")


def _bound_to(chosen: Sequence[str]) -> list[str] | None:
    """Return the accounts of a new key or user: those chosen, else those of the current user. None: all."""
    within = [account for account in seen_accounts() if account in chosen]
    own = current_user().user.accounts
    return within or (list(own) if own is not None else None)


def _show_users(error: str | None = None) -> Response:
    services = runtime()
    return render(
        "users.html",
        422 if error else 200,
        users=[user for user in services.ask_present(users.list_users) if may_manage(user.accounts)],
        accounts=seen_accounts(),
        sessions=services.ask_present(lambda connection: users.count_sessions(connection, services.now())),
        roles=tuple(Role),
        error=error,
        given=request.form,
    )


@blueprint.post("/users/<name>")
def user(name: str) -> Response:
    """Change one user: role, access, second factor, sessions, accounts."""
    action = request.form.get("action", "")
    services = runtime()
    found = services.ask_present(lambda connection: users.get_user(connection, name))
    if found.id == current_user().user.id:
        flash(gettext("You cannot change your own account here. Ask another administrator."), "bad")
        return _again("users")
    if not may_manage(found.accounts):
        raise NotFound(gettext("No such user."))
    name = found.name
    now = services.now()
    changes: dict[str, Callable[[Connection], object]] = {
        "disable": lambda connection: users.set_disabled(connection, name, now, now=now),
        "enable": lambda connection: users.set_disabled(connection, name, None, now=now),
        "reset_totp": lambda connection: users.set_totp(connection, name, None, now=now),
        "end_sessions": lambda connection: users.end_sessions_of(
            connection, users.get_user(connection, name).id, now=now
        ),
    }
    for role in Role:
        changes[f"role_{role.value}"] = partial(users.set_role, name=name, role=role, now=now)
    accounts = _bound_to(request.form.getlist("account"))
    changes["accounts"] = lambda connection: users.set_accounts(connection, name, accounts, now=now)
    if action in changes:
        more = {"accounts": accounts or "all"} if action == "accounts" else {}
        _change(changes[action], f"user.{action}", name=name, **more)
        flash(gettext("%(name)s: changed. All their sessions have ended.", name=name), "good")
    return _again("users")


# --- Keys ---------------------------------------------------------------------------------------------


@blueprint.route("/keys", methods=["GET", "POST"])
def keys() -> Response:
    """List the API keys, and create one, which is shown only once."""
    if request.method == "GET":
        return _show_keys()
    services, form = runtime(), request.form
    name, days = form.get("name", "").strip(), form.get("expires_days", "").strip()
    scopes = [scope for scope in Scope if scope.value in form.getlist("scope")]
    accounts = _bound_to(form.getlist("account"))
    if not name or len(name) > 64 or not name.isprintable():
        return _show_keys(error=gettext("Enter a name for the key that says what it is for."))
    if not scopes:
        return _show_keys(error=gettext("Choose at least one scope."))
    if days and not (_DAYS.fullmatch(days) and 0 < int(days) <= _EXPIRES_DAYS_MAX):
        return _show_keys(error=gettext("Days must be a whole number above 0."))
    now = services.now()
    try:
        key = _change(
            lambda connection: api_keys.create_key(
                connection,
                name=name,
                scopes=scopes,
                accounts=accounts,
                now=now,
                expires_at=now + timedelta(days=int(days)) if days else None,
            ),
            "key.create",
            name=name,
            scopes=sorted(scopes),
            accounts=accounts,
        )
    except NameTaken:
        return _show_keys(error=gettext("A key with this name already exists."))
    return _show_keys(fresh=key)


def _show_keys(*, error: str | None = None, fresh: str | None = None) -> Response:
    services = runtime()
    return render(
        "keys.html",
        422 if error else 200,
        keys=[key for key in services.ask_present(api_keys.list_keys) if may_manage(key.accounts)],
        scopes=tuple(Scope),
        accounts=seen_accounts(),
        error=error,
        fresh=fresh,
        now=services.now(),
        given={} if fresh else request.form,
    )


@blueprint.post("/keys/revoke")
def revoke_key() -> Response:
    """Revoke a key."""
    services, name = runtime(), request.form.get("name", "")
    bound = {key.name: key.accounts for key in services.ask_present(api_keys.list_keys)}
    if not may_manage(bound.get(name)):
        raise NotFound(gettext("No such key."))
    _change(lambda connection: api_keys.revoke_key(connection, name=name, now=services.now()), "key.revoke", name=name)
    flash(gettext("Key %(name)s revoked.", name=name), "good")
    return _again("keys")


# --- Review -------------------------------------------------------------------------------------------


@blueprint.get("/access", endpoint="access")
def access_page() -> Response:
    """List all keys and users with their permissions and last use."""
    now = runtime().now()
    found = _change(lambda connection: list_access(connection, now), "access.review")
    return render("access.html", rows=[row for row in found if may_manage(row.accounts)])


# --- Advice ---------------------------------------------------------------------------------------------


@blueprint.route("/advice", methods=["GET", "POST"])
def advice() -> Response:
    """Edit the team's own advice for each answer."""
    services = runtime()
    tag = request.values.get("language", language())
    if tag not in LANGUAGES:
        tag = language()
    if request.method == "POST":
        texts = {answer.value: " ".join(request.form.get(answer.value, "").split()) for answer in LookupAnswer}
        if too_long := [name for name, text in texts.items() if len(text) > _ADVICE_MAX_CHARS]:
            flash(gettext("One text is longer than %(most)s characters.", most=_ADVICE_MAX_CHARS), "bad")
            return _show_advice(tag, texts, too_long)
        _change(
            lambda connection: users.save_advice(connection, tag, texts, list(texts)), "advice.change", language=tag
        )
        flash(gettext("Advice saved."), "good")
        return redirect(url_for("console.advice", language=tag), HTTPStatus.SEE_OTHER)
    return _show_advice(tag, services.ask_present(lambda connection: users.list_advice(connection, tag)), [])


def _show_advice(tag: str, own: Mapping[str, str], too_long: list[str]) -> Response:
    with force_locale(CATALOGUES[tag]):
        built_in = {answer.value: str(text) for answer, text in BUILT_IN.items()}
    status = 422 if too_long else 200
    return render("advice.html", status, tag=tag, own=own, built_in_texts=built_in, too_long=too_long)
