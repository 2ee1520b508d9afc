"""A small real OpenID provider on this machine, which lets everybody in at once, and can be told to cheat."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import unquote_plus, urlencode

from joserfc import jwt
from joserfc.jwk import RSAKey
from werkzeug import Request, Response

from tests.harness.http import serve_http

CLIENT_ID, CLIENT_SECRET = "receiver", "the-secret-of-the-client"
KEY, FOREIGN_KEY = (RSAKey.generate_key(2048, {"kid": "k1", "use": "sig"}) for _ in range(2))


@dataclass
class Provider:
    """Give it claims; `token` changes what the next ID tokens hold, None takes a claim out."""

    claims: dict[str, Any] = field(default_factory=lambda: {"sub": "17", "preferred_username": "li.wei"})
    token: dict[str, Any] = field(default_factory=dict)
    discovery: dict[str, Any] = field(default_factory=dict)
    userinfo: dict[str, Any] | None = None
    userinfo_signed: bool = False
    client_secret: str = CLIENT_SECRET
    key: RSAKey = field(default_factory=lambda: KEY)
    algorithm: str = "RS256"
    error: str | None = None
    asked: list[dict[str, str]] = field(default_factory=list)  # at the authorization endpoint
    exchanged: list[dict[str, str]] = field(default_factory=list)  # at the token endpoint
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._ends = ExitStack()
        self.issuer = f"http://127.0.0.1:{self._ends.enter_context(serve_http(self._serve))}/realms/staff"
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Be gone: nobody listens any more."""
        self._ends.close()

    def _serve(self, request: Request) -> Response:
        name = request.path.removeprefix("/realms/staff/").replace(".well-known/", "").replace("-", "_")
        answer: Response = getattr(self, f"_{name}")(request)
        return answer

    def _openid_configuration(self, _request: Request) -> Response:
        found = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "scopes_supported": ["openid", "profile", "email", "groups"],
            "id_token_signing_alg_values_supported": ["RS256", "none", "HS256"],
        }
        if self.userinfo is not None:
            found["userinfo_endpoint"] = f"{self.issuer}/userinfo"
        return _json(found | self.discovery)

    def _jwks(self, _request: Request) -> Response:
        keys = [KEY.as_dict(private=False), {"kty": "OKP", "crv": "of tomorrow", "kid": "k2"}]
        return _json({"keys": keys})

    def _authorize(self, request: Request) -> Response:
        asked = request.args.to_dict()
        self.asked.append(asked)
        back = {"state": asked["state"]}
        if self.error:
            back["error"] = self.error
        else:
            back["code"] = secrets.token_urlsafe(16)
            self._codes[back["code"]] = asked
        return Response(status=302, headers={"Location": f"{asked['redirect_uri']}?{urlencode(back)}"})

    def _token(self, request: Request) -> Response:
        given = request.form.to_dict()
        self.exchanged.append(given)
        who = request.authorization
        basic = [unquote_plus(part or "") for part in (who.username, who.password)] if who else []  # RFC 6749, 2.3.1
        posted = [given.get("client_id", ""), given.get("client_secret", "")]
        if (basic or posted) != [CLIENT_ID, self.client_secret]:
            return _json({"error": "invalid_client"}, 401)
        asked = self._codes.pop(given.get("code", ""), None)
        challenge = _base64(hashlib.sha256(given.get("code_verifier", "").encode()).digest())
        if (
            asked is None
            or asked["code_challenge_method"] != "S256"
            or asked["code_challenge"] != challenge
            or asked["redirect_uri"] != given["redirect_uri"]
        ):
            return _json({"error": "invalid_grant"}, 400)
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 300, "nonce": asked["nonce"]}
        claims |= self.claims | self.token
        claims = {name: value for name, value in claims.items() if value is not None}
        return _json({"access_token": "at", "token_type": "Bearer", "expires_in": 300, "id_token": self._sign(claims)})

    def _sign(self, claims: dict[str, Any]) -> str:
        if self.algorithm in ("none", "HS256"):  # the latter with what is public: the classic confusion
            parts = [_base64(json.dumps(part).encode()) for part in ({"alg": self.algorithm, "kid": "k1"}, claims)]
            seal = hmac.digest(KEY.as_pem(private=False), ".".join(parts).encode(), hashlib.sha256)
            return ".".join([*parts, "" if self.algorithm == "none" else _base64(seal)])
        return jwt.encode({"alg": self.algorithm, "kid": "k1"}, claims, self.key)

    def _userinfo(self, request: Request) -> Response:
        assert request.headers["Authorization"] == "Bearer at"
        if self.userinfo_signed:
            assert self.userinfo is not None
            return Response(self._sign(self.userinfo), mimetype="application/jwt")
        return _json(self.userinfo)


def _base64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _json(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value), status=status, mimetype="application/json")
