"""Recovery codes at the log-in and on the account's page."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pyotp
import pytest

from receiver.app import create_app
from receiver.config import SecondFactor
from tests.web.console.staff import PASSWORD, Page, Staff, audit, create, one_database

if TYPE_CHECKING:
    from collections.abc import Callable

    import time_machine
    from flask import Flask

    from receiver.runtime import Runtime


def enter(app: Flask) -> Staff:
    staff = Staff(app)
    assert staff.post("/login", {"name": "admin", "password": PASSWORD}).status_code == 303
    return staff


def set_up(app: Flask, runtime: Runtime) -> tuple[Staff, list[str]]:
    """An administrator who has just set up the second factor, and the recovery codes shown."""
    create(runtime, "admin", "admin")
    staff = enter(app)
    secret = staff.page("/second-factor").at("key")
    shown = staff.post("/second-factor", {"code": pyotp.TOTP(secret).at(runtime.now()), "next": "/console/users"})
    return staff, Page(shown.text).at("codes").split()


def test_a_recovery_code_opens_one_log_in(app: Flask, runtime: Runtime, clock: time_machine.Traveller) -> None:
    staff, codes = set_up(app, runtime)
    assert (len(codes), staff.logged_in) == (10, True)
    assert "Left: 10." in staff.page("/account").text
    again = enter(app)
    assert "No phone at hand?" in again.page("/second-factor").text
    entered = again.post("/second-factor", {"recovery_code": codes[3], "next": "/console/users"})
    assert (entered.status_code, entered.headers["Location"]) == (303, "/console/users")
    assert "A recovery code was used. Left: 9." in again.page("/users").text
    third = enter(app)
    refused = third.post("/second-factor", {"recovery_code": codes[3]})
    assert refused.status_code == 401
    assert Page(refused.text).at("error") == "The recovery code is incorrect or was already used."
    assert not third.logged_in
    assert [action for _, action, _ in audit(runtime)].count("user.use_recovery_code") == 1
    assert not any(code in str(audit(runtime)) for code in codes)


@one_database
def test_recovery_codes_cannot_be_guessed_nor_used_before_a_set_up(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    create(runtime, "admin", "admin")
    assert enter(app).post("/second-factor", {"recovery_code": ""}).status_code == 401
    tried = [enter(app).post("/second-factor", {"recovery_code": f"{n}"}).status_code for n in range(4)]
    assert tried == [401] * 4
    locked = Staff(app).post("/login", {"name": "admin", "password": PASSWORD})
    assert locked.status_code == 429


@one_database
def test_new_recovery_codes_need_the_password_and_end_the_old_ones(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    staff, codes = set_up(app, runtime)
    wrong = staff.post("/account", {"present": "wrong", "renew": "1"})
    assert (wrong.status_code, "codes" in Page(wrong.text).by_id) == (422, False)
    new = Page(staff.post("/account", {"present": PASSWORD, "renew": "1"}).text).at("codes").split()
    assert (len(new), set(new) & set(codes)) == (10, set())
    assert audit(runtime)[-1] == ("user:admin", "user.recovery_codes", {"name": "admin"})
    assert enter(app).post("/second-factor", {"recovery_code": codes[0]}).status_code == 401
    assert enter(app).post("/second-factor", {"recovery_code": new[0]}).status_code == 303
    assert staff.logged_in


@one_database
def test_who_has_no_second_factor_makes_no_recovery_codes(app: Flask, runtime: Runtime) -> None:
    create(runtime, "sue", "support")
    staff = Staff(app)
    staff.post("/login", {"name": "sue", "password": PASSWORD})
    assert "Recovery codes" not in staff.page("/account").text
    refused = staff.post("/account", {"present": PASSWORD, "renew": "1", "new": ""})
    assert (refused.status_code, "codes" in Page(refused.text).by_id) == (422, False)


# --- A trial on loopback --------------------------------------------------------------------------------


def skip(runtime: Runtime, **more: Any) -> tuple[bool, bool]:
    """Whether an administrator is offered to go on without a second factor, and gets in by asking for it."""
    staff = Staff(create_app(runtime))
    staff.post("/login", {"name": "admin", "password": PASSWORD})
    offered = "Go on without" in staff.page("/second-factor", **more).text
    answer = staff.post("/second-factor", {"skip": "1", "next": "/console/users"}, **more)
    assert answer.headers.get("Location") == ("/console/users" if offered else None)
    return offered, staff.logged_in


@one_database
def test_a_trial_on_loopback_goes_on_without_a_second_factor(runtime: Runtime) -> None:
    create(runtime, "admin", "admin")
    assert skip(runtime) == (True, True)
    assert audit(runtime)[-1] == ("user:admin", "login", {"address": "127.0.0.1", "second_factor": "skipped"})
    assert skip(runtime) == (True, True)  # it is offered each time


@pytest.mark.parametrize(
    "changed",
    [
        {"console_totp": SecondFactor.REQUIRED},
        {"public_url": "https://sms.example.com"},
        {"trusted_proxies": (ip_network("127.0.0.1/32"),)},
        {"bind": ("0.0.0.0", 8000)},
        {"bind": ("::", 8000)},
        {"bind": ("10.0.0.5", 8000)},
        {"internal_bind": ("10.0.0.5", 8001)},
        {"send_proxy_bind": ("10.0.0.5", 8002)},
    ],
    ids=str,
)
@one_database
def test_the_second_factor_is_not_skipped_elsewhere(
    make_runtime: Callable[..., Runtime], changed: dict[str, Any]
) -> None:
    runtime = make_runtime(**changed)
    create(runtime, "admin", "admin")
    assert skip(runtime) == (False, False)


@pytest.mark.parametrize(
    "more",
    [
        {"headers": {"X-Forwarded-For": "203.0.113.9"}},
        {"headers": {"Forwarded": "for=203.0.113.9"}},
        {"headers": {"Via": "1.1 proxy"}},
        {"environ_overrides": {"REMOTE_ADDR": "192.168.1.7"}},
        {"environ_overrides": {"SERVER_PROTOCOL": "HTTP/1.0"}},
    ],
    ids=str,
)
@one_database
def test_the_second_factor_is_not_skipped_through_a_proxy_that_no_setting_names(
    runtime: Runtime, more: dict[str, Any]
) -> None:
    create(runtime, "admin", "admin")
    assert skip(runtime, **more) == (False, False)


@one_database
def test_the_second_factor_is_not_skipped_under_a_public_name(app: Flask, runtime: Runtime) -> None:
    create(runtime, "admin", "admin")
    client, seen = app.test_client(), []
    form = {"name": "admin", "password": PASSWORD, "skip": "1"}
    for path in ("login", "second-factor"):
        page = client.get(f"/console/{path}", base_url="http://sms.example.com").text
        form["csrf_token"] = page.split('name="csrf_token" value="')[1].partition('"')[0]
        answer = client.post(f"/console/{path}", base_url="http://sms.example.com", data=form)
        seen.append((answer.status_code, "Go on without" in page))
    assert seen == [(303, False), (401, False)]


@one_database
def test_who_has_a_second_factor_does_not_skip_it(app: Flask, runtime: Runtime, clock: time_machine.Traveller) -> None:
    set_up(app, runtime)
    assert skip(runtime) == (False, False)


@one_database
def test_the_log_in_names_a_command_on_a_trial_only(runtime: Runtime, make_runtime: Callable[..., Runtime]) -> None:
    public = make_runtime(public_url="https://sms.example.com")
    texts = [Staff(create_app(services)).page("/login").text for services in (runtime, public)]
    assert ["receiver users create" in text for text in texts] == [True, False]
    assert ["Ask your administrator." in text for text in texts] == [True, True]
