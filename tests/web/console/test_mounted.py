"""The console under a sub-path of its host: no link, redirect, cookie or file leaves it."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest

from receiver.app import create_app
from tests.conftest import SECRET
from tests.web.console.staff import PASSWORD, create

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask.testing import FlaskClient
    from werkzeug.test import TestResponse

    from receiver.runtime import Runtime

PROXY = (ip_network("127.0.0.0/8"),)
PUSH = "mobile=15080921090&taskid=1&status=1&receivetime=2026-11-23+09:14:03"
_LINK = re.compile(r'(?:href|src|action|hx-get|hx-post)="([^"#?]*)')
_CSRF = re.compile(r'name="csrf_token" value="([^"]+)"')


@pytest.fixture
def database_url(sqlite_database_url: str) -> str:
    """An embedded database: none has a part in this."""
    return sqlite_database_url


class Browser:
    """A browser that asks for https://example.com/sms/…, through a proxy that takes /sms off, or does not."""

    def __init__(self, client: FlaskClient, *, takes_off: bool, says: str | None) -> None:
        self._client = client
        self._takes_off = takes_off
        self._cookie = ""  # whose path is not the one that the application is asked for
        self._headers = {"X-Forwarded-Proto": "https", **({"X-Forwarded-Prefix": says} if says else {})}

    def ask(self, method: str, path: str, **more: Any) -> TestResponse:
        assert path.startswith("/sms/") or path == "/sms", path
        path = path.removeprefix("/sms") or "/" if self._takes_off else path
        headers = {**self._headers, "Referer": "https://localhost/sms/console/", "Cookie": self._cookie}
        answer = self._client.open(path, method=method, headers=headers, base_url="https://localhost", **more)
        for cookie in answer.headers.getlist("Set-Cookie"):
            assert "Path=/sms/console" in cookie.split("; ")
            self._cookie = cookie.partition(";")[0]
        return answer


WAYS = {
    "public URL, taken off": ("https://example.com/sms", True, None),
    "public URL, left on": ("https://example.com/sms", False, None),
    "said by the proxy, taken off": ("", True, "/sms"),
    "said by the proxy, left on": ("", False, "/sms/"),
    "both": ("https://example.com/sms", True, "/sms"),
}


@pytest.mark.parametrize("way", WAYS)
def test_console_stays_under_its_sub_path(make_runtime: Callable[..., Runtime], way: str) -> None:
    public_url, takes_off, says = WAYS[way]
    runtime = make_runtime(public_url=public_url, trusted_proxies=PROXY)
    create(runtime, "anna", "support")
    client = create_app(runtime).test_client(use_cookies=False)
    client.get("/readyz")
    browser = Browser(client, takes_off=takes_off, says=says)
    assert browser.ask("GET", "/sms").headers["Location"] == "/sms/console/"
    assert browser.ask("GET", "/sms/console").headers["Location"] == "/sms/console/"
    to_log_in = browser.ask("GET", "/sms/console/messages?status=failed")
    assert to_log_in.headers["Location"].startswith("/sms/console/login?next=")
    page = browser.ask("GET", to_log_in.headers["Location"])
    links = [link for link in _LINK.findall(page.text) if link.startswith("/")]
    assert links
    assert all(link.startswith("/sms/console/") for link in links)
    for link in links:
        assert link == "/sms/console/language" or browser.ask("GET", link).status_code in (200, 303), link
    (token, *_) = _CSRF.findall(page.text)
    (following,) = set(re.findall(r'name="next" value="(/console/messages[^"]*)"', page.text))
    form = {"csrf_token": token, "name": "anna", "password": PASSWORD, "next": following.replace("&amp;", "&")}
    let_in = browser.ask("POST", "/sms/console/login", data=form)
    assert (let_in.status_code, let_in.headers["Location"]) == (303, "/sms/console/messages?status=failed")
    shown = browser.ask("GET", "/sms/console/messages")
    assert shown.status_code == 200
    links = [link for link in _LINK.findall(shown.text) if link.startswith("/")]
    assert all(link.startswith("/sms/console/") for link in links), links
    assert browser.ask("POST", f"/sms/push/{SECRET}", data=PUSH).headers["X-Push-Outcome"] == "accepted"


def test_nobody_but_a_trusted_proxy_moves_the_console(make_runtime: Callable[..., Runtime]) -> None:
    client = create_app(make_runtime()).test_client()
    found = client.get("/console", headers={"X-Forwarded-Prefix": "/evil"})
    assert found.headers["Location"] == "/console/"


@pytest.mark.parametrize("prefix", ["//evil.example", "https://evil.example", "/a b", "sms", "/../x\\y"])
def test_prefix_that_is_no_path_is_none(make_runtime: Callable[..., Runtime], prefix: str) -> None:
    client = create_app(make_runtime(trusted_proxies=PROXY)).test_client()
    found = client.get("/console", headers={"X-Forwarded-Prefix": prefix})
    assert found.headers["Location"] == "/console/"


@pytest.mark.parametrize("path", ["/", "/console"])
def test_redirect_to_the_console_names_neither_scheme_nor_host(make_runtime: Callable[..., Runtime], path: str) -> None:
    client = create_app(make_runtime(trusted_proxies=PROXY)).test_client()
    found = client.get(path, headers={"X-Forwarded-Proto": "https", "Host": "sms.example.com:8443"})
    assert (found.status_code, found.headers["Location"]) == (302, "/console/")
