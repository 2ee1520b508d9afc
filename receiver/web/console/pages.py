"""Shared parts of the staff pages: access checks, security headers, languages, error pages."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

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
from receiver.messages.export_columns import LISTED_ROWS
from receiver.translations import CATALOGUES, DIRECTORY
from receiver.web import denials, runtime
from receiver.web.auth import CONSOLE
from receiver.web.console import filters
from receiver.web.console.error_texts import fault_words
from receiver.web.console.navigation import find_navigation
from receiver.web.console.session import (
    POLICIES,
    PREFIX,
    Access,
    Permission,
    Sessions,
    address,
    find_current_user,
    in_console,
    over_https,
    reason_against,
)
from receiver.web.errors import Denied, Invalid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flask import Flask
    from marshmallow import ValidationError
    from werkzeug.wrappers import Response as AnyResponse


# Language tag: name.
LANGUAGES: Mapping[str, str] = {"zh-CN": "中文", "en": "English"}

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
    """Return a rendered page."""
    return Response(render_template(f"console/{template}", **values), status=status)


def ask_first(question: str, detail: str, yes: str, *, back: str) -> Response | None:
    """Return a page that asks before what cannot be undone, with the form to send again; None: the user has agreed."""
    if request.form.get("sure") == "yes":
        return None
    fields = [(name, text) for name, text in request.form.items(multi=True) if name not in ("csrf_token", "sure")]
    return render("confirm.html", question=question, detail=detail, yes=yes, back=back, fields=fields)


@blueprint.before_request
def _check() -> AnyResponse | None:
    policy = POLICIES.get(request.endpoint or "")
    if _holds_nul():
        abort(HTTPStatus.BAD_REQUEST)
    if not current_app.secret_key and request.endpoint != "console.static":
        raise DatabaseUnavailable("the key for cookies and forms has not been read from the database yet")
    if policy is Access.OPEN:
        _require_own_form()
        return None
    found = find_current_user()
    if found is None:
        return _to_log_in()  # whatever the form says, nothing is done
    g.current_user, g.caller = found, found.caller
    _require_own_form()
    if not found.confirmed and policy is not Access.PENDING_2FA:
        return redirect(url_for("console.second_factor", next=way_back()), HTTPStatus.SEE_OTHER)
    reason = reason_against(found, request.endpoint, policy)
    if reason is not None:
        _audit_refusal(reason)
        return render("problem.html", 403, heading=_REFUSALS[reason])
    return None


def _require_own_form() -> None:
    """Raise CSRFError for a form that is not of this browser's session."""
    if request.method == "POST":
        _csrf.protect()


_REFUSALS = {
    "closed": lazy_gettext("This page is not available"),
    "role": lazy_gettext("Your role has no access to this page"),
    "account": lazy_gettext("Your access is limited to some accounts, and this page concerns all of them"),
}


def _audit_refusal(reason: str) -> None:
    route = f"{request.method} {request.url_rule.rule if request.url_rule else '?'}"
    denials.record(g.caller.name, "denied", address=address(), route=route, reason=reason)


def _holds_nul() -> bool:
    """Return whether path or form contain NUL, which PostgreSQL cannot store and browsers do not send."""
    typed = (text for texts in request.form.listvalues() for text in texts)
    return "\0" in request.path or any("\0" in text for text in typed)


def _to_log_in() -> AnyResponse:
    target = url_for("console.log_in", next=way_back())
    if "HX-Request" in request.headers:  # a fragment: the whole page has to be redirected
        return Response(status=401, headers={"HX-Redirect": target})
    return redirect(target, HTTPStatus.SEE_OTHER)


@blueprint.after_app_request
def _secure(response: Response) -> Response:
    if not in_console(request.path):
        return response
    for name, value in _HEADERS.items():
        response.headers[name] = value
    if response.mimetype == "image/svg+xml":  # its styles stand in the file
        response.headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
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
    """Return the language of the current page: the chosen one, else the browser's."""
    chosen = session.get("language") if request.blueprint == CONSOLE else None
    if chosen in LANGUAGES:
        return str(chosen)
    # Every kind of Chinese maps to this one; the default is English.
    wished = request.accept_languages.best_match([*LANGUAGES, "zh"], default="en")
    return "zh-CN" if wished.startswith("zh") else "en"


@blueprint.post("/language", endpoint="language")
def choose_language() -> AnyResponse:
    """Change the language, and redirect back."""
    chosen = request.form.get("language")
    if chosen in LANGUAGES:
        session["language"] = chosen
    return redirect(inside(request.form.get("next")), HTTPStatus.SEE_OTHER)


def inside(path: str | None) -> str:
    """Return a path within the console; other paths become the home page, so that no link redirects elsewhere."""
    path = path.removeprefix(request.script_root) if path else None
    if path and path.startswith(f"{PREFIX}/") and "\\" not in path and "//" not in path and path.isprintable():
        return request.script_root + path
    return url_for("console.home")


def way_back() -> str | None:
    """Return the page to return to after a log-in: the one asked for, or the one whose form or fragment this is."""
    if request.endpoint == "console.log_out":
        return None
    if POLICIES.get(request.endpoint or "") is Access.PENDING_2FA:
        return request.values.get("next")
    if "HX-Request" in request.headers:
        return _page_at(request.headers.get("HX-Current-URL", ""))
    if request.method == "GET":
        return request.full_path.rstrip("?") if request.path != f"{PREFIX}/" else None
    return _page_at(request.referrer or "")


def _page_at(url: str) -> str | None:
    """Return the nearest page at or above an address in the console; None: the home page.

    The answer to a form may stand at an address that only takes forms.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    path, query = parts.path.removeprefix(request.script_root), parts.query
    while path.startswith(f"{PREFIX}/") and path != f"{PREFIX}/":
        if _is_page(path):
            return f"{path}?{query}" if query else path
        path, query = path.rpartition("/")[0], ""
    return None


_FRAGMENTS = frozenset({"console.banner", "console.found_answer", "console.missing"})


def _is_page(path: str) -> bool:
    try:
        endpoint, _ = current_app.url_map.bind("").match(path, method="GET")
    except HTTPException:
        return False
    return endpoint not in _FRAGMENTS and POLICIES.get(endpoint) not in (None, Access.OPEN, Access.PENDING_2FA)


# --- Errors -------------------------------------------------------------------------------------------

_HEADINGS = {
    400: lazy_gettext("The request cannot be processed"),
    403: lazy_gettext("Access denied"),
    404: lazy_gettext("Page not found"),
    405: lazy_gettext("Page not found"),
    413: lazy_gettext("Request too large"),
    422: lazy_gettext("Invalid input"),
    500: lazy_gettext("Something went wrong"),
    503: lazy_gettext("Temporarily unavailable"),
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
        _audit_refusal(error.code)
    if status >= 500:
        g.fault = error  # for the request's line in the log
    return render("problem.html", status, heading=_HEADINGS[status], detail=_detail_of(error))


def _detail_of(error: ReceiverError) -> str:
    match error:
        case NotFound():
            return fault_words(error.args[0], default=str(error))  # the console's own texts are translated already
        case Invalid():
            return " ".join(fault_words(fault["detail"]) for fault in error.errors)
        case DatabaseUnavailable() | DatabaseMisconfigured():
            text = gettext(
                "The database is unavailable. Pushes are still saved and nothing is lost. Try again in a moment."
            )
        case Denied():
            text = gettext("You have no access to this account.")
        case Overloaded():
            text = gettext("Too many requests. Try again in a moment.")
        case TooManyRows() if not g.current_user.may(Permission.EXPORT):
            text = gettext(
                "More than %(rows)s rows. Narrow the filters, for example to one day or one state.",
                rows=filters.number(LISTED_ROWS),
            )
        case TooManyRows():
            text = gettext("Too many rows for this format. Narrow the filters or choose CSV.")
        case _:
            text = gettext("See the server's log for details.")
    return str(text)


@blueprint.errorhandler(CSRFError)
def _form_too_old(error: CSRFError) -> Response:  # noqa: ARG001  (Flask's own signature)
    detail = gettext("This form has expired or came from another site. Open its page again and send it from there.")
    known = g.get("current_user") is not None
    typed = [text for name, text in request.form.items() if known and text and name not in _NOT_SHOWN_AGAIN]
    back = inside(_page_at(request.referrer or ""))
    return render("problem.html", 400, heading=_HEADINGS[400], detail=detail, form_page=back, typed=typed)


# Never shown again where a form is refused. The names of the fields stand in the templates.
_NOT_SHOWN_AGAIN = frozenset(
    {
        "csrf_token",
        "next",
        "action",
        "language",
        "password",
        "present",
        "new",
        "code",
        "recovery_code",
        "headers",
        "url",
    }
)


@blueprint.errorhandler(HTTPException)
def _http_error(error: HTTPException) -> AnyResponse:
    status = error.code or 500
    original = getattr(error, "original_exception", None)
    if original is not None:
        g.fault = original
    if status < 400:
        return error.get_response()
    return render("problem.html", status, heading=_HEADINGS.get(status, _HEADINGS[500]))


def faults(error: ValidationError) -> dict[str, str]:
    """Return validation errors by field, in the page's language."""
    by_field: dict[str, list[str]] = error.normalized_messages()  # type: ignore[no-untyped-call]
    return {field: " ".join(dict.fromkeys(map(fault_words, texts))) for field, texts in by_field.items()}


@blueprint.get("/<path:path>")
def missing(path: str) -> Response:  # noqa: ARG001  (Flask's own signature)
    """Answer unknown paths with the console's own page."""
    raise NotFound(gettext("There is no page at this address."))


def register(app: Flask) -> None:
    """Serve the staff pages."""
    app.session_interface = Sessions()
    app.config.update(
        SESSION_COOKIE_NAME="receiver_console",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        WTF_CSRF_CHECK_DEFAULT=False,  # the push and the API have no forms
        WTF_CSRF_TIME_LIMIT=None,  # valid as long as the session
        WTF_CSRF_SSL_STRICT=True,
        BABEL_DEFAULT_LOCALE="en",
    )
    _csrf.init_app(app)
    Babel(
        app,
        locale_selector=lambda: CATALOGUES[language()],
        timezone_selector=lambda: str(runtime().settings.timezone),
        default_translation_directories=str(DIRECTORY),
    )
    filters.register(app)
    app.jinja_env.add_extension("jinja2.ext.i18n")
    app.context_processor(_context)
    app.register_blueprint(blueprint)


def _context() -> dict[str, Any]:
    if request.blueprint != CONSOLE:
        return {}
    known = g.get("current_user")
    return {
        "current_user": known,
        "console_name": runtime().settings.console_name,
        "navigation": find_navigation(known) if known and known.confirmed and not known.view_only else [],
        "may": (lambda what: known is not None and known.may(Permission[what])),
        "language": language(),
        "languages": LANGUAGES,
        "csrf_token": generate_csrf if current_app.secret_key else (lambda: ""),
        "here": request.full_path.rstrip("?"),
        "oidc": bool(runtime().settings.oidc_issuer),
    }
