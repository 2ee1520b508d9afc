"""Push secrets: compared without telling, changed without a lost push, and known when each was used last."""

from __future__ import annotations

import hmac
import json
import re
import socket
import time
from datetime import timedelta
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from receiver.app import create_app
from receiver.cli import cli
from receiver.core import DatabaseUnavailable
from receiver.db.tables import push_secrets as table
from receiver.db.tables import pushes
from receiver.intake import secrets as push_secrets
from receiver.intake.secret_usage import NewUses, find_uses, save_uses
from receiver.intake.secrets import PushSecrets
from receiver.net.self_test import SelfTestAnswer
from receiver.web.console import status as now
from tests.conftest import OTHER_SECRET, SECRET
from tests.harness.factories import NOON
from tests.harness.pushers import Pushers
from tests.harness.server import ServeProcess
from tests.web.console.staff import log_in, one_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from receiver.runtime import Runtime

NEXT_SECRET = "test-secret-that-takes-over-0000000000000000"
TOKENS = (("default", NEXT_SECRET), ("default", SECRET), ("other", OTHER_SECRET))
DAY = timedelta(days=1)
FORM = b"mobile=15080921090&taskid=1&status=1&receivetime=2019-07-23+17%3A00%3A00"


# --- Compared without telling ---------------------------------------------------------------------------


@pytest.mark.parametrize("given", [NEXT_SECRET, SECRET, OTHER_SECRET, "x" * 40, "", "é" * 30, SECRET[:-1]])
def test_every_secret_is_compared_whichever_is_given(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(known: bytes, text: bytes) -> bool:
        compared.append(known)
        return hmac.compare_digest(known, text)

    monkeypatch.setattr(push_secrets, "compare_digest", compare)
    found = PushSecrets(TOKENS).find(given)
    assert compared == [secret.encode() for _, secret in TOKENS]
    place = {NEXT_SECRET: ("default", 0), SECRET: ("default", 1), OTHER_SECRET: ("other", 0)}
    assert (found and (found.account, found.place)) == place.get(given)


# --- When each was used -------------------------------------------------------------------------------


def test_uses_are_kept_once_a_minute_and_none_is_lost_or_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    secrets = PushSecrets(TOKENS)
    kept: list[list[int]] = []

    def save(uses: Sequence[NewUses]) -> None:
        kept.append([use.pushes for use in uses])

    def fail(uses: Sequence[NewUses]) -> None:
        raise DatabaseUnavailable("away")

    def push(secret: str) -> None:
        found = secrets.find(secret)
        assert found is not None
        found.count_use(NOON)

    secrets.flush_uses(save)
    assert kept == [[0, 0, 0]]  # so that one that is never used is known from now on
    push(SECRET)
    now += 59
    secrets.flush_uses(save)
    now += 1
    with pytest.raises(DatabaseUnavailable):
        secrets.flush_uses(fail)
    push(SECRET)
    push(NEXT_SECRET)
    secrets.flush_uses(save)
    assert kept == [[0, 0, 0]]
    now += 60
    secrets.flush_uses(save)
    now += 60
    secrets.flush_uses(save)
    assert kept == [[0, 0, 0], [1, 2, 0]]
    push(SECRET)
    secrets.flush_uses(save, at_once=True)
    assert kept[2:] == [[0, 1, 0]]


def test_what_processes_have_counted_adds_up_and_no_secret_is_in_the_database(
    make_runtime: Callable[..., Runtime],
) -> None:
    runtime = make_runtime(push_tokens=TOKENS)
    runtime._drainer.stop()  # which keeps the uses of this process
    runtime.database.write(lambda connection: connection.execute(sa.delete(table)))
    assert [use.known_since for use in runtime.ask(lambda c: find_uses(c, TOKENS))] == [None] * 3
    for account, secret, count, at in (
        ("default", SECRET, 3, NOON),
        ("default", SECRET, 2, NOON - DAY),
        ("default", SECRET, 0, None),
        ("other", OTHER_SECRET, 1, NOON),
        ("default", NEXT_SECRET, 0, None),
    ):
        uses = [NewUses(account=account, secret=secret, pushes=count, last_used_at=at)]
        runtime.database.write(lambda c, uses=uses: save_uses(c, uses, now=NOON - 7 * DAY))  # type: ignore[misc]
    found = runtime.ask(lambda c: find_uses(c, TOKENS))
    assert [(use.account, use.name, use.pushes, use.last_used_at) for use in found] == [
        ("default", "active", 0, None),
        ("default", "retiring 1", 5, NOON),
        ("other", "active", 1, NOON),
    ]
    # The active one never goes; a retiring one a week after its last use.
    assert [use.can_go(NOON + 7 * DAY) for use in found] == [False, True, False]
    assert not found[1].can_go(NOON + 7 * DAY - timedelta(seconds=1))
    rows = runtime.ask(lambda connection: connection.execute(sa.select(table)).all())
    assert len(rows) == 3
    assert not any(
        secret.encode() in bytes(row.secret_hmac) or secret in str(row) for row in rows for _, secret in TOKENS
    )


def test_a_retiring_secret_that_was_never_used_goes_a_week_after_it_was_first_seen(
    make_runtime: Callable[..., Runtime],
) -> None:
    runtime = make_runtime(push_tokens=TOKENS)
    deadline = time.monotonic() + 30
    while (use := runtime.ask(lambda c: find_uses(c, TOKENS))[1]).known_since is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert (use.name, use.last_used_at) == ("retiring 1", None)
    assert not use.can_go(use.known_since + 6 * DAY)
    assert use.can_go(use.known_since + 7 * DAY)


# --- What a stricter setting would refuse -----------------------------------------------------------------


def test_observed_pushes_are_taken_counted_and_shown_in_bounds(make_runtime: Callable[..., Runtime]) -> None:
    network = ip_network("198.51.100.0/24")
    runtime = make_runtime(push_tokens=TOKENS, push_allow=(network,), push_allow_enforced=False)
    gate = runtime.admission
    for number in range(150):
        found = gate.secrets.find(NEXT_SECRET)
        assert found is not None
        gate._observe("address", f"203.0.113.{number}", NOON)
    assert [seen.address for seen in gate.observed] == [f"203.0.113.{number}" for number in range(149, 49, -1)]
    gate._observe("address", "203.0.113.60", NOON)
    assert (gate.observed[0].address, gate.observed[0].pushes, len(gate.observed)) == ("203.0.113.60", 2, 100)


# --- The whole of it, on a real server ----------------------------------------------------------------------


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket that outlives the processes that serve on it, as systemd holds one."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen(1024)
        yield made


@pytest.mark.thorough
def test_secret_is_changed_under_load_without_a_lost_push(tmp_path: Path, listener: socket.socket) -> None:
    process = ServeProcess(tmp_path)
    process.port, process.listener = listener.getsockname()[1], listener

    def restart(*secrets: str) -> None:
        process.stop()
        process.environment = {"RECEIVER_PUSH_TOKENS": ",".join(f"default:{secret}" for secret in secrets)}
        process.start()

    with process:
        with Pushers(process, 4, pause_seconds=0.01) as pushers:
            pushers.await_acks(20)
            restart(NEXT_SECRET, SECRET)
            pushers.await_acks(20)
            both = json.loads(process.run("status", "--json").stdout)["push_secrets"]
            process.target = f"/push/{NEXT_SECRET}"  # the sender moves over, push by push
            pushers.await_acks(20)
        restart(NEXT_SECRET)
        assert process.push(FORM).headers["X-Push-Outcome"] == "accepted"
        process.target = f"/push/{SECRET}"
        assert process.push(FORM).status == 404
        # The push under way while a process ends may lose its connection, and is sent again; none is refused.
        assert set(pushers.outcomes) <= {"accepted", "spooled"}
    assert process.run("spool", "drain").returncode == 0
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'receiver.db'}")
    with engine.connect() as connection:
        stored = {str(row.id) for row in connection.execute(sa.select(pushes.c.id))}
        uses = connection.execute(sa.select(table).order_by(table.c.last_used_at)).all()
    engine.dispose()
    assert pushers.acks.keys() <= stored
    assert [(use["secret"], use["can_be_removed"]) for use in both] == [("active", False), ("retiring 1", False)]
    assert len(uses) == 2  # each process keeps what it has counted at its end
    # Only a machine on which the database is too slow for a push loses counts with a process.
    assert sum(use.pushes for use in uses) == len(stored) or "spooled" in pushers.outcomes


@pytest.mark.parametrize("lane", ["on", pytest.param("off", marks=pytest.mark.thorough)])
def test_observe_mode_takes_and_reports_what_enforcing_would_refuse(tmp_path: Path, lane: str) -> None:
    environment = {
        "RECEIVER_PUSH_LANE": lane,
        "RECEIVER_PUSH_TOKENS": f"default:{NEXT_SECRET},default:{SECRET}",
        "RECEIVER_PUSH_ALLOW": "198.51.100.0/24",
        "RECEIVER_PUSH_ALLOW_MODE": "observe",
    }
    with ServeProcess(tmp_path, environment=environment) as process:
        for _ in range(2):
            assert process.push(FORM).headers["X-Push-Outcome"] == "accepted"  # by the retiring secret
        process.target = f"/push/{NEXT_SECRET}"
        assert process.push(FORM).headers["X-Push-Outcome"] == "accepted"
        metrics = process.request("GET", "/metrics").body.decode()
        counted = [
            line for line in metrics.splitlines() if line.startswith("receiver_push_policy_observed_denials_total{")
        ]
        assert sorted(counted) == [
            'receiver_push_policy_observed_denials_total{reason="address"} 3.0',
            'receiver_push_policy_observed_denials_total{reason="secret"} 2.0',
        ]
        through_lane = re.findall(r"^receiver_fast_path_pushes_total (.*)$", metrics, re.MULTILINE)
        assert through_lane == ["3.0" if lane == "on" else "0.0"]
        if lane == "on":
            assert_commands_report(process)


def assert_commands_report(process: ServeProcess) -> None:
    told = json.loads(process.run("status", "--json").stdout)
    assert [(row["address"], row["pushes"]) for row in told["would_refuse"]] == [("127.0.0.1", 3)]
    listed = json.loads(process.run("pushes", "sources", "--json").stdout)["items"]
    assert [(row["address"], row["pushes"], row["would_refuse"]) for row in listed] == [("127.0.0.1", 3, True)]
    shown = process.run("pushes", "sources", "--allow", "127.0.0.0/8").stdout
    assert shown.splitlines()[1].split()[:2] + shown.split()[-1:] == ["127.0.0.1", "3", "no"]
    lines = [line.split("\t") for line in process.run("push-url").stdout.splitlines()]
    assert [url.rpartition("/")[2] for _, url, _ in lines] == [NEXT_SECRET, SECRET]
    assert [use.partition(",")[0] for _, _, use in lines] == ["active", "retiring 1"]


def test_allow_list_that_is_none_is_refused_with_a_word_on_what_it_is() -> None:
    wrong = CliRunner().invoke(cli, ["pushes", "sources", "--allow", "everybody"])
    assert (wrong.exit_code, "--allow: not a list of addresses" in wrong.output) == (2, True)


@one_database
def test_self_test_pushes_by_the_active_secret(
    make_runtime: Callable[..., Runtime], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = make_runtime(push_tokens=TOKENS)
    admin = log_in(create_app(runtime), runtime, "admin")
    targets: list[str] = []

    def push(_connection: object, target: str, **_more: object) -> SelfTestAnswer:
        targets.append(target)
        return SelfTestAnswer(status=200, location=None, push_id="-", outcome="accepted")

    monkeypatch.setattr(now, "push_self_test", push)
    for account in ("default", "other"):
        admin.post("/setup/self-test", {"account": account})
    assert targets == [f"/push/{NEXT_SECRET}", f"/push/{OTHER_SECRET}"]


@one_database
def test_setup_page_says_which_secret_is_still_used(make_runtime: Callable[..., Runtime]) -> None:
    network = ip_network("198.51.100.0/24")
    runtime = make_runtime(push_tokens=TOKENS, push_allow=(network,), push_allow_enforced=False)
    app = create_app(runtime)
    admin = log_in(app, runtime, "admin")
    assert app.test_client().post(f"/push/{SECRET}", data=FORM).status_code == 200
    runtime._drainer.stop()
    runtime.admission.secrets.flush_uses(runtime._save_uses, at_once=True)
    page = admin.page("/setup")
    assert "default: retiring 1 last push" in page.text
    assert "default: active not used yet" in page.text
    assert "127.0.0.1 · 1 × · if RECEIVER_PUSH_ALLOW were enforced" in page.text
    assert "1 × · if its retiring secret were removed" in page.text
