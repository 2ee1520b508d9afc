"""Bare requests to a push URL: acknowledged, counted, and told of where they are what a redirect left of pushes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from receiver.alerting.diagnosis import DiagnosisReason, Situation, judge
from receiver.app import create_app
from tests.conftest import SECRET
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from pathlib import Path

    from receiver.runtime import Runtime


@pytest.mark.parametrize(
    ("probes", "headers", "redirected"),
    [(1, {}, False), (19, {}, False), (20, {}, True), (1, {"Referer": "http://sms.example.com/push/x"}, True)],
)
def test_bare_gets_as_after_a_redirect_are_told(
    runtime: Runtime, probes: int, headers: dict[str, str], *, redirected: bool
) -> None:
    client = create_app(runtime).test_client()
    for _ in range(probes):
        assert client.get(f"/push/{SECRET}", headers=headers).status_code == 200
    now = datetime.now(UTC)
    assert runtime.admission.is_redirected(now) is redirected
    assert not runtime.admission.is_redirected(now + timedelta(minutes=16))


def test_status_names_a_redirect() -> None:
    fine: dict[str, Any] = {"findings": (), "recent_refusals": {}, "platform_reachable": None, "untried": False}
    assert judge(Situation(**fine, redirected=True)).reasons == (DiagnosisReason.REDIRECTED,)
    assert DiagnosisReason.REDIRECTED not in judge(Situation(**fine)).reasons


def test_doctor_tells_of_bare_requests_and_metrics_count_them(tmp_path: Path) -> None:
    with ServeProcess(tmp_path) as process:
        process.make_key("read")
        assert "ok    probes: 0 empty requests" in process.run("doctor").stdout
        for _ in range(20):
            assert process.request("GET", process.target).status == 200
        assert process.request("HEAD", process.target).status == 200
        text = process.request("GET", "/metrics").body.decode()
        assert 'receiver_push_probes_total{method="GET"} 20.0' in text
        assert 'receiver_push_probes_total{method="HEAD"} 1.0' in text
        assert "note  probes: 21 empty requests" in process.run("doctor").stdout
