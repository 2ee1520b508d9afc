"""Login by OpenID Connect: the company's provider identifies the user and their role.

The authorization code flow with PKCE. The libraries are the extra `oidc`, loaded at the first login.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
import threading
import time
import unicodedata
from base64 import b64encode
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus, urlencode

from flask import redirect, request, session, url_for
from flask_babel import gettext

from receiver.auth import service, users
from receiver.auth.users import NAME, Role, User
from receiver.config import Settings, secure_url
from receiver.core import NameTaken, NotFound
from receiver.net.egress import fetch
from receiver.net.egress_policy import EgressError
from receiver.observability import get_logger
from receiver.web import runtime
from receiver.web.console.login import enter
from receiver.web.console.pages import blueprint, inside, render
from receiver.web.console.session import address, over_https

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, MutableMapping

    from werkzeug.wrappers import Response

    from receiver.net.egress_client import EgressResponse


_log = get_logger(__name__)

_PENDING = "oidc"  # session key of the pending login
_FOLLOWING_MAX_CHARS = 1000  # it is stored in a cookie, which holds 4096 bytes
_LASTS_SECONDS = 600
_TIMEOUT_SECONDS = 5
_ANSWER_MAX_BYTES = 1024 * 1024  # a large provider has many keys
_LEEWAY_SECONDS = 60  # between the provider's clock and ours
# Asymmetric signatures only: neither `none` nor one that our own secret could make.
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
# Logins need no authentication and wait for the provider: a slow provider must not hold every thread.
_talks = threading.BoundedSemaphore(4)


class _Refused(Exception):
    """The login is refused; `reason` is for log and audit, the text for the user."""

    def __init__(self, status: int, reason: str, text: str, name: str | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.text, self.name = status, reason, text, name


@blueprint.get("/oidc")
def oidc_begin() -> Response:
    """Redirect the browser to the provider."""
    settings = _settings()
    runtime().require_database()  # the key of session cookies is stored there
    following = inside(request.args.get("next"))
    pending: dict[str, Any] = {
        "state": secrets.token_urlsafe(24),
        "nonce": secrets.token_urlsafe(24),
        "verifier": secrets.token_urlsafe(48),
        "at": int(time.time()),
        "next": following if len(following) <= _FOLLOWING_MAX_CHARS else None,
    }
    try:
        with _talk(settings) as client:
            provider = _discover(client, settings)
            scope = "openid profile email"
            if "groups" in (provider.get("scopes_supported") or ()):
                scope += " groups"
            target, _ = client.create_authorization_url(
                provider["authorization_endpoint"],
                state=pending["state"],
                nonce=pending["nonce"],
                code_verifier=pending["verifier"],
                scope=scope,
            )
    except _Refused as refusal:
        return _refusal_page(refusal, following)
    session[_PENDING] = pending
    return redirect(target, HTTPStatus.SEE_OTHER)


@blueprint.get("/oidc/done")
def oidc_done() -> Response:
    """Take the provider's answer and log the user in."""
    settings = _settings()
    runtime().require_database()
    pending: Mapping[str, Any] = session.pop(_PENDING, None) or {}
    following = pending.get("next")
    try:
        user = _admit(settings, _fetch_claims(settings, _code(pending), pending))
    except _Refused as refusal:
        _log.warning("OpenID Connect login refused", reason=refusal.reason, user=refusal.name)
        detail = {"by": "oidc", "reason": refusal.reason, "name": refusal.name}
        runtime().audit("console", "login.failed", address=address(), **detail)
        return _refusal_page(refusal, following)
    enter(user, confirmed=True, by="oidc")  # the provider is responsible for a second factor
    return redirect(inside(following), HTTPStatus.SEE_OTHER)


def _settings() -> Settings:
    settings = runtime().settings
    if not settings.oidc_issuer:
        raise NotFound(gettext("There is no page at this address."))
    return settings


def _refusal_page(refusal: _Refused, following: str | None) -> Response:
    # A change of language leads back to the login page: this answer cannot be loaded twice.
    shown = {"here": url_for("console.log_in", next=following)}
    if refusal.status == HTTPStatus.FORBIDDEN:
        return render("problem.html", 403, heading=gettext("Access denied"), detail=refusal.text, **shown)
    return render("login.html", refusal.status, following=following or "", error=refusal.text, **shown)


def _code(pending: Mapping[str, Any]) -> str:
    """Return the code that the browser brought back. Raises _Refused."""
    state, fitting = request.args.get("state", ""), pending.get("state", "")
    fresh = 0 <= time.time() - pending.get("at", 0) <= _LASTS_SECONDS
    if not fitting or not fresh or not hmac.compare_digest(state.encode(errors="replace"), fitting.encode()):
        text = gettext("This login was not started in this browser, or over ten minutes ago. Log in again.")
        raise _Refused(400, "state", text)
    if error := request.args.get("error"):
        reason = error if re.fullmatch(r"[a-z_]{1,40}", error, re.ASCII) else "error"
        text = gettext("Your company's login denied access (%(reason)s).", reason=reason)
        raise _Refused(401, f"provider: {reason}", text)
    return request.args.get("code", "")


# --- Requests to the provider -------------------------------------------------------------------------


class _Unusable(EgressError, ValueError):
    """An answer of the provider that is none."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer of the provider, with as much of a `requests.Response` as authlib needs."""

    response: EgressResponse

    @property
    def status_code(self) -> int:
        return self.response.status

    @property
    def text(self) -> str:
        return self.response.body.decode(errors="replace")

    def json(self) -> Any:
        try:
            return json.loads(self.response.body)
        except ValueError:
            raise _Unusable("no JSON") from None

    def raise_for_status(self) -> None:
        if not 200 <= self.status_code < 300:
            raise _Unusable(f"HTTP status {self.status_code}")


class _Session:
    """Requests to the provider, with as much of a `requests.Session` as authlib needs. Raises EgressError."""

    def get(self, url: str, token: str | None = None) -> _Answer:
        answer = self._ask("GET", url, {} if token is None else {"Authorization": f"Bearer {token}"}, b"")
        answer.raise_for_status()
        return answer

    def post(self, url: str, *, data: Mapping[str, str], headers: Mapping[str, str], auth: Any) -> _Answer:
        url, proved, body = auth.prepare("POST", url, dict(headers), urlencode(data))
        return self._ask("POST", url, proved, body.encode())

    @staticmethod
    def _ask(method: str, url: str, headers: Mapping[str, str], body: bytes) -> _Answer:
        about = {"User-Agent": "receiver", "Accept": "application/json, */*", **headers}
        answer = fetch(method, url, about, body, seconds=_TIMEOUT_SECONDS, answer_max_bytes=_ANSWER_MAX_BYTES)
        if not answer.whole:
            raise _Unusable(f"an answer over {_ANSWER_MAX_BYTES} bytes")
        return _Answer(answer)


@contextmanager
def _talk(settings: Settings) -> Iterator[Any]:
    """Yield a client for the provider. Raises _Refused for every error of it."""
    from authlib.common.errors import AuthlibBaseError  # noqa: PLC0415  (an extra)
    from authlib.oauth2.client import OAuth2Client  # noqa: PLC0415
    from joserfc.errors import JoseError  # noqa: PLC0415

    if not _talks.acquire(blocking=False):
        raise _unavailable("busy")
    try:
        yield OAuth2Client(
            _Session(),
            settings.oidc_client_id,
            settings.oidc_client_secret,
            redirect_uri=_redirect_uri(settings),
            code_challenge_method="S256",
        )
    except EgressError as error:
        raise _unavailable(str(error)) from None
    except AuthlibBaseError as error:
        raise _untrue(str(error.error)[:60]) from None
    except (JoseError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise _untrue(f"{type(error).__name__} {getattr(error, 'claim', '')}".strip()) from None
    finally:
        _talks.release()


def _unavailable(reason: str) -> _Refused:
    _log.error("OpenID provider unusable", reason=reason)
    text = gettext("Your company's login does not respond. Try again in a moment, or use a password.")
    return _Refused(503, f"provider: {reason}", text)


def _untrue(reason: str) -> _Refused:
    text = gettext(
        "The answer of your company's login could not be verified. Log in again, and inform an administrator."
    )
    return _Refused(401, f"answer: {reason}", text)


def _redirect_uri(settings: Settings) -> str:
    if settings.public_url and settings.internal_bind is None:
        return settings.public_url + url_for("console.oidc_done").removeprefix(request.script_root)
    return url_for("console.oidc_done", _external=True, _scheme="https" if over_https() else "http")


def _discover(client: Any, settings: Settings) -> dict[str, Any]:
    """Return the provider's configuration. Raises _Refused for another issuer or unsafe addresses."""
    root = settings.oidc_issuer.rstrip("/")
    found: dict[str, Any] = client.session.get(f"{root}/.well-known/openid-configuration").json()
    try:
        if found["issuer"].rstrip("/") != root:
            raise ValueError("another issuer")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            secure_url(found[name])
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise _unavailable(f"discovery: {error}") from None
    return found


def _proof(settings: Settings, methods: list[str] | None) -> str | Callable[..., tuple[Any, ...]]:
    """Return the client's authentication method, as authlib names it.

    For Basic, RFC 6749 (2.3.1) requires form-encoded id and secret. Some providers do not decode them: if encoding
    changes them, another method is preferred.
    """
    plain = all(quote_plus(text) == text for text in (settings.oidc_client_id, settings.oidc_client_secret))
    if methods and ("client_secret_basic" not in methods or (not plain and "client_secret_post" in methods)):
        return "client_secret_post"
    return _prove_by_basic


def _prove_by_basic(
    client: Any, _method: str, uri: str, headers: MutableMapping[str, str], body: Any
) -> tuple[Any, ...]:
    pair = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret)}"
    headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
    return uri, headers, body


def _fetch_claims(settings: Settings, code: str, pending: Mapping[str, Any]) -> dict[str, Any]:
    """Return the verified claims of the user with this code. Raises _Refused."""
    from authlib.oidc.core import CodeIDToken  # noqa: PLC0415  (an extra)
    from joserfc import jwt  # noqa: PLC0415
    from joserfc.jwk import KeySet  # noqa: PLC0415
    from joserfc.jws import JWSRegistry  # noqa: PLC0415

    with _talk(settings) as client:
        provider = _discover(client, settings)
        client.token_endpoint_auth_method = _proof(settings, provider.get("token_endpoint_auth_methods_supported"))
        token = client.fetch_token(provider["token_endpoint"], code=code, code_verifier=pending["verifier"])
        keys = [key for key in client.session.get(provider["jwks_uri"]).json()["keys"] if _signs(key)]
        decode = partial(
            jwt.decode,
            key=KeySet.import_key_set({"keys": keys}),
            registry=JWSRegistry(algorithms=_ALGORITHMS, strict_check_header=False),
        )
        read = decode(token["id_token"])
        options = {
            "iss": {"essential": True, "value": provider["issuer"]},
            "aud": {"essential": True, "value": settings.oidc_client_id},
            "sub": {"essential": True},
        }
        expected = {
            "nonce": pending["nonce"],
            "client_id": settings.oidc_client_id,
            "access_token": token.get("access_token"),
        }
        proved = CodeIDToken(read.claims, read.header, options, expected)
        proved.validate(leeway=_LEEWAY_SECONDS)
        claims = dict(proved)
        # Some providers send groups and names only there.
        if _at(claims, settings.oidc_claim) is None and (endpoint := provider.get("userinfo_endpoint")):
            more = _read_userinfo(client.session.get(secure_url(endpoint), token["access_token"]), decode)
            if more["sub"] != claims["sub"]:
                raise ValueError("of another user")
            claims = more | claims
        return claims


def _read_userinfo(answer: _Answer, decode: Callable[[str], Any]) -> dict[str, Any]:
    """Return the claims of the userinfo endpoint, as JSON or signed. Raises JoseError."""
    signed = (answer.response.header("Content-Type") or "").partition(";")[0].strip().lower() == "application/jwt"
    found: dict[str, Any] = decode(answer.text.strip()).claims if signed else answer.json()
    return found


def _signs(key: Mapping[str, Any]) -> bool:
    return key.get("kty") in ("RSA", "EC") and key.get("use", "sig") == "sig"


# --- Users --------------------------------------------------------------------------------------------


def _admit(settings: Settings, claims: Mapping[str, Any]) -> User:
    """Return the user of these claims, created or updated. Raises _Refused."""
    services, role = runtime(), _role_of(settings, claims)
    now = services.now()
    subject = f"{claims['iss']}|{claims['sub']}"
    user = services.ask_present(lambda connection: users.find_user_of_subject(connection, subject))
    name = user.name if user else _name_of(claims)
    if user is not None and user.disabled_at is not None:
        raise _Refused(403, "disabled", gettext("An administrator has disabled your access."), name)
    if role is None:
        if user is not None:
            user_id = user.id
            services.database.write(lambda connection: users.end_sessions_of(connection, user_id, now=now))
        text = gettext(
            "Your company account has no role in this system (claim: %(claim)s). Ask the administrator of the company"
            " accounts.",
            claim=settings.oidc_claim,
        )
        raise _Refused(403, f"no role in {settings.oidc_claim}", text, name)
    if user is None:
        user = _create(name, role, subject)
    elif user.role is not role:
        service.set_role(services.trail, "oidc", user, role)
    return user


def _create(name: str, role: Role, subject: str) -> User:
    try:
        return service.create_user(runtime().trail, "oidc", name=name, role=role, oidc_subject=subject)
    except NameTaken:
        text = gettext(
            "The name %(name)s already belongs to another user of this system. Ask an administrator.",
            name=name,
        )
        raise _Refused(403, "name taken", text, name) from None


def _role_of(settings: Settings, claims: Mapping[str, Any]) -> Role | None:
    found = _at(claims, settings.oidc_claim)
    held = found if isinstance(found, list) else [found]
    fitting = [Role(role) for value, role in settings.oidc_roles if value in held]
    return max(fitting, key=list(Role).index, default=None)


def _at(claims: Mapping[str, Any], path: str) -> Any:
    """Return the claim with that exact name, else the one at that dotted path; None: there is none."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _name_of(claims: Mapping[str, Any]) -> str:
    """Return a valid user name made from the claims."""
    for claim in ("preferred_username", "email", "sub"):
        plain = unicodedata.normalize("NFKC", str(claims.get(claim) or ""))
        name = re.sub(r"[^\w.@+-]+", "-", plain).strip("-")[:64]
        if NAME.fullmatch(name):
            return name
    raise _untrue("no name")
