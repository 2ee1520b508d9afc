"""What all staff pages share: who is let in, the headers that keep them safe, languages, errors as pages."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, abort, current_app, g, redirect, render_template, request, session, url_for
from flask_babel import Babel, gettext, lazy_gettext
from flask_wtf.csrf import CSRFError, CSRFProtect, generate_csrf
from werkzeug.exceptions import HTTPException

from receiver.core import (
    DatabaseMisconfigured,
    DatabaseUnavailable,
    MissingExtra,
    NotFound,
    Overloaded,
    ReceiverError,
    TooManyRows,
)
from receiver.observability import get_logger
from receiver.web import denials, runtime
from receiver.web.auth import CONSOLE
from receiver.web.console import filters
from receiver.web.console.error_texts import fault_words
from receiver.web.console.session import (
    OF_ALL_ACCOUNTS,
    POLICIES,
    PREFIX,
    Access,
    CurrentUser,
    Permission,
    Sessions,
    address,
    find_visitor,
    in_console,
    over_https,
)
from receiver.web.errors import Denied, Invalid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flask import Flask
    from marshmallow import ValidationError
    from werkzeug.wrappers import Response as AnyResponse

_log = get_logger(__name__)

# Tag of the language: as it names itself. Catalogues are found under the name that Babel gives the locale.
LANGUAGES: Mapping[str, str] = {"zh-CN": "中文", "en": "English"}
CATALOGUES = {"zh-CN": "zh_Hans_CN", "en": "en"}

_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self';"
        " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # no-referrer would break the check of forms over HTTPS
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=()",
    "Cache-Control": "no-store",
}

blueprint = Blueprint(
    CONSOLE, __name__, url_prefix=PREFIX, template_folder="templates", static_folder="static", static_url_path="/static"
)
_csrf = CSRFProtect()


def render(template: str, status: int = 200, **values: Any) -> Response:
    """Answer with a page."""
    return Response(render_template(f"console/{template}", **values), status=status)


@blueprint.before_request
def _check() -> AnyResponse | None:
    policy = POLICIES.get(request.endpoint or "")
    if _holds_nul():
        abort(HTTPStatus.BAD_REQUEST)
    if not current_app.secret_key and request.endpoint != "console.static":
        raise DatabaseUnavailable("the key of cookies and forms has not been read from the database yet")
    if request.method == "POST":
        _csrf.protect()
    if policy is Access.OPEN:
        return None
    found = find_visitor()
    if found is None:
        return _to_log_in()
    g.visitor, g.caller = found, found.caller
    if not found.confirmed and policy is not Access.HALF:
        return redirect(url_for("console.second_factor"), HTTPStatus.SEE_OTHER)
    reason = _reason_against(found, policy)
    if reason is not None:
        _note_refusal(reason)
        return render("problem.html", 403, heading=_REFUSALS[reason])
    return None


_REFUSALS = {
    "closed": lazy_gettext("This page is closed"),
    "role": lazy_gettext("Your role does not include this page"),
    "account": lazy_gettext("You are bound to accounts, and this concerns every one"),
}


def _reason_against(found: CurrentUser, policy: Access | Permission | None) -> str | None:
    """Say why somebody who has logged in is refused a page; None: they are not."""
    if policy is None:
        return "closed"
    if isinstance(policy, Permission) and not found.may(policy):
        return "role"
    if found.user.accounts is not None and request.endpoint in OF_ALL_ACCOUNTS:
        return "account"
    return None


def _note_refusal(reason: str) -> None:
    route = f"{request.method} {request.url_rule.rule if request.url_rule else '?'}"
    denials.note(g.caller.name, "denied", address=address(), route=route, reason=reason)


def _holds_nul() -> bool:
    """Return whether the path or the form has a NUL, which PostgreSQL cannot store and no browser lets anybody type."""
    typed = (text for texts in request.form.listvalues() for text in texts)
    return "\0" in request.path or any("\0" in text for text in typed)


def _to_log_in() -> AnyResponse:
    wanted = request.full_path.rstrip("?") if request.method == "GET" and request.path != f"{PREFIX}/" else None
    target = url_for("console.log_in", next=wanted)
    if "HX-Request" in request.headers:  # a part of a page: the page itself has to go there
        return Response(status=401, headers={"HX-Redirect": url_for("console.log_in")})
    return redirect(target, HTTPStatus.SEE_OTHER)


@blueprint.after_app_request
def _secure(response: Response) -> Response:
    if not in_console(request.path):
        return response
    for name, value in _HEADERS.items():
        response.headers[name] = value
    if request.endpoint == "console.static" and response.status_code < 400:
        response.headers["Cache-Control"] = "private, max-age=86400"
    if over_https():
        response.headers["Strict-Transport-Security"] = "max-age=31536000"
    response.vary.update(("Accept-Language", "Cookie"))
    if request.blueprint == CONSOLE:
        response.content_language.add(language())
    return response


# --- Languages ----------------------------------------------------------------------------------------


def language() -> str:
    """Which language the present page is in: the one that was chosen, else the browser's wish."""
    chosen = session.get("language") if request.blueprint == CONSOLE else None
    if chosen in LANGUAGES:
        return str(chosen)
    # Whoever reads any Chinese reads this one; without any wish, English.
    wished = request.accept_languages.best_match([*LANGUAGES, "zh"], default="en")
    return "zh-CN" if wished.startswith("zh") else "en"


@blueprint.post("/language", endpoint="language")
def choose_language() -> AnyResponse:
    """Change the language, and come back."""
    chosen = request.form.get("language")
    if chosen in LANGUAGES:
        session["language"] = chosen
    return redirect(inside(request.form.get("next")), HTTPStatus.SEE_OTHER)


def inside(path: str | None) -> str:
    """Return a path of the console, whatever was asked for: nobody is led elsewhere."""
    path = path.removeprefix(request.script_root) if path else None
    if path and path.startswith(f"{PREFIX}/") and "\\" not in path and "//" not in path and path.isprintable():
        return request.script_root + path
    return url_for("console.home")


# --- Errors -------------------------------------------------------------------------------------------

_HEADINGS = {
    400: lazy_gettext("This page cannot be read"),
    403: lazy_gettext("This is not for you"),
    404: lazy_gettext("There is nothing here"),
    405: lazy_gettext("There is nothing here"),
    413: lazy_gettext("That is too much at once"),
    422: lazy_gettext("Something that was typed cannot be used"),
    500: lazy_gettext("Something went wrong here"),
    503: lazy_gettext("Not now"),
}
_STATUS_OF = {
    NotFound: 404,
    DatabaseUnavailable: 503,
    DatabaseMisconfigured: 503,
    Overloaded: 503,
    Invalid: 422,
    MissingExtra: 422,
    TooManyRows: 422,
    Denied: 403,
}


@blueprint.errorhandler(ReceiverError)
def _receiver_error(error: ReceiverError) -> Response:
    status = _STATUS_OF.get(type(error), 500)
    if isinstance(error, Denied):
        _note_refusal(error.code)
    if status >= 500:
        _log.error("page failed", error=str(error), status=status)
    return render("problem.html", status, heading=_HEADINGS[status], detail=_detail_of(error))


def _detail_of(error: ReceiverError) -> str:
    match error:
        case NotFound():
            return fault_words(str(error), default=str(error))  # from the console itself, it is translated already
        case Invalid():
            return " ".join(fault_words(fault["detail"]) for fault in error.errors)
        case DatabaseUnavailable() | DatabaseMisconfigured():
            text = gettext("The database is away. Pushes are kept meanwhile, nothing is lost; try again in a moment.")
        case Denied():
            text = gettext("You are bound to other accounts.")
        case Overloaded():
            text = gettext("Too much is being asked for at once; try again in a moment.")
        case TooManyRows():
            text = gettext("These are more rows than such a file can have. Narrow it, or take CSV.")
        case _:
            text = gettext("The server's log says more.")
    return str(text)


@blueprint.errorhandler(CSRFError)
def _form_too_old(error: CSRFError) -> Response:  # noqa: ARG001  (Flask's own signature)
    detail = gettext("This form is too old, or did not come from here. Go back, load the page again and repeat it.")
    return render("problem.html", 400, heading=_HEADINGS[400], detail=detail)


@blueprint.errorhandler(HTTPException)
def _http_error(error: HTTPException) -> AnyResponse:
    status = error.code or 500
    original = getattr(error, "original_exception", None)
    if original is not None:
        _log.error("page failed", exc_info=original)
    if status < 400:
        return error.get_response()
    return render("problem.html", status, heading=_HEADINGS.get(status, _HEADINGS[500]))


def faults(error: ValidationError) -> dict[str, str]:
    """Return what a schema found wrong, by field."""
    by_field: dict[str, list[str]] = error.normalized_messages()  # type: ignore[no-untyped-call]
    return {field: " ".join(dict.fromkeys(map(fault_words, texts))) for field, texts in by_field.items()}


@blueprint.get("/<path:path>")
def missing(path: str) -> Response:  # noqa: ARG001  (Flask's own signature)
    """Say that there is no such page, in the console's own words."""
    raise NotFound(gettext("There is no page under this address."))


def register(app: Flask) -> None:
    """Serve the staff pages."""
    app.session_interface = Sessions()
    app.config.update(
        SESSION_COOKIE_NAME="receiver_console",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        WTF_CSRF_CHECK_DEFAULT=False,  # the push and the API have no forms
        WTF_CSRF_TIME_LIMIT=None,  # as long as the session
        WTF_CSRF_SSL_STRICT=True,
        BABEL_DEFAULT_LOCALE="en",
    )
    _csrf.init_app(app)
    directories = f"{blueprint.root_path}/translations"
    Babel(
        app,
        locale_selector=lambda: CATALOGUES[language()],
        timezone_selector=lambda: str(runtime().settings.timezone),
        default_translation_directories=directories,
    )
    filters.register(app)
    app.jinja_env.add_extension("jinja2.ext.i18n")
    app.context_processor(_context)
    app.register_blueprint(blueprint)


def _context() -> dict[str, Any]:
    if request.blueprint != CONSOLE:
        return {}
    known = g.get("visitor")
    return {
        "visitor": known,
        "may": (lambda what: known is not None and known.may(Permission[what])),
        "language": language(),
        "languages": LANGUAGES,
        "csrf_token": generate_csrf if current_app.secret_key else (lambda: ""),
        "here": request.full_path.rstrip("?"),
        "oidc": bool(runtime().settings.oidc_issuer),
    }
