"""Pages for administrators: users, keys, access review, advice."""

from __future__ import annotations

import re
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import flash, redirect, request, url_for
from flask_babel import force_locale, gettext

from receiver.auth import service
from receiver.auth.api_keys import SCOPE_TEXTS, Scope, list_keys
from receiver.auth.passwords import MIN_CHARS
from receiver.auth.users import Role, User, count_sessions, get_user, list_users
from receiver.core import NameTaken, NotFound, SettingsError
from receiver.support.advice import MAX_CHARS, list_advice, set_advice
from receiver.support.answers import LookupAnswer
from receiver.translations import CATALOGUES
from receiver.web import runtime
from receiver.web.console.advice import BUILT_IN
from receiver.web.console.pages import LANGUAGES, ask_first, blueprint, language, render
from receiver.web.console.session import current_user, may_manage, seen_accounts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from werkzeug.wrappers import Response

    from receiver.audit import AuditTrail
_DAYS = re.compile(r"[0-9]{1,5}")


def _actor() -> str:
    return current_user().caller.name


def _again(endpoint: str) -> Response:
    return redirect(url_for(f"console.{endpoint}"), HTTPStatus.SEE_OTHER)


# --- Users --------------------------------------------------------------------------------------------


@blueprint.route("/users", methods=["GET", "POST"], endpoint="users")
def users_page() -> Response:
    """List the users, and create one."""
    if request.method == "GET":
        return _show_users()
    services, name = runtime(), request.form.get("name", "").strip()
    if request.form.get("role") not in set(Role):
        return _show_users(gettext("Choose a role."))
    try:
        service.create_user(
            services.trail,
            _actor(),
            name=name,
            role=Role(request.form["role"]),
            password=request.form.get("password", ""),
            accounts=_bound_to(request.form.getlist("account")),
        )
    except service.InvalidName:
        return _show_users(gettext("A name may contain letters, digits and . _ @ + - only, at most 64 characters."))
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
        users=[user for user in services.ask_present(list_users) if may_manage(user.accounts)],
        accounts=seen_accounts(),
        sessions=services.ask_present(lambda connection: count_sessions(connection, services.now())),
        roles=tuple(Role),
        error=error,
        given=request.form,
    )


@blueprint.post("/users/<name>")
def user(name: str) -> Response:
    """Change one user: role, access, second factor, sessions, accounts."""
    action = request.form.get("action", "")
    services = runtime()
    found = services.ask_present(lambda connection: get_user(connection, name))
    if found.id == current_user().user.id:
        flash(gettext("You cannot change your own account here. Ask another administrator."), "bad")
        return _again("users")
    if not may_manage(found.accounts):
        raise NotFound(gettext("No such user."))
    changes: dict[str, Callable[[AuditTrail, str, User], None]] = {
        "disable": service.disable_user,
        "enable": service.enable_user,
        "reset_totp": service.reset_totp,
        "end_sessions": service.end_sessions,
        "accounts": partial(service.set_accounts, accounts=_bound_to(request.form.getlist("account"))),
    }
    changes |= {f"role_{role.value}": partial(service.set_role, role=role) for role in Role}
    if (asked := _ask_before(action, found.name)) is not None:
        return asked
    if action in changes:
        changes[action](services.trail, _actor(), found)
        flash(gettext("%(name)s: changed. All their sessions have ended.", name=found.name), "good")
    return _again("users")


def _ask_before(action: str, name: str) -> Response | None:
    back = url_for("console.users")
    if action == "disable":
        return ask_first(
            gettext("Disable %(name)s?", name=name),
            gettext("All their sessions end at once, and they can no longer log in."),
            gettext("Disable %(name)s", name=name),
            back=back,
        )
    if action == "reset_totp":
        return ask_first(
            gettext("Reset the second factor of %(name)s?", name=name),
            gettext(
                "All their sessions end at once. At the next log-in the password alone is enough to set up a new second"
                " factor: make sure that the request is theirs."
            ),
            gettext("Reset the second factor of %(name)s", name=name),
            back=back,
        )
    return None


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
    if not scopes:
        return _show_keys(error=gettext("Choose at least one scope."))
    if days and not (_DAYS.fullmatch(days) and 0 < int(days) <= service.EXPIRES_DAYS_MAX):
        return _show_keys(error=gettext("Days must be a whole number above 0."))
    try:
        key = service.create_key(
            services.trail,
            _actor(),
            name=name,
            scopes=scopes,
            accounts=accounts,
            expires_days=int(days) if days else None,
        )
    except service.InvalidName:
        return _show_keys(error=gettext("Enter a name for the key that says what it is for."))
    except NameTaken:
        return _show_keys(error=gettext("A key with this name already exists."))
    return _show_keys(fresh=key)


def _show_keys(*, error: str | None = None, fresh: str | None = None) -> Response:
    services = runtime()
    return render(
        "keys.html",
        422 if error else 200,
        keys=[key for key in services.ask_present(list_keys) if may_manage(key.accounts)],
        scopes={scope.value: gettext(text) for scope, text in SCOPE_TEXTS.items()},
        chosen=() if fresh else request.form.getlist("scope"),
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
    bound = {key.name: key.accounts for key in services.ask_present(list_keys)}
    if name not in bound or not may_manage(bound[name]):
        raise NotFound(gettext("No such key."))
    asked = ask_first(
        gettext("Revoke the key %(name)s?", name=name),
        gettext("Programs that use it are refused at once. A revoked key cannot be restored."),
        gettext("Revoke key %(name)s", name=name),
        back=url_for("console.keys"),
    )
    if asked is not None:
        return asked
    service.revoke_key(services.trail, _actor(), name)
    flash(gettext("Key %(name)s revoked.", name=name), "good")
    return _again("keys")


# --- Review -------------------------------------------------------------------------------------------


@blueprint.get("/access", endpoint="access")
def access_page() -> Response:
    """List all keys and users with their permissions and last use."""
    found = service.review_access(runtime().trail, _actor())
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
        texts = {answer: " ".join(request.form.get(answer.value, "").split()) for answer in LookupAnswer}
        if too_long := [name for name, text in texts.items() if len(text) > MAX_CHARS]:
            flash(gettext("One text is longer than %(most)s characters.", most=MAX_CHARS), "bad")
            return _show_advice(tag, texts, too_long)
        set_advice(services.trail, _actor(), tag, texts)
        flash(gettext("Advice saved."), "good")
        return redirect(url_for("console.advice", language=tag), HTTPStatus.SEE_OTHER)
    return _show_advice(tag, services.ask_present(lambda connection: list_advice(connection, tag)), [])


def _show_advice(tag: str, own: Mapping[Any, str], too_long: Sequence[str]) -> Response:
    with force_locale(CATALOGUES[tag]):
        built_in = {answer.value: str(text) for answer, text in BUILT_IN.items()}
    status = 422 if too_long else 200
    return render("advice.html", status, tag=tag, own=own, built_in_texts=built_in, too_long=too_long)
