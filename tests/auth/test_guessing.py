"""Guessing keys, passwords and codes: what it costs, and whom it keeps out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from receiver.app import create_app
from receiver.auth import api_keys, changes, users
from receiver.auth.address_throttle import Throttle
from receiver.auth.api_keys import Scope
from receiver.db.tables import audit, login_failures
from receiver.web import auth
from receiver.web.console import login
from tests.conftest import make_key
from tests.web.console.staff import Staff, one_database

if TYPE_CHECKING:
    from flask import Flask
    from flask.testing import FlaskClient

    from receiver.runtime import Runtime

PATH = "/api/v1/receipts"


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every question for keys that reached the database: `key`, or `list` of all."""
    asked: list[str] = []
    find_key, list_valid = api_keys.find_key, api_keys.list_valid_digests

    def find(connection: sa.Connection, key: str) -> Any:
        asked.append("key")
        return find_key(connection, key)

    def list_all(connection: sa.Connection, now: Any) -> Any:
        asked.append("list")
        return list_valid(connection, now)

    monkeypatch.setattr(api_keys, "find_key", find)
    monkeypatch.setattr(api_keys, "list_valid_digests", list_all)
    return asked


def ask(client: FlaskClient, bearer: str, address: str = "192.0.2.1") -> tuple[int, str | None]:
    answer = client.get(PATH, headers={"Authorization": bearer}, environ_base={"REMOTE_ADDR": address})
    return answer.status_code, answer.headers.get("Retry-After")


@one_database
def test_guessing_keys_costs_no_look_up_and_keeps_no_good_key_out(
    runtime: Runtime, looked_up: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(auth, "_FAILURES_MAX", 5)
    client = create_app(runtime).test_client()
    good = make_key(runtime, Scope.READ)
    gone = make_key(runtime, Scope.READ)
    (name,) = [key.name for key in runtime.ask(api_keys.list_keys)][-1:]
    runtime.database.write(lambda connection: changes.revoke_key(connection, name=name, now=runtime.now()))

    assert [ask(client, f"Bearer wrong-{number}")[0] for number in range(5)] == [401] * 5
    looked_up.clear()
    assert {ask(client, f"Bearer more-{number}") for number in range(50)} == {(429, "60")}
    assert looked_up == ["list"]
    assert ask(client, good)[0] == 200
    assert ask(client, gone)[0] == 429
    assert ask(client, "Bearer wrong", "192.0.2.2")[0] == 401
    fresh = make_key(runtime, Scope.READ)
    now += 1
    assert ask(client, fresh)[0] == 200  # one that was made meanwhile opens within a second
    now += 60
    assert ask(client, "Bearer wrong")[0] == 401


def test_address_that_goes_on_failing_waits_again_in_each_span(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    throttle = Throttle(failures_max=3, seconds=60)
    for _ in range(2):
        for _ in range(3):
            assert throttle.wait_seconds("192.0.2.1") == 0
            throttle.note("192.0.2.1")
        assert throttle.wait_seconds("192.0.2.1") == 60
        now += 60


def test_addresses_that_fail_are_remembered_in_bounds() -> None:
    throttle = Throttle(failures_max=2, seconds=60, addresses_max=100)
    for number in range(5000):
        throttle.note(f"192.0.{number // 256}.{number % 256}")
    assert len(throttle._failures) == 100
    # Whoever has an IPv6 address has a whole network of them.
    throttle.note("2001:db8::1")
    throttle.note("2001:db8::ffff:2")
    assert throttle.wait_seconds("2001:db8::3") > 0
    assert throttle.wait_seconds("2001:db8:0:1::3") == 0
    throttle.note("::ffff:192.0.2.1")
    throttle.note("::ffff:192.0.2.2")
    assert throttle.wait_seconds("::ffff:192.0.2.1") == 0


@one_database
def test_guessing_passwords_ends_after_a_few_names_and_fills_no_table(
    app: Flask, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def fits(_hash: str | None, password: str) -> bool:
        tried.append(password)
        return False

    monkeypatch.setattr(login, "fits_password", fits)
    staff = Staff(app)
    statuses = [
        staff.post("/login", {"name": f"name-{number}", "password": f"guess-{number}"}).status_code
        for number in range(100)
    ]
    assert statuses == [401] * 20 + [429] * 80
    assert len(tried) == 20  # the others cost no hash
    counts = runtime.ask(
        lambda connection: [
            connection.scalar(sa.select(sa.func.count()).select_from(table)) for table in (login_failures, audit)
        ]
    )
    assert counts == [2 * 20 + 1, 20 + 1]
    later = runtime.now() + users.LOCKED_FOR
    assert not runtime.ask(lambda c: users.is_locked(c, name="name-1", address="127.0.0.1", now=later))
