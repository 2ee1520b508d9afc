"""One judgement: page, command line, alarm and metric call the platform silent at the same minutes."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from receiver.alerting import run
from receiver.alerting.rules import Alarm
from receiver.alerting.run import Watch
from receiver.app import create_app
from receiver.cli.state import find_platform
from tests.harness.factories import NOON
from tests.support.test_signals import DAY, MINUTE, SECOND, keep, pushed, record, sent
from tests.web.console.staff import log_in

if TYPE_CHECKING:
    from collections.abc import Callable

    import time_machine
    from flask import Flask

    from receiver.runtime import Runtime

STARTED = NOON + SECOND  # with the first send that no push answers
MINUTES = 20


def _push_every_ten_minutes(runtime: Runtime) -> None:
    keep(runtime, *(pushed(NOON - n * 10 * MINUTE, number=100 + n) for n in range(DAY // (10 * MINUTE))))


def _send_to_five_numbers(runtime: Runtime) -> None:
    _push_every_ten_minutes(runtime)
    record(runtime, *(sent(STARTED + n * MINUTE, number=n) for n in range(5)))


def _send_five_codes_to_one_phone(runtime: Runtime) -> None:
    _push_every_ten_minutes(runtime)
    codes = [replace(sent(STARTED + n * MINUTE, number=1), task_id=f"again {n}") for n in range(5)]
    record(runtime, *codes)


def _send_nothing(_runtime: Runtime) -> None:
    pass


def _ask_all(runtime: Runtime, app: Flask, page: Callable[[str], str]) -> set[str]:
    """Return what page, banner, command line, alarm and metric say: one word if they agree."""
    alarms = {incident.alarm for incident in Watch(runtime).check_without_notifying()}
    text, banner = page("/status"), page("/banner")
    ok, said = find_platform(runtime)
    metrics = {
        sample.name: sample.value
        for family in text_string_to_metric_families(app.test_client().get("/metrics").text)
        for sample in family.samples
    }
    return {
        "silent" if Alarm.PLATFORM_SILENT in alarms else "fine",
        "silent" if "Problem at the platform" in text or "Problem in the network" in text else "fine",
        "silent" if "The platform has stopped pushing" in banner else "fine",
        "silent" if ok is False and said.startswith("silent: ") else "fine",
        "silent" if metrics["receiver_platform_silent"] else "fine",
    }


@pytest.mark.parametrize(
    ("fill", "silent_from"),
    [(_send_to_five_numbers, 14), (_send_five_codes_to_one_phone, None), (_send_nothing, None)],
)
def test_page_command_line_alarm_and_metric_agree_at_every_minute(
    fill: Callable[[Runtime], None],
    silent_from: int | None,
    make_runtime: Callable[..., Runtime],
    clock: time_machine.Traveller,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "ask_own_server", lambda _settings, path: (200, b"{}" if path == "/readyz" else b""))
    runtime = make_runtime(metrics_allow=(ip_network("127.0.0.0/8"),))
    app = create_app(runtime)
    staff = log_in(app, runtime, "admin")
    fill(runtime)
    for minute in range(MINUTES):
        clock.move_to(NOON + minute * MINUTE + 2 * SECOND)
        expected = "silent" if silent_from is not None and minute >= silent_from else "fine"
        assert _ask_all(runtime, app, lambda path: staff.page(path).text) == {expected}, minute


def test_nothing_has_come_yet_is_a_state_of_its_own(app: Flask, runtime: Runtime) -> None:
    staff = log_in(app, runtime, "admin")
    assert find_platform(runtime) == (None, "nothing has come yet; see `receiver push-url`")
    assert "No push has been received yet" in staff.page("/status").at("verdict")
    keep(runtime, pushed(runtime.now() - SECOND))
    assert find_platform(runtime)[0] is True
    assert staff.page("/status").at("verdict") == "Pushes arrive and are saved."
