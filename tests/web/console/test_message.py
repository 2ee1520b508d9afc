"""The page of a message: its number in full, to whom and how long."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.harness.factories import make_push, make_send
from tests.web.console.staff import MINUTE, NUMBER, SECOND, audit, keep, log_in, one_database, record

if TYPE_CHECKING:
    import time_machine
    from flask import Flask

    from receiver.runtime import Runtime

REASON = {"reason": "a caller asks"}


@one_database
def test_a_revealed_number_is_seen_for_ten_minutes_by_that_session_alone(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    keep(runtime, make_push(), make_push(task_id="other"))
    mine, other = log_in(app, runtime, "support"), log_in(app, runtime, "support", name="other")
    answer = mine.post("/messages/1/reveal", REASON)
    assert NUMBER not in str(answer.headers)
    assert mine.get("/messages/1/reveal").location == "/console/messages/1"
    for staff, path, seen in ((mine, "1", True), (mine, "1", True), (mine, "2", False), (other, "1", False)):
        assert (NUMBER in staff.get(f"/messages/{path}").text) is seen
    assert other.get("/messages/1/reveal").location == "/console/messages/1"
    assert [action for _, action, _ in audit(runtime)].count("number.reveal") == 1
    own, of_other = mine.token, other.token
    assert own is not None
    assert of_other is not None
    mine.token = of_other
    assert NUMBER not in mine.get("/messages/1").text  # the reason in this cookie was another user's
    mine.token = own
    clock.shift(10 * MINUTE - SECOND)
    assert NUMBER in mine.get("/messages/1").text
    clock.shift(2 * SECOND)
    assert NUMBER not in mine.get("/messages/1").text


@one_database
def test_twenty_revealed_numbers_are_remembered_and_the_cookie_stays_small(app: Flask, runtime: Runtime) -> None:
    record(runtime, *(make_send(task_id=f"t{number}") for number in range(30)))
    staff = log_in(app, runtime, "support")
    for number in range(1, 31):
        staff.post(f"/messages/{number}/reveal", REASON)
    seen = [number for number in range(1, 31) if NUMBER in staff.get(f"/messages/{number}").text]
    assert seen == list(range(11, 31))
    cookie = staff.client.get_cookie("receiver_console", path="/console")
    assert cookie is not None
    assert len(cookie.value) < 1000
