"""What Prometheus and Grafana are given: alerts that fire when they should, of metrics that there are, with advice."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from receiver.alerting import rules
from receiver.alerting.rules import Alarm
from receiver.app import create_app
from receiver.docs import library
from receiver.maintenance import backup_notes
from receiver.messages import balance
from receiver.messages.balance import Reading
from tests.harness.programs import require_program
from tests.support.test_signals import keep, pushed, record, sent, unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from receiver.runtime import Runtime

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS, CASES = DEPLOY / "prometheus/alerts.yml", DEPLOY / "prometheus/alerts_test.yml"
# Of what a deployment may not have: TLS of our own, a probe of the certificate from outside, a replica, syslog.
BY_SETTINGS = {
    "receiver_certificate_not_after_timestamp_seconds",
    "probe_ssl_earliest_cert_expiry",
    "receiver_replica_lag_seconds",
    "receiver_audit_syslog_lag_seconds",
}
ONLY_HERE = "RequestsFailing"  # of what the job of alarms does not look at
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
DAY = 86400  # in seconds
# In the order of the expressions; seconds where the metric has them.
FIXED = {
    Alarm.SPOOL_GROWING: [rules._SPOOL_OLD_SECONDS, rules._SPOOL_FULL_SHARE],
    Alarm.DELIVERY_FALLEN: [rules._SETTLED_MIN, rules._USUAL_SETTLED_MIN, rules._SIGMAS],
    Alarm.BALANCE_STALE: [rules._BALANCE_STALE / SECOND],
    Alarm.CERTIFICATE_ENDS_SOON: [
        rules._CERTIFICATE_SOON_DAYS * DAY,
        rules._CERTIFICATE_NOW_DAYS * DAY,
    ],
    Alarm.CERTIFICATE_ENDS_NOW: [rules._CERTIFICATE_NOW_DAYS * DAY],
    Alarm.PROJECTION_BEHIND: [rules._PROJECTION_LAG_SECONDS],
    Alarm.WEBHOOKS_BEHIND: [rules._WEBHOOK_LATE / SECOND],
    Alarm.REPLICA_BEHIND: [rules._REPLICA_LAG_SECONDS],
    Alarm.AUDIT_SYSLOG_LAG: [rules._AUDIT_LATE / SECOND],
    Alarm.BACKUP_OLD: [backup_notes._OLD / SECOND],
}


@pytest.fixture(scope="session")
def promtool() -> str:
    """Prometheus' own checker."""
    return require_program("promtool")


def check(promtool: str, *arguments: str | Path) -> None:
    done = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def dashboard() -> Any:
    return json.loads((DEPLOY / "grafana/receiver.json").read_text())


def expressions() -> Iterator[str]:
    for panel in dashboard()["panels"]:
        yield from (target["expr"] for target in panel.get("targets", []))


def alert_names() -> list[str]:
    return re.findall(r"- alert: (\w+)", ALERTS.read_text())


# --- Alerts ---------------------------------------------------------------------------------------------


def test_alerts_fire_when_they_should_and_at_nothing_else(promtool: str) -> None:
    check(promtool, "test", "rules", CASES)


def test_prometheus_takes_its_configuration(promtool: str) -> None:
    check(promtool, "check", "config", DEPLOY / "prometheus/prometheus.yml")


def test_alerts_are_the_alarms_of_the_job() -> None:
    text = ALERTS.read_text()
    assert sorted(alert_names()) == sorted([*(alarm.heading for alarm in Alarm), ONLY_HERE])
    for alarm in Alarm:
        (rule,) = re.findall(rf"- alert: {alarm.heading}\n(.*?)(?=\n\n|\Z)", text, re.DOTALL)
        assert f"severity: {'critical' if alarm.critical else 'warning'}" in rule


def test_every_alert_leads_to_its_section_of_the_runbook_by_a_url_that_one_command_changes() -> None:
    text = ALERTS.read_text()
    places = re.findall(r"runbook_url: (https://example.com/receiver/)(\S+)#(\w+)", text)
    sections = [library().resolve(name) for name in alert_names()]
    assert places == [("https://example.com/receiver/", f"deploy/docs/{at.path}.md", at.anchor) for at in sections]
    (command,) = re.findall(r"^#   (sed -i \S+) alerts.yml$", text, re.MULTILINE)
    changed = subprocess.check_output(["bash", "-c", command.replace("-i ", "")], input=text, text=True)
    assert f"runbook_url: https://git.example.org/ops/receiver/blob/main/{places[0][1]}#serverdown\n" in changed
    assert "runbook_url: https://example.com" not in changed


@pytest.mark.parametrize("alarm", Alarm)
def test_alerts_have_the_fixed_thresholds_of_the_rules(alarm: Alarm) -> None:
    (expression,) = re.findall(
        rf"- alert: {alarm.heading}\n.*?expr: (.*?)\n        for:", ALERTS.read_text(), re.DOTALL
    )
    numbers = re.findall(r"[<>]=? ([\d.]+)(?: \* (\d+)\b)?", expression)
    found = [float(number) * float(factor or 1) for number, factor in numbers]
    assert [number for number in found if number] == FIXED.get(alarm, [])


def test_alerts_are_compared_with_each_threshold_of_the_settings(scraped: str) -> None:
    told = set(re.findall(r"^receiver_alarm_threshold(\{.*?\})", scraped, re.MULTILINE))
    assert set(re.findall(r"receiver_alarm_threshold(\{.*?\})", ALERTS.read_text())) == told


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_must_not() -> None:
    cases = re.findall(r'- name: "(\w+):.*?\n(.*?)(?=\n\n|\Z)', CASES.read_text(), re.DOTALL)
    assert {name for name, case in cases if "exp_samples" in case} == set(alert_names())
    assert {name for name, case in cases if "exp_samples" not in case} == set(alert_names())


def test_probes_and_scrapes_are_no_requests_to_api_and_console() -> None:
    counted = [each for each in (*expressions(), ALERTS.read_text()) if "receiver_http_request" in each]
    assert len(counted) >= 4
    for each in counted:
        selectors = re.findall(r"receiver_http_request\w+(\{.*?\})?", each)
        assert {'route!~"/healthz|/readyz|/metrics"' in selector for selector in selectors} == {True}, each


# --- Metrics --------------------------------------------------------------------------------------------


@pytest.fixture
def scraped(make_runtime: Callable[..., Runtime]) -> str:
    """What /metrics tells of a database with something of everything."""
    runtime = make_runtime(
        metrics_allow=(ip_network("127.0.0.0/8"),),
        platform_credentials=(("default", "id", "key"),),
        balance_low=(("", 100),),
    )
    now = runtime.now()
    record(runtime, *(sent(now - 20 * MINUTE + number * SECOND, number=number) for number in range(5)), recorded_at=now)
    keep(runtime, unreadable(now - 21 * MINUTE), unreadable(now - 2 * HOUR))
    keep(runtime, *(pushed(now - 10 * HOUR + n * SECOND, number=n, status="01"[n % 2]) for n in range(10, 13)))
    sends = [sent(now - 11 * HOUR, number=number) for number in range(10, 13)]
    record(runtime, *sends, recorded_at=now)
    read_at = now - 2 * HOUR
    readings = [
        Reading(account=account, asked_at=read_at, answered_at=read_at, remain_point=7)
        for account in ("default", "elsewhere")
    ]
    runtime.database.write(lambda connection: balance.save_readings(connection, readings))

    answer = create_app(runtime).test_client().get("/metrics")
    assert answer.status_code == 200
    return answer.text


def test_scrape_tells_what_alarms_are_judged_by(scraped: str) -> None:
    told = {
        f"{sample.name}{sorted(sample.labels.items()) or ''}": sample.value
        for family in text_string_to_metric_families(scraped)
        for sample in family.samples
    }
    assert 1190 < told["receiver_receipts_overdue_seconds"] < 1500
    assert told["receiver_expected_pushes_missing"] == 0
    assert told["receiver_quarantined_last_hour"] == 1
    assert told["receiver_delivery_rate[('window', '7d')]"] == pytest.approx(1 / 3)
    assert told["receiver_settled_messages[('window', '7d')]"] == 3
    assert told["receiver_settled_messages[('window', '30m')]"] == 0
    assert "receiver_delivery_rate[('window', '30m')]" not in told
    assert told["receiver_spool_max_bytes"] == 1 << 30
    assert told["receiver_alarm_threshold[('alarm', 'pushes_refused')]"] == 20
    assert told["receiver_alarm_threshold[('alarm', 'delivery_fallen')]"] == 0.1
    assert told["receiver_balance_low[('account', 'default')]"] == 1
    assert told["receiver_balance_age_seconds[('account', 'default')]"] > 7190
    assert "receiver_balance_age_seconds[('account', 'elsewhere')]" not in told


def test_every_metric_of_alerts_and_dashboard_is_there(scraped: str) -> None:
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", scraped, re.MULTILINE))
    there = set(kinds)
    there |= {f"{name}{end}" for name, kind in kinds.items() if kind == "histogram" for end in ("_bucket", "_sum")}
    used = "\n".join([ALERTS.read_text(), *expressions()])
    named = set(re.findall(r"\b(?:receiver|probe|process)_\w+", used))
    assert named - there - BY_SETTINGS == set()
    assert named >= BY_SETTINGS


# --- Dashboard ------------------------------------------------------------------------------------------


def test_dashboard_asks_what_prometheus_understands(promtool: str, tmp_path: Path) -> None:
    rules = "".join(
        f"      - record: panel:{number}\n        expr: {json.dumps(expression.replace('$__rate_interval', '5m'))}\n"
        for number, expression in enumerate(expressions())
    )
    (tmp_path / "rules.yml").write_text(f"groups:\n  - name: dashboard\n    rules:\n{rules}")
    check(promtool, "check", "rules", tmp_path / "rules.yml")


@pytest.mark.parametrize(
    ("probed", "expected"), [("", ""), ("- {series: 'probe_ssl_earliest_cert_expiry', values: '2592000x9'}", "2591940")]
)
def test_dashboard_shows_no_certificate_that_nobody_serves(
    promtool: str, tmp_path: Path, probed: str, expected: str
) -> None:
    (panel,) = [panel for panel in dashboard()["panels"] if panel["title"] == "Certificate ends in"]
    (tmp_path / "test.yml").write_text(f"""
tests:
  - interval: 15s
    input_series:
      - {{series: 'receiver_certificate_not_after_timestamp_seconds{{instance="a"}}', values: '0x9'}}
      {probed}
    promql_expr_test:
      - expr: {json.dumps(panel["targets"][0]["expr"])}
        eval_time: 1m
        exp_samples: {f"[{{value: {expected}}}]" if expected else "[]"}
""")
    check(promtool, "test", "rules", tmp_path / "test.yml")


def test_dashboard_answers_the_four_questions_in_rows_that_do_not_overlap() -> None:
    panels = dashboard()["panels"]
    rows = [panel["title"] for panel in panels if panel["type"] == "row"]
    assert rows[:4] == ["Are pushes coming?", "Are they kept?", "How late?", "What is refused?"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        squares = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not squares & taken
        assert at["x"] + at["w"] <= 24
        taken |= squares
    assert {panel["datasource"]["uid"] for panel in panels if panel["type"] != "row"} == {"${datasource}"}
