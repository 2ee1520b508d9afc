"""What was noted while a clock was years ahead keeps nobody out, and nothing silent, once it is right."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from receiver.alerting import incidents
from receiver.alerting.follow import IncidentState, PendingNotification, follow
from receiver.alerting.push_flow import find_push_flow
from receiver.alerting.rules import Alarm, Finding
from receiver.app import create_app
from receiver.auth import api_keys, changes, users
from receiver.db import once
from receiver.db.tables import deliveries as deliveries_table
from receiver.db.tables import login_failures, look_ups
from receiver.db.tables import notices as notices_table
from receiver.db.tables import targets as targets_table
from receiver.messages import balance, recording
from receiver.messages.balance import Reading
from receiver.sending import attempts
from receiver.support import arrivals, lookup_store
from receiver.webhooks import changes as endpoint_changes
from receiver.webhooks import deliveries, endpoints
from tests.conftest import make_key
from tests.harness.factories import make_push, make_send
from tests.harness.journal import save_pushes
from tests.maintenance.test_prune import id_of
from tests.sending.test_sending import make_attempt

if TYPE_CHECKING:
    from receiver.runtime import Runtime

NOW = datetime.now(UTC).replace(microsecond=0)
LATER = NOW + timedelta(days=3660)
HOUR = timedelta(hours=1)


def test_failed_log_ins_of_the_future_lock_nobody_out(runtime: Runtime) -> None:
    who = {"name": "li.wei", "address": "10.0.0.1"}

    def fail(at: datetime, count: int) -> None:
        for _ in range(count):
            runtime.database.write(lambda c: users.note_failure(c, **who, now=at))

    def locked(at: datetime) -> bool:
        return runtime.ask(lambda c: users.is_locked(c, **who, now=at))

    fail(LATER, 6)
    assert (locked(LATER), locked(NOW)) == (True, False)
    fail(NOW, 4)
    assert not locked(NOW)  # counted anew
    fail(NOW, 1)
    assert locked(NOW)
    assert runtime.ask(lambda c: c.scalar(sa.select(sa.func.max(login_failures.c.last_at)))) == NOW


def test_code_that_was_used_in_the_future_does_not_use_up_those_of_now(runtime: Runtime) -> None:
    user = runtime.database.write(lambda c: changes.create_user(c, name="a", role=users.Role.SUPPORT, now=NOW))

    def use(step: int) -> bool:
        return runtime.database.write(lambda c: users.use_totp_step(c, user.id, step))

    assert [use(step) for step in (10_000_000, 60_000_000, 60_000_000, 10_000_001, 10_000_001, 10_000_000)] == [
        True, True, False, True, False, False,
    ]  # fmt: skip


def test_session_of_the_future_does_not_hold_for_years(runtime: Runtime) -> None:
    user = runtime.database.write(lambda c: changes.create_user(c, name="a", role=users.Role.SUPPORT, now=NOW))
    held = {"confirmed": True, "address": "", "lasts": timedelta(hours=12)}
    token = runtime.database.write(lambda c: users.begin_session(c, user.id, now=LATER, **held))  # type: ignore[arg-type]
    assert runtime.ask(lambda c: users.find_session(c, token, LATER)) is not None
    assert runtime.ask(lambda c: users.find_session(c, token, NOW)) is None
    assert runtime.ask(lambda c: users.count_sessions(c, NOW)) == {}


def test_look_up_of_the_future_is_not_kept_until_then(runtime: Runtime) -> None:
    for at in (LATER, NOW):
        runtime.database.write(lambda c, at=at: lookup_store.save_look_up(c, 1, "15080921090", now=at))  # type: ignore[misc]
    assert runtime.ask(lambda c: c.scalars(sa.select(look_ups.c.created_at)).all()) == [NOW]


def test_use_of_a_key_in_the_future_does_not_hide_that_of_now(runtime: Runtime) -> None:
    headers = {"Authorization": make_key(runtime)}
    (key,) = runtime.ask(api_keys.list_keys)
    runtime.database.write(lambda c: api_keys.note_used(c, key.id, LATER))
    answer = create_app(runtime).test_client().get("/api/v1/receipts", headers=headers)
    answer.close()  # it is noted afterwards
    assert answer.status_code == 200
    (key,) = runtime.ask(api_keys.list_keys)
    assert key.last_used_at is not None
    assert abs(key.last_used_at - datetime.now(UTC)) < HOUR


def test_notice_of_the_future_is_said_again_now(runtime: Runtime) -> None:
    def claim(at: datetime) -> bool:
        return runtime.database.write(
            lambda c: once.claim_notice(c, "balance_low:default", now=at, every=timedelta(days=1))
        )

    assert [claim(at) for at in (LATER, NOW, NOW, NOW - timedelta(minutes=1))] == [True, True, False, False]
    runtime.database.write(lambda c: once.note(c, once.QUARANTINE_SEEN, now=LATER))
    assert runtime.ask(lambda c: once.find_noted(c, once.QUARANTINE_SEEN, now=NOW)) is None
    assert runtime.ask(lambda c: c.scalar(sa.select(sa.func.max(notices_table.c.said_at)))) == LATER


def test_incident_that_was_seen_in_the_future_is_said_and_ends_now() -> None:
    finding = Finding(alarm=Alarm.PUSHES_QUARANTINED, evidence={"count": 6})
    seen = follow(None, finding, LATER)
    again = follow(seen, finding, NOW)
    said = follow(again, finding, NOW + timedelta(minutes=1))
    assert again is not None
    assert said is not None
    assert (again.said_at, said.said_at) == (None, NOW + timedelta(minutes=1))
    gone = follow(replace(said, clear_at=LATER), None, NOW + HOUR)
    over = follow(gone, None, NOW + HOUR + timedelta(minutes=1))
    assert over is not None
    assert over.recovered_at == NOW + HOUR + timedelta(minutes=1)


def test_claim_to_tell_of_an_incident_in_the_future_keeps_nobody_from_telling_it(runtime: Runtime) -> None:
    shared = incidents.SharedIncidents(runtime.database)
    incident = follow(None, Finding(alarm=Alarm.PUSHES_QUARANTINED, evidence={}), NOW)
    assert incident is not None
    telling = PendingNotification(incident_id="1", incident=incident, target="a", state=IncidentState.FIRING)
    assert [shared.claim(telling, at) for at in (LATER, NOW, NOW)] == [True, True, False]


def test_push_of_the_future_does_not_hide_a_silence(runtime: Runtime) -> None:
    for at in (NOW - HOUR, LATER):
        save_pushes(runtime.database, [replace(make_push(), id=id_of(at), received_at=at)])
    last = runtime.ask(lambda c: arrivals.find_last_push(c, now=NOW))
    assert last is not None
    assert last.at == NOW - HOUR
    sends = [make_send(mobile=f"1508092{n:04}", task_id="waits", sent_at=NOW - HOUR / 2) for n in range(9)]
    runtime.database.write(lambda c: recording.record_sent(c, sends, recorded_at=NOW))
    flow = runtime.ask(lambda c: find_push_flow(c, now=NOW))
    assert (flow.last_push_at, flow.unanswered_since) == (NOW - HOUR, NOW - HOUR / 2)


def test_balance_of_the_future_is_not_the_last_one(runtime: Runtime) -> None:
    readings = [
        Reading(account="default", asked_at=at, answered_at=at, remain_point=left)
        for at, left in ((NOW, 5), (LATER, 999))
    ]
    runtime.database.write(lambda c: balance.save_readings(c, readings))
    last = runtime.ask(lambda c: balance.find_last_readings(c, now=NOW))
    assert last["default"].remain_point == 5


@pytest.mark.parametrize("limit", [{"min_interval": HOUR}, {"per_number_per_day": 1}, {"per_day": 1}], ids=str)
def test_send_of_the_future_uses_up_no_limit_of_now(runtime: Runtime, limit: dict[str, timedelta | int]) -> None:
    limits = attempts.SendLimits(**limit)  # type: ignore[arg-type]

    def begin(at: datetime) -> str | None:
        attempt = make_attempt(sent_at=at)
        begun = runtime.database.write(
            lambda c: attempts.begin_attempt(c, attempt, recorded_at=at, limits=limits, day_began=NOW - HOUR)
        )
        return begun.error_message

    assert begin(LATER) is None
    assert begin(NOW) is None
    assert "local limit" in (begin(NOW + timedelta(seconds=1)) or "")


def test_delivery_of_the_future_goes_out_now(runtime: Runtime) -> None:
    runtime.webhook_worker.stop()
    new = endpoints.NewEndpoint(name="shop", url="https://127.0.0.1:9/", format=endpoints.PayloadFormat.RAW)
    runtime.database.write(lambda c: endpoint_changes.create_endpoint(c, new, now=NOW))
    target_id = runtime.ask(lambda c: c.scalars(sa.select(targets_table.c.id)).one())
    row = {"target_id": target_id, "event_id": id_of(NOW), "event": "push", "created_at": LATER, "next_at": LATER}
    runtime.database.write(lambda c: c.execute(sa.insert(deliveries_table).values(row)))
    runtime.database.write(lambda c: c.execute(sa.update(targets_table).values(retry_at=LATER)))

    def claim() -> bool:
        return runtime.database.write(lambda c: deliveries.claim(c, target_id, runtime.clock(), limit=9)) is not None

    assert [claim(), claim()] == [False, True]  # the first look brings it back
