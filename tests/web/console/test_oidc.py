"""Logging in by OpenID Connect, at a real provider: who is let in as what, and every answer that is not believed."""

from __future__ import annotations

import http.client
import os
import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import time_machine
from joserfc import jwt
from werkzeug.wrappers import Response

from receiver.app import create_app
from receiver.audit import list_audit
from receiver.auth import changes, users
from receiver.auth.passwords import hash_password
from receiver.auth.users import Role
from receiver.config import ROLES, load_settings
from receiver.core import SettingsError
from receiver.web.console import oidc as oidc_pages
from tests.harness.oidc_provider import CLIENT_ID, CLIENT_SECRET, FOREIGN_KEY, Provider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from flask.testing import FlaskClient
    from werkzeug.test import TestResponse

    from receiver.runtime import Runtime

HOME = "/console/"
ROLES_OF = (("sms-admins", "admin"), ("helpdesk", "support"), ("bi", "analyst"))
PASSWORD = "correct horse battery"


@dataclass
class Company:
    """A receiver, its provider, and browsers."""

    runtime: Runtime
    provider: Provider

    def __post_init__(self) -> None:
        self.app = create_app(self.runtime)

    def browser(self) -> FlaskClient:
        return self.app.test_client()

    def answer(self, browser: FlaskClient, following: str | None = None) -> str:
        """Begin, and go to the provider; give the address to which it sends back."""
        begun = browser.get("/console/oidc", query_string={"next": following} if following else {})
        assert begun.status_code == 303, begun.text
        return visit(begun.headers["Location"])

    def log_in(self, *, browser: FlaskClient | None = None, following: str | None = None) -> TestResponse:
        browser = browser or self.browser()
        return browser.get(self.answer(browser, following))

    def user(self, name: str) -> users.User | None:
        return self.runtime.ask(lambda connection: users.find_user(connection, name))

    def audited(self, action: str) -> list[Any]:
        lines = self.runtime.ask(lambda connection: list_audit(connection, 100))
        return [line for line in lines if line["action"] == action]

    def require_refused(self, response: TestResponse, status: int, reason: str) -> None:
        """Nobody is in, the page says so, and log and audit know why."""
        assert response.status_code == status, response.text
        assert reason in self.audited("login.failed")[0]["detail"]["reason"]
        assert not self.audited("login")
        assert "code=" not in response.text


def visit(url: str) -> str:
    """Ask for a page as a browser does; give where it leads."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}")
        location = connection.getresponse().headers["Location"]
    finally:
        connection.close()
    back = urlsplit(location)
    return f"{back.path}?{back.query}"


def changed(address: str, **values: str) -> str:
    """The same address with other values."""
    path, _, query = address.partition("?")
    return f"{path}?{urlencode({name: held[0] for name, held in parse_qs(query).items()} | values)}"


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as running:
        running.claims["groups"] = ["everyone", "helpdesk"]
        yield running


@pytest.fixture
def company(make_runtime: Callable[..., Runtime], provider: Provider) -> Company:
    return Company(make_runtime(**oidc(provider)), provider)


def oidc(provider: Provider, **changes: Any) -> dict[str, Any]:
    return {
        "oidc_issuer": provider.issuer,
        "oidc_client_id": CLIENT_ID,
        "oidc_client_secret": CLIENT_SECRET,
        "oidc_roles": ROLES_OF,
        **changes,
    }


# --- Who is let in ------------------------------------------------------------------------------------


def test_the_first_log_in_makes_a_user_and_leads_on_and_the_second_finds_it(company: Company) -> None:
    browser = company.browser()
    response = company.log_in(browser=browser, following="/console/messages?state=delivered")
    assert (response.status_code, response.headers["Location"]) == (303, "/console/messages?state=delivered")
    user = company.user("li.wei")
    assert (user.role, user.oidc_subject, user.password_hash) == (Role.SUPPORT, f"{company.provider.issuer}|17", None)
    assert browser.get("/console/account").status_code == 200
    assert company.log_in().headers["Location"] == HOME
    assert len(company.runtime.ask(users.list_users)) == 1
    (second, first) = company.audited("login")
    assert (first["actor"], first["detail"]["by"], second["detail"]["by"]) == ("user:li.wei", "oidc", "oidc")
    assert len(company.audited("user.create")) == 1


def test_the_provider_gets_the_challenge_first_and_its_verifier_then(company: Company) -> None:
    company.log_in()
    (asked,), (exchanged,) = company.provider.asked, company.provider.exchanged
    assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
    assert asked["scope"] == "openid profile email groups"
    assert asked["redirect_uri"] == "http://localhost/console/oidc/done"
    assert len(exchanged["code_verifier"]) >= 43
    assert exchanged["code_verifier"] not in str(asked)
    company.provider.asked.clear()
    company.log_in()
    assert company.provider.asked[0]["nonce"] != asked["nonce"]


def test_the_public_url_is_where_the_provider_sends_back_to(
    make_runtime: Callable[..., Runtime], provider: Provider
) -> None:
    company = Company(make_runtime(**oidc(provider, public_url="https://sms.example.com")), provider)
    assert company.log_in().status_code == 303
    assert provider.asked[0]["redirect_uri"] == "https://sms.example.com/console/oidc/done"


@pytest.mark.parametrize(
    ("claims", "claim", "role"),
    [
        ({"groups": ["bi", "sms-admins", "helpdesk"]}, "groups", Role.ADMIN),
        ({"groups": "bi"}, "groups", Role.ANALYST),
        ({"realm_access": {"roles": ["helpdesk"]}}, "realm_access.roles", Role.SUPPORT),
        ({"https://example.com/roles": ["helpdesk"]}, "https://example.com/roles", Role.SUPPORT),
    ],
)
def test_the_highest_role_that_fits_wins(
    claims: dict[str, Any], claim: str, role: Role, make_runtime: Callable[..., Runtime], provider: Provider
) -> None:
    provider.claims = {"sub": "17", "preferred_username": "li.wei"} | claims
    company = Company(make_runtime(**oidc(provider, oidc_claim=claim)), provider)
    assert company.log_in().status_code == 303
    assert company.user("li.wei").role is role


def test_a_changed_role_holds_from_the_next_log_in_and_ends_the_others(company: Company) -> None:
    browser = company.browser()
    company.log_in(browser=browser)
    company.provider.claims["groups"] = ["sms-admins"]
    assert company.log_in().status_code == 303
    assert company.user("li.wei").role is Role.ADMIN
    assert browser.get("/console/account").status_code == 303
    assert company.audited("user.role")[0]["detail"] == {"name": "li.wei", "role": "admin"}


def test_who_has_no_role_any_more_is_out_everywhere(company: Company) -> None:
    browser = company.browser()
    company.log_in(browser=browser)
    company.provider.claims["groups"] = ["everyone"]
    assert company.log_in().status_code == 403
    assert browser.get("/console/account").status_code == 303


@pytest.mark.parametrize("claims", [{"groups": ["everyone"]}, {"groups": None}, {"groups": {"helpdesk": 1}}])
def test_without_a_role_the_page_says_where_it_was_looked_for(company: Company, claims: dict[str, Any]) -> None:
    company.provider.claims |= claims
    response = company.log_in()
    company.require_refused(response, 403, "no role in groups")
    assert "claim: groups" in response.text
    assert company.user("li.wei") is None


@pytest.mark.parametrize("by_oidc", [False, True])
def test_nobody_is_let_in_as_somebody_else_of_that_name(company: Company, by_oidc: bool) -> None:
    subject = "https://other.example.com|17" if by_oidc else None
    company.runtime.database.write(
        lambda connection: changes.create_user(
            connection, name="li.wei", role=Role.ADMIN, now=company.runtime.now(), oidc_subject=subject
        )
    )
    browser = company.browser()
    response = company.log_in(browser=browser)
    company.require_refused(response, 403, "name taken")
    assert "li.wei" in response.text
    assert (company.user("li.wei").role, company.user("li.wei").oidc_subject) == (Role.ADMIN, subject)
    assert browser.get("/console/account").status_code == 303


def test_who_is_kept_out_stays_out(company: Company) -> None:
    company.log_in()
    now = company.runtime.now()
    company.runtime.database.write(lambda c: changes.change_user(c, "li.wei", now=now, disabled_at=now))
    browser = company.browser()
    assert company.log_in(browser=browser).status_code == 403
    assert company.audited("login.failed")[0]["detail"]["reason"] == "disabled"
    assert browser.get("/console/account").status_code == 303


def test_the_name_is_made_to_fit(company: Company) -> None:
    for claims, name in (
        ({"preferred_username": "CORP\\Li Wei"}, "CORP-Li-Wei"),
        ({"preferred_username": "李伟"}, "李伟"),
        ({"preferred_username": "x" * 80}, "x" * 64),
        ({"preferred_username": None, "email": "li@example.com"}, "li@example.com"),
        ({"preferred_username": " ", "sub": "auth0|17"}, "auth0-17"),
    ):
        company.provider.claims = {"sub": name, "groups": ["helpdesk"]} | claims
        assert company.log_in().status_code == 303, claims
        assert company.user(name), claims


def test_what_the_token_leaves_out_is_asked_for(company: Company) -> None:
    del company.provider.claims["groups"]
    company.provider.userinfo = {"sub": "17", "groups": ["sms-admins"], "preferred_username": "other"}
    assert company.log_in().status_code == 303
    assert company.user("li.wei").role is Role.ADMIN
    company.provider.userinfo["sub"] = "18"
    assert company.log_in().status_code == 401


def test_a_client_that_has_to_post_its_secret_does(company: Company) -> None:
    company.provider.discovery["token_endpoint_auth_methods_supported"] = ["client_secret_post"]
    assert company.log_in().status_code == 303
    assert company.provider.exchanged[0]["client_secret"] == CLIENT_SECRET


def test_what_is_asked_for_may_be_signed(company: Company) -> None:
    del company.provider.claims["groups"]
    company.provider.userinfo, company.provider.userinfo_signed = {"sub": "17", "groups": ["bi"]}, True
    assert company.log_in().status_code == 303
    assert company.user("li.wei").role is Role.ANALYST


def test_what_is_asked_for_and_signed_by_another_is_refused(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    del company.provider.claims["groups"]
    company.provider.userinfo = {"sub": "17", "groups": ["sms-admins"]}
    forged = Response(jwt.encode({"alg": "RS256", "kid": "k1"}, company.provider.userinfo, FOREIGN_KEY))
    forged.mimetype = "application/jwt"
    monkeypatch.setattr(Provider, "_userinfo", lambda *_: forged)
    company.require_refused(company.log_in(), 401, "BadSignatureError")


@pytest.mark.parametrize("methods", [None, ["client_secret_basic"], ["client_secret_basic", "client_secret_post"]])
@pytest.mark.parametrize("secret", ["plain-_.~", "a+b/c=", "50%2B", "q:w", "密码"])
def test_secret_may_have_any_character(
    secret: str, methods: list[str] | None, make_runtime: Callable[..., Runtime], provider: Provider
) -> None:
    provider.client_secret = secret
    if methods:
        provider.discovery["token_endpoint_auth_methods_supported"] = methods
    company = Company(make_runtime(**oidc(provider, oidc_client_secret=secret)), provider)
    assert company.log_in().status_code == 303
    posted = company.provider.exchanged[0].get("client_secret")
    assert posted == (secret if methods and len(methods) == 2 and secret != "plain-_.~" else None)


def test_nobody_is_led_elsewhere(company: Company) -> None:
    for target in ("https://evil.example", "//evil.example", "/\\evil.example", "/console//evil.example", "/x"):
        assert company.log_in(following=target).headers["Location"] == HOME, target


def test_an_address_too_long_for_the_cookie_is_left_out(company: Company) -> None:
    assert company.log_in(following=f"/console/messages?q={'x' * 3000}").headers["Location"] == HOME


# --- What is not believed -----------------------------------------------------------------------------


def test_a_token_that_is_not_for_us_now_is_refused(company: Company) -> None:
    tokens: list[tuple[dict[str, Any], str]] = [
        ({"nonce": "another"}, "nonce"),
        ({"nonce": None}, "nonce"),
        ({"aud": "another"}, "aud"),
        ({"aud": [CLIENT_ID, "another"]}, "azp"),
        ({"aud": [CLIENT_ID, "another"], "azp": "another"}, "azp"),
        ({"iss": "https://evil.example"}, "iss"),
        ({"exp": int(time.time()) - 300}, "Expired"),
        ({"exp": None}, "exp"),
        ({"sub": None}, "sub"),
        ({"sub": ""}, "sub"),
        ({"at_hash": "x" * 22}, "at_hash"),
    ]
    for company.provider.token, reason in tokens:
        company.require_refused(company.log_in(), 401, reason)
    assert company.user("li.wei") is None


@pytest.mark.parametrize(("ahead", "status"), [(45, 303), (120, 401)])
def test_the_clock_of_the_provider_may_be_a_minute_ahead(ahead: int, status: int, company: Company) -> None:
    begin = int(time.time()) + ahead
    company.provider.token = {"iat": begin, "nbf": begin, "exp": begin + 300}
    assert company.log_in().status_code == status


@pytest.mark.parametrize("set_", ["", "/"])
@pytest.mark.parametrize("said", ["", "/"])
def test_the_issuer_may_end_in_a_slash(
    set_: str, said: str, make_runtime: Callable[..., Runtime], provider: Provider
) -> None:
    provider.discovery["issuer"] = provider.token["iss"] = provider.issuer + said
    company = Company(make_runtime(**oidc(provider, oidc_issuer=provider.issuer + set_)), provider)
    assert company.log_in().status_code == 303


def test_a_token_that_the_provider_has_not_signed_is_refused(company: Company) -> None:
    company.provider.key = FOREIGN_KEY
    company.require_refused(company.log_in(), 401, "BadSignature")
    for algorithm in ("none", "HS256"):  # which anybody could sign, and which discovery names
        company.provider.algorithm = algorithm
        company.require_refused(company.log_in(), 401, "UnsupportedAlgorithm")


@pytest.mark.parametrize("state", ["another", "", "ü"])
def test_an_answer_to_another_question_is_refused(company: Company, state: str) -> None:
    browser = company.browser()
    address = company.answer(browser)
    company.require_refused(browser.get(changed(address, state=state)), 400, "state")
    assert browser.get(address).status_code == 400  # the question is gone with the first answer
    assert company.provider.exchanged == []


def test_an_answer_works_once(company: Company) -> None:
    browser = company.browser()
    address = company.answer(browser)
    question = browser.get_cookie("receiver_console", path="/console").value
    assert browser.get(address).status_code == 303
    assert browser.get(address).status_code == 400
    thief = company.browser()
    thief.set_cookie("receiver_console", question, path="/console")
    assert thief.get(address).status_code == 401
    assert "invalid_grant" in company.audited("login.failed")[0]["detail"]["reason"]
    assert thief.get("/console/account").status_code == 303


def test_an_answer_in_another_browser_is_refused(company: Company) -> None:
    address = company.answer(company.browser())
    company.require_refused(company.browser().get(address), 400, "state")


def test_a_code_that_was_given_to_another_browser_is_refused(company: Company) -> None:
    mine, theirs = company.browser(), company.browser()
    stolen = parse_qs(urlsplit(company.answer(theirs)).query)["code"][0]
    company.require_refused(mine.get(changed(company.answer(mine), code=stolen)), 401, "invalid_grant")


def test_an_answer_after_ten_minutes_is_refused(company: Company) -> None:
    browser = company.browser()
    address = company.answer(browser)
    with time_machine.travel(time.time() + 660, tick=True):
        company.require_refused(browser.get(address), 400, "state")


@pytest.mark.parametrize(("error", "reason"), [("access_denied", "access_denied"), ("<b>x</b>", "error")])
def test_the_provider_refuses(company: Company, error: str, reason: str) -> None:
    company.provider.error = error
    response = company.log_in(following="/console/messages")
    company.require_refused(response, 401, f"provider: {reason}")
    assert f"({reason})" in response.text
    assert 'name="password"' in response.text
    assert 'value="/console/messages"' in response.text


def test_a_wrong_secret_is_named_in_the_audit(make_runtime: Callable[..., Runtime], provider: Provider) -> None:
    company = Company(make_runtime(**oidc(provider, oidc_client_secret="wrong")), provider)
    company.require_refused(company.log_in(), 401, "invalid_client")


# --- The provider is away -----------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [False, True])
def test_while_the_provider_is_away_a_password_still_works(make_runtime: Callable[..., Runtime], begun: bool) -> None:
    with Provider() as provider:
        company = Company(make_runtime(**oidc(provider)), provider)
        browser = company.browser()
        address = company.answer(browser) if begun else "/console/oidc"
    company.runtime.database.write(
        lambda connection: changes.create_user(
            connection,
            name="local",
            role=Role.SUPPORT,
            now=company.runtime.now(),
            password_hash=hash_password(PASSWORD, name="local"),
        )
    )
    response = browser.get(address)
    assert response.status_code == 503
    assert 'action="/console/login"' in response.text
    token = re.search(r'name="csrf_token" value="([^"]+)"', response.text)[1]
    entered = browser.post("/console/login", data={"csrf_token": token, "name": "local", "password": PASSWORD})
    assert (entered.status_code, entered.headers["Location"]) == (303, HOME)


@pytest.mark.parametrize(
    "discovery",
    [{"issuer": "https://other.example"}, {"token_endpoint": "http://provider.example/token"}, {"jwks_uri": None}],
)
def test_a_provider_that_is_another_or_unsafe_is_not_used(company: Company, discovery: dict[str, Any]) -> None:
    company.provider.discovery = discovery
    assert company.browser().get("/console/oidc").status_code == 503


def test_a_slow_provider_does_not_hold_every_thread(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc_pages, "_talks", threading.BoundedSemaphore(1))
    with oidc_pages._talks:
        assert company.browser().get("/console/oidc").status_code == 503
    assert company.log_in().status_code == 303


# --- Whether it is set --------------------------------------------------------------------------------


def test_without_it_there_is_no_button_and_no_page(client: FlaskClient) -> None:
    assert "/console/oidc" not in client.get("/console/login").text
    assert client.get("/console/oidc").status_code == 404
    assert client.get("/console/oidc/done").status_code == 404


def test_the_log_in_page_has_the_button(company: Company) -> None:
    assert "/console/oidc?next=/console/messages" in company.browser().get("/console/login?next=/console/messages").text


GOOD = {
    "RECEIVER_OIDC_ISSUER": "https://login.example.com/realms/staff/",
    "RECEIVER_OIDC_CLIENT_ID": CLIENT_ID,
    "RECEIVER_OIDC_CLIENT_SECRET": CLIENT_SECRET,
    "RECEIVER_OIDC_ROLES": "sms-admins:admin, urn:group:help:support",
}


@pytest.fixture
def set_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    def set_all(**changes: str) -> None:
        for name in [name for name in os.environ if name.startswith("RECEIVER_")]:
            monkeypatch.delenv(name)
        monkeypatch.chdir(tmp_path)
        for name, value in (GOOD | changes).items():
            monkeypatch.setenv(name, value)

    return set_all


def test_settings_are_read_and_the_secret_is_not_shown(set_all: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{CLIENT_SECRET}\n")
    set_all(RECEIVER_OIDC_CLIENT_SECRET="", RECEIVER_OIDC_CLIENT_SECRET_FILE=str(tmp_path / "secret"))
    settings = load_settings()
    assert settings.oidc_issuer == GOOD["RECEIVER_OIDC_ISSUER"]
    assert settings.oidc_roles == (("sms-admins", "admin"), ("urn:group:help", "support"))
    assert settings.oidc_claim == "groups"
    assert settings.oidc_client_secret == CLIENT_SECRET
    assert CLIENT_SECRET not in repr(settings)
    assert tuple(Role) == ROLES


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RECEIVER_OIDC_ISSUER", "http://login.example.com"),
        ("RECEIVER_OIDC_ISSUER", "https://login.example.com/?tenant=1"),
        ("RECEIVER_OIDC_ISSUER", "login.example.com"),
        ("RECEIVER_OIDC_ROLES", "sms-admins"),
        ("RECEIVER_OIDC_ROLES", "sms-admins:root"),
        ("RECEIVER_OIDC_ROLES", ":admin"),
        ("RECEIVER_OIDC_CLAIM", "realm_access..roles"),
        ("RECEIVER_OIDC_CLAIM", "two words"),
    ],
)
def test_wrong_settings_are_named_together(set_all: Callable[..., None], name: str, value: str) -> None:
    set_all(**{name: value, "RECEIVER_ACK_STATUS": "404"})
    with pytest.raises(SettingsError, match=r"RECEIVER_ACK_STATUS: .*; " + name) as caught:
        load_settings()
    assert "missing" not in str(caught.value)


@pytest.mark.parametrize("issuer", ["http://localhost:8080/realms/x", "http://127.0.0.1:1", "http://[::1]:8080"])
def test_plain_http_is_for_this_machine(set_all: Callable[..., None], issuer: str) -> None:
    set_all(RECEIVER_OIDC_ISSUER=issuer)
    assert load_settings().oidc_issuer == issuer


def test_what_is_missing_is_named(set_all: Callable[..., None]) -> None:
    set_all(RECEIVER_OIDC_CLIENT_SECRET="", RECEIVER_OIDC_ROLES="")
    with pytest.raises(SettingsError, match=r"^RECEIVER_OIDC_CLIENT_SECRET, RECEIVER_OIDC_ROLES: missing; [^\n]*$"):
        load_settings()


def test_without_the_extra_the_start_says_what_to_install(
    set_all: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_all()
    monkeypatch.setattr("receiver.config.loading.find_spec", lambda name: None if name == "authlib" else True)
    with pytest.raises(SettingsError, match=r"pip install 'receiver\[oidc\]'"):
        load_settings()


def test_two_ways_to_name_a_user_from_outside_exclude_each_other(set_all: Callable[..., None]) -> None:
    set_all(RECEIVER_CONSOLE_USER_HEADER="X-Forwarded-User")
    with pytest.raises(SettingsError, match=r"^RECEIVER_CONSOLE_USER_HEADER: not together with RECEIVER_OIDC_ISSUER"):
        load_settings()
