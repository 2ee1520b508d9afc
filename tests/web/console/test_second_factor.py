"""Recovery codes at the log-in and on the account's page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyotp

from tests.web.console.staff import PASSWORD, Page, Staff, audit, create, one_database

if TYPE_CHECKING:
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
