"""Clocks and zones that differ between the platform and us are noticed, and said where one looks."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from receiver.app import create_app
from receiver.cli import cli
from receiver.db.clocks import find_difference, judge
from tests.harness.factories import NOON, make_push
from tests.web.console.staff import log_in
from tests.webhooks.test_webhooks import keep

if TYPE_CHECKING:
    from pathlib import Path

    from receiver.runtime import Runtime

SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
USUAL = (2 * SECOND, 5 * SECOND, 8 * SECOND, 90 * SECOND, 3 * SECOND)  # after which a receipt comes


def pushed(runtime: Runtime, ahead: timedelta) -> None:
    """Keep receipts that came now, of a platform whose clock is so far ahead."""
    now = runtime.now().replace(microsecond=0)
    keep(
        runtime,
        *(
            replace(
                make_push(task_id=f"{number}", second=int((now + ahead - late - NOON).total_seconds())),
                received_at=now,
            )
            for number, late in enumerate(USUAL)
        ),
    )


@pytest.mark.parametrize(
    ("hours", "said"),
    [(8, "8 hours ahead"), (-8, "8 hours behind"), (-5.5, "5.5 hours behind"), (0, None)],
)
def test_difference_of_a_zone_is_noted_by_doctor_set_up_and_status(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: float, said: str | None
) -> None:
    pushed(runtime, hours * HOUR)
    found = runtime.ask(lambda connection: find_difference(connection, now=runtime.now()))
    assert found == (hours * HOUR or None)
    monkeypatch.setenv("RECEIVER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("RECEIVER_DATABASE_URL", runtime.settings.database_url.replace("+psycopg", ""))
    checks = {row["check"]: row for row in json.loads(CliRunner().invoke(cli, ["doctor", "--json"]).stdout)}
    assert checks["clocks"]["note"] is (said is not None)
    assert said is None or f"are {said} " in checks["clocks"]["text"]
    staff = log_in(create_app(runtime), runtime, "admin")
    for page in ("/setup", "/status"):
        assert ("RECEIVER_TIMEZONE" in staff.page(page).at("main")) is (said is not None), page


@pytest.mark.parametrize(
    "ahead",
    [
        [],
        [8 * HOUR] * 4,  # too few to say
        [-2 * SECOND] * 50,
        [-20 * 60 * SECOND] * 50,  # late, by no zone
        [-number * HOUR for number in range(50)],  # of an outage: each late by another time
        [8 * HOUR] * 7 + [-2 * SECOND] * 3,  # of two nodes, or of a change of the setting
    ],
)
def test_what_is_late_or_mixed_is_no_difference_of_zones(ahead: list[timedelta]) -> None:
    assert judge(ahead) is None


def test_a_few_that_came_late_hide_no_difference_of_zones() -> None:
    assert judge([-8 * HOUR - 4 * SECOND] * 9 + [-11 * HOUR]) == -8 * HOUR
