"""Login and logout: password, second factor, the account page."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flask import flash, redirect, request, session, url_for
from flask_babel import gettext, lazy_gettext
from markupsafe import Markup

from receiver.auth import service, users
from receiver.auth.passwords import MIN_CHARS, fits_password
from receiver.auth.users import Ending, Role, User, WrongCode
from receiver.config import SecondFactor, is_local_only, is_loopback
from receiver.core import SettingsError
from receiver.web import denials, runtime
from receiver.web.console.pages import blueprint, inside, render
from receiver.web.console.session import TOKEN, address, begin, current_user, end, find_ending

if TYPE_CHECKING:
    from collections.abc import Mapping

    from werkzeug.wrappers import Response


_STEP_SECONDS = 30
_ISSUER = "receiver"


_ENDINGS: Mapping[Ending | None, Any] = {
    Ending.TIME: lazy_gettext("Your session has expired. Please log in again."),
    Ending.LOG_OUT: lazy_gettext("You have logged out."),
    Ending.PASSWORD: lazy_gettext("The password was changed. Please log in with the new one."),
    Ending.ADMIN: lazy_gettext("An administrator has ended your session. Please log in again."),
}


@blueprint.route("/login", methods=["GET", "POST"])
def log_in() -> Response:
    """Ask for name and password."""
    following = request.values.get("next", "")
    if request.method == "GET":
        return render("login.html", following=following, notice=_ENDINGS.get(find_ending()), trial=_is_trial())
    name, password = request.form.get("name", "").strip(), request.form.get("password", "")
    services, came_from = runtime(), address()
    now = services.now()
    if services.ask_present(lambda connection: users.is_locked(connection, name=name, address=came_from, now=now)):
        denials.record("console", "login.locked", address=came_from, route="console.log_in", reason="locked")
        error = gettext("Too many attempts. Try again in 15 minutes, or ask an administrator.")
        return render("login.html", 429, following=following, name=name, error=error)
    user = services.ask_present(lambda connection: users.match_user(connection, name))
    fits = fits_password(user.password_hash if user else None, password)
    if user is None or not fits or user.disabled_at is not None:
        services.database.write(
            lambda connection: users.note_failure(connection, name=name, address=came_from, now=now)
        )
        _note_failed(user, came_from, factor="password")
        error = gettext("Incorrect username or password.")
        return render("login.html", 401, following=following, name=name, error=error)
    confirmed = not (user.totp_secret or needs_second_factor(user))
    enter(user, confirmed=confirmed)
    if not confirmed:
        return redirect(url_for("console.second_factor", next=following or None), HTTPStatus.SEE_OTHER)
    return redirect(inside(following), HTTPStatus.SEE_OTHER)


_FAILURES_NOTED = 20  # audited in ten minutes: each one, up to the lock of logins


def _note_failed(user: User | None, came_from: str, *, factor: str) -> None:
    actor = f"user:{user.name}" if user and factor != "password" else "console"
    name = user.name if user else None
    denials.record(
        actor,
        "login.failed",
        address=came_from,
        route=f"{request.endpoint}",
        reason="failed",
        burst=_FAILURES_NOTED,
        factor=factor,
        name=name,
    )


def enter(user: User, *, confirmed: bool, by: str | None = None, second_factor: str | None = None) -> None:
    """Start a session and audit the login; `by` names the identity provider, if any.

    Failures are cleared only after the second factor: a code can be guessed too.
    """
    services, came_from = runtime(), address()
    begin(user, confirmed=confirmed)
    if confirmed:
        services.database.write(lambda connection: users.forget_failures(connection, name=user.name, address=came_from))
        services.audit(f"user:{user.name}", "login", address=came_from, by=by, second_factor=second_factor)


def needs_second_factor(user: User) -> bool:
    """Return whether this user must use a second factor."""
    return runtime().settings.console_totp is not SecondFactor.OPTIONAL and user.role is not Role.SUPPORT


_FORWARDED = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP")


def _is_trial() -> bool:
    """Return whether this is a browser on the machine of a server for trial, where the second factor may be skipped.

    A proxy that no setting names shows itself by its headers, by the name that the browser used, or by a version of
    HTTP that no browser speaks, as nginx does by default.
    """
    settings, host = runtime().settings, urlsplit(f"//{request.host}").hostname or ""
    if settings.console_totp is not SecondFactor.AUTO or not is_local_only(settings):
        return False
    near = is_loopback(host) and is_loopback(address()) and request.environ.get("SERVER_PROTOCOL") != "HTTP/1.0"
    return near and not any(name in request.headers for name in _FORWARDED)


@blueprint.route("/second-factor", methods=["GET", "POST"])
def second_factor() -> Response:
    """Ask for the authenticator's code, or show how to set up an authenticator."""
    user, following = current_user().user, request.values.get("next", "")
    if current_user().confirmed:
        return redirect(inside(following), HTTPStatus.SEE_OTHER)
    secret = user.totp_secret or _new_secret()
    may_skip = user.totp_secret is None and _is_trial()
    shown: dict[str, Any] = {"following": following, "fresh": user.totp_secret is None, "may_skip": may_skip}
    if user.totp_secret is None:
        # For users who set up an authenticator, so rarely that a server need not hold it.
        import pyotp  # noqa: PLC0415
        import segno  # noqa: PLC0415

        uri = pyotp.TOTP(secret, name=user.name, issuer=_ISSUER).provisioning_uri()
        picture = segno.make(uri, error="m").svg_inline(scale=5, border=3, light="#fff", dark="#000", svgclass="qr")
        shown |= {"secret": secret, "picture": Markup(picture)}  # noqa: S704  (made here, of nothing that was typed)
    if request.method == "GET":
        return render("second_factor.html", **shown)
    if may_skip and "skip" in request.form:
        enter(user, confirmed=True, second_factor="skipped")
        return redirect(inside(following), HTTPStatus.SEE_OTHER)
    services, came_from = runtime(), address()
    now = services.now()
    # Six digits can be guessed: the limit of passwords applies.
    if services.ask_present(lambda connection: users.is_locked(connection, name=user.name, address=came_from, now=now)):
        actor = f"user:{user.name}"
        denials.record(actor, "login.locked", address=came_from, route="console.second_factor", reason="locked")
        error = gettext("Too many attempts. Try again in 15 minutes, or ask an administrator.")
        return render("second_factor.html", 429, **shown, error=error)
    done = _use_recovery_code(user) if "recovery_code" in request.form else _use_code(user, secret)
    if done is None:
        services.database.write(
            lambda connection: users.note_failure(connection, name=user.name, address=came_from, now=now)
        )
        factor = "recovery code" if "recovery_code" in request.form else "totp"
        _note_failed(user, came_from, factor=factor)
        return render("second_factor.html", 401, **shown, error=_WRONG_CODES[factor])
    enter(user, confirmed=True)
    if "recovery_code" in request.form:
        left = user.recovery_codes_left - 1
        flash(
            gettext("A recovery code was used. Left: %(left)s. Your account's page makes new ones.", left=left), "good"
        )
    if done:
        return render("recovery_codes.html", codes=done, following=inside(following))
    return redirect(inside(following), HTTPStatus.SEE_OTHER)


_WRONG_CODES = {
    "totp": lazy_gettext(
        "The code is incorrect or was already used. Wait for the next one, and check the phone's clock."
    ),
    "recovery code": lazy_gettext("The recovery code is incorrect or was already used."),
}


def _use_code(user: User, secret: str) -> list[str] | None:
    """Use the authenticator's code; return the recovery codes of one that was just set up. None: it is wrong."""
    services, step = runtime(), _step_of(secret, request.form.get("code", ""))
    if step is None or not services.database.write(lambda connection: users.use_totp_step(connection, user.id, step)):
        return None
    if user.totp_secret is None:
        return service.set_totp(services.trail, f"user:{user.name}", user, secret, step=step)
    return []


def _use_recovery_code(user: User) -> list[str] | None:
    """Use a recovery code up; None: it is wrong."""
    try:
        service.use_recovery_code(runtime().trail, f"user:{user.name}", user, request.form["recovery_code"])
    except WrongCode:
        return None
    return []


def _new_secret() -> str:
    """Return the secret that this session may set up.

    It is derived from the session's token: equal on every node, and stored nowhere until it is used.
    """
    key = runtime().shared_secret("totp")
    return base64.b32encode(hmac.digest(key, str(session.get(TOKEN)).encode(), hashlib.sha256)[:20]).decode()


def _step_of(secret: str, code: str) -> int | None:
    """Return the time step of a code: the current one or a neighbour; None: the code is wrong."""
    import pyotp  # noqa: PLC0415  (as in `second_factor`)

    given = "".join(code.split())
    present = int(time.time()) // _STEP_SECONDS
    totp = pyotp.TOTP(secret)
    for step in (present, present - 1, present + 1):
        if hmac.compare_digest(totp.generate_otp(step), given.encode("ascii", "replace").decode()):
            return step
    return None


@blueprint.post("/logout")
def log_out() -> Response:
    """End this session."""
    runtime().audit(f"user:{current_user().user.name}", "logout", address=address())
    end()
    return redirect(url_for("console.log_in"), HTTPStatus.SEE_OTHER)


@blueprint.route("/account", methods=["GET", "POST"])
def account() -> Response:
    """Change the own password, make new recovery codes, or end all own sessions."""
    services, user = runtime(), current_user().user
    if request.method == "GET":
        return render("account.html")
    now = services.now()
    if "end" in request.form:
        service.end_sessions(services.trail, f"user:{user.name}", user)
        end()
        return redirect(url_for("console.log_in"), HTTPStatus.SEE_OTHER)
    came_from = address()
    if services.ask_present(lambda connection: users.is_locked(connection, name=user.name, address=came_from, now=now)):
        error = gettext("Too many attempts. Try again in 15 minutes, or ask an administrator.")
        return render("account.html", 429, error=error)
    if not fits_password(user.password_hash, request.form.get("present", "")):
        services.database.write(
            lambda connection: users.note_failure(connection, name=user.name, address=came_from, now=now)
        )
        _note_failed(user, came_from, factor="present password")
        return render("account.html", 422, error=gettext("Current password is incorrect."))
    if "renew" in request.form and user.totp_secret is not None:
        codes = service.renew_recovery_codes(services.trail, f"user:{user.name}", user)
        return render("recovery_codes.html", codes=codes, following=url_for("console.account"))
    try:
        service.set_password(services.trail, f"user:{user.name}", user, request.form.get("new", ""))
    except SettingsError:
        error = gettext(
            "The new password needs at least %(least)s characters and must not contain your name.", least=MIN_CHARS
        )
        return render("account.html", 422, error=error)
    begin(user, confirmed=True)
    return render("account.html", done=gettext("Password changed. All your other sessions have ended."))
