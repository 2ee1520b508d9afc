"""A session that ends: why, where a log-in leads back to, and forms that were open meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from receiver.auth import users
from receiver.auth.users import IDLE_MAX
from tests.web.console.staff import HOUR, PASSWORD, Page, Staff, create, log_in, one_database

if TYPE_CHECKING:
    from collections.abc import Callable

    import time_machine
    from flask import Flask

    from receiver.runtime import Runtime

ORIGIN = "http://localhost"
EXPIRED = "Your session has expired. Please log in again."
LOGGED_OUT = "You have logged out."
NEW_PASSWORD = "The password was changed. Please log in with the new one."
BY_ADMIN = "An administrator has ended your session. Please log in again."


def login_text(staff: Staff) -> str:
    return staff.page("/login").text


@pytest.mark.parametrize("spent", [IDLE_MAX, 12 * HOUR])
def test_the_log_in_says_that_the_session_expired(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller, spent: object
) -> None:
    staff = log_in(app, runtime, "support")
    assert EXPIRED not in login_text(staff)
    clock.shift(spent)  # type: ignore[arg-type]
    assert EXPIRED in login_text(staff)
    assert EXPIRED not in login_text(Staff(app))


def test_the_log_in_says_who_or_what_ended_the_session(app: Flask, runtime: Runtime) -> None:
    admin = log_in(app, runtime, "admin")

    def said_after(end: Callable[[Staff], object]) -> list[str]:
        """What the browser that ended it is shown, and another of the same user."""
        here, there = log_in(app, runtime, "support"), log_in(app, runtime, "support")
        end(here)
        texts = (LOGGED_OUT, NEW_PASSWORD, BY_ADMIN, EXPIRED)
        return [text for staff in (here, there) for text in texts if text in login_text(staff)]

    assert said_after(lambda staff: staff.post("/logout")) == [LOGGED_OUT]
    assert said_after(lambda staff: staff.post("/account", {"end": "1"})) == [LOGGED_OUT, LOGGED_OUT]
    new = {"present": PASSWORD, "new": "another fine password"}
    assert said_after(lambda staff: staff.post("/account", new)) == [NEW_PASSWORD]
    for action in ("end_sessions", "role_analyst", "role_support"):
        change = {"action": action}
        assert said_after(lambda _, c=change: admin.post("/users/support", c)) == [BY_ADMIN, BY_ADMIN]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("form", "page", "leads_to"),
    [
        ("/look-up", "/console/", None),
        ("/look-up", "/console/look-up/abc", "/console/look-up/abc"),
        ("/look-up", "/console/look-up", None),  # the answer to a form stands there; no page does
        ("/advice", "/console/advice?language=zh-CN", "/console/advice?language%3Dzh-CN"),
        ("/users", "/console/users", "/console/users"),
        ("/webhooks/shop", "/console/webhooks/shop", "/console/webhooks/shop"),
        ("/keys/revoke", "/console/keys/revoke", "/console/keys"),  # nor here: it takes a form alone
        ("/users", "/console/banner", None),
        ("/users", "/console/login?next=/console/users", None),
        ("/users", "/api/v1/docs", None),
        ("/users", "//evil.example/console/users", "/console/users"),
        ("/users", "/console/nowhere/at/all", None),
        ("/users", "", None),
        ("/users", "/console/[", None),
    ],
)
@one_database
def test_a_form_of_no_session_leads_back_to_its_page(
    app: Flask, runtime: Runtime, form: str, page: str, leads_to: str | None
) -> None:
    expected = "/console/login" + (f"?next={leads_to}" if leads_to else "")
    source = f"{ORIGIN}{page}" if page.startswith("/c") else page
    posted = Staff(app).client.post(f"/console{form}", data={"wanted": "x"}, headers={"Referer": source})
    assert (posted.status_code, posted.headers["Location"]) == (303, expected)
    fragment = {"HX-Request": "true", "HX-Current-URL": source}
    polled = Staff(app).get("/banner", headers=fragment)
    assert (polled.status_code, polled.headers["HX-Redirect"]) == (401, expected)


@one_database
def test_the_second_factor_keeps_the_way_back(app: Flask, runtime: Runtime, clock: time_machine.Traveller) -> None:
    half = log_in(app, runtime, "admin", confirmed=False)
    assert half.get("/users").headers["Location"] == "/console/second-factor?next=/console/users"
    clock.shift(13 * HOUR)
    late = half.post("/second-factor", {"code": "123456", "next": "/console/users"})
    assert late.headers["Location"] == "/console/login?next=/console/users"


def test_a_form_stays_valid_when_the_same_user_logs_in_again(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    staff = log_in(app, runtime, "support")
    create(runtime, "other", "support")
    form = {"csrf_token": staff.csrf, "wanted": "1090"}
    clock.shift(IDLE_MAX)
    led = staff.client.post("/console/look-up", data=form, headers={"Referer": f"{ORIGIN}/console/"})
    assert led.headers["Location"] == "/console/login"
    assert staff.post("/login", {"name": "support", "password": PASSWORD}).status_code == 303
    assert staff.client.post("/console/look-up", data=form).status_code == 303
    assert staff.post("/login", {"name": "other", "password": PASSWORD}).status_code == 303
    assert staff.client.post("/console/look-up", data=form).status_code == 400


def test_a_form_of_before_a_log_out_shows_what_was_typed_but_no_secret(app: Flask, runtime: Runtime) -> None:
    staff = log_in(app, runtime, "admin")
    form = {"csrf_token": staff.csrf, "name": "li.wei", "password": "a secret of theirs", "role": "support"}
    staff.post("/logout")
    assert staff.post("/login", {"name": "admin", "password": PASSWORD}).status_code == 303
    again = log_in(app, runtime, "admin")
    answer = again.client.post("/console/users", data=form, headers={"Referer": f"{ORIGIN}/console/users"})
    assert answer.status_code == 400
    page = Page(answer.text)
    assert "li.wei" in page.text.partition("What you typed:")[2]
    assert "secret of theirs" not in page.html
    assert ("a", {"href": "/console/users"}) in page.tags
    assert runtime.ask(lambda c: users.find_user(c, "li.wei")) is None


@one_database
def test_the_way_back_never_leads_elsewhere(app: Flask, runtime: Runtime) -> None:
    create(runtime, "support", "support")
    for wanted in ("https://evil.example/", "//evil.example/", "/console/\\evil.example", "javascript:alert(1)"):
        half = log_in(app, runtime, "admin", confirmed=False)
        assert half.post("/second-factor", {"next": wanted, "code": "0"}).status_code == 401
        staff = Staff(app)
        entered = staff.post("/login", {"name": "support", "password": PASSWORD, "next": wanted})
        assert entered.headers["Location"] == "/console/"
        led = Staff(app).client.post("/console/users", headers={"Referer": wanted})
        assert led.headers["Location"] == "/console/login"


# --- A status page on a wall ----------------------------------------------------------------------------

OF_STATUS = {"HX-Request": "true", "HX-Current-URL": f"{ORIGIN}/console/status?x=1"}


def test_a_status_page_stays_while_nobody_uses_the_session_and_nothing_else_does(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    staff = log_in(app, runtime, "admin")
    clock.shift(IDLE_MAX)
    for _ in range(2):  # neither a look nor a reload revives the session
        page = staff.page("/status")
        assert "View only" in page.text
        assert "nav" not in [tag for tag, _ in page.tags]
        assert staff.get("/status", headers=OF_STATUS).status_code == 200
        assert staff.get("/banner", headers=OF_STATUS).status_code == 200
        on_a_list = OF_STATUS | {"HX-Current-URL": f"{ORIGIN}/console/messages?status=x"}
        led = staff.get("/banner", headers=on_a_list).headers["HX-Redirect"]
        assert led == "/console/login?next=/console/messages?status%3Dx"
        for path in ("/", "/messages", "/setup", "/account", "/users", "/reports/days.csv", "/nowhere"):
            assert staff.get(path).headers["Location"].startswith("/console/login"), path
        for path in ("/look-up", "/users", "/keys", "/messages/1/reveal", "/setup/self-test", "/account"):
            assert staff.post(path).headers["Location"].startswith("/console/login"), path
        clock.shift(HOUR)
    clock.shift(12 * HOUR - IDLE_MAX - 2 * HOUR)
    assert staff.get("/status", headers=OF_STATUS).headers["HX-Redirect"] == "/console/login?next=/console/status?x%3D1"


def test_a_status_page_ends_with_a_log_out_and_with_the_user(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    out, kept_out = log_in(app, runtime, "admin"), log_in(app, runtime, "support")
    clock.shift(IDLE_MAX)
    assert [staff.get("/status").status_code for staff in (out, kept_out)] == [200, 200]
    twin = Staff(app)
    twin.token = str(out.token)
    assert out.post("/logout").status_code == 303
    assert twin.get("/status").status_code == 303
    assert log_in(app, runtime, "admin").surely("/users/support", {"action": "disable"}).status_code == 303
    assert kept_out.get("/status").status_code == 303


@one_database
def test_a_status_page_stays_while_the_database_is_away(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    staff = log_in(app, runtime, "admin")
    clock.shift(IDLE_MAX)
    assert staff.get("/status").status_code == 200
    runtime._drainer.stop()  # it would find the database there
    runtime.availability.mark_down("connection refused")
    assert staff.get("/status", headers=OF_STATUS).status_code == 200
    assert staff.get("/account").status_code == 503


@one_database
def test_fields_that_may_hold_a_secret_are_marked_as_not_to_be_kept(app: Flask, runtime: Runtime) -> None:
    admin = log_in(app, runtime, "admin")
    runtime.webhooks.add("test", name="shop", url="https://8.8.8.8/x?key=K1", form="webhooks")
    marked = {
        (path, given["name"])
        for path in ("/webhooks", "/webhooks/shop")
        for _, given in admin.page(path).tags
        if "data-secret" in given
    }
    assert marked == {("/webhooks", "url"), ("/webhooks/shop", "url"), ("/webhooks/shop", "headers")}
