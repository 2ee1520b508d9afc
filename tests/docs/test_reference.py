"""What is generated is as the code says."""

from __future__ import annotations

import re
from io import StringIO
from ipaddress import ip_network
from typing import TYPE_CHECKING

import click
import pytest
from dotenv import dotenv_values
from prometheus_client.parser import text_string_to_metric_families

from receiver.alerting.rules import Alarm
from receiver.app import create_app
from receiver.cli import cli
from receiver.config import SETTINGS, Settings
from receiver.core import PushFault, PushFlag
from receiver.observability.log_fields import FIELDS
from receiver.observability.metrics import list_metrics
from receiver.observability.processes import list_process_metrics
from receiver.web.console.audit_texts import ACTIONS
from receiver.web.error_codes import ErrorCode
from receiver.web.metrics_collector import list_gauges
from tests import reference
from tests.reference.meanings import meanings
from tests.reference.pages import STATUSES

if TYPE_CHECKING:
    from collections.abc import Callable

    from receiver.runtime import Runtime

SECRETS = {
    "RECEIVER_DATABASE_URL",
    "RECEIVER_READ_DATABASE_URL",
    "RECEIVER_ENCRYPTION_KEYS",
    "RECEIVER_PUSH_TOKENS",
    "RECEIVER_PLATFORM_CREDENTIALS",
    "RECEIVER_OIDC_CLIENT_SECRET",
    "RECEIVER_ALARM_URLS",
    "RECEIVER_ALARM_HEARTBEAT_URL",
    "RECEIVER_WEBHOOKS_PROXY",
}


@pytest.fixture
def database_url(sqlite_database_url: str) -> str:
    """Return an embedded database: the metrics are the same on both."""
    return sqlite_database_url


def test_generated_files_are_up_to_date() -> None:
    for path, text in reference.generated().items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run `make reference`"


def test_every_setting_is_explained() -> None:
    assert set(meanings(Settings)) == set(SETTINGS)


def test_every_code_and_alarm_has_its_line_in_both_languages() -> None:
    generated = reference.generated()
    for directory in ("docs/reference", "docs/zh-CN/reference"):
        codes = generated[reference.DEPLOY / directory / "error-codes.md"]
        alarms = generated[reference.DEPLOY / directory / "alarms.md"]
        named = [*ErrorCode, *(fault.format(most="N") for fault in PushFault), *PushFlag]
        assert [name for name in named if f"\n| `{name}` |" not in codes] == []
        assert [alarm for alarm in Alarm if f"\n| `{alarm}` " not in alarms] == []


def test_every_status_and_audit_action_has_its_line_in_both_languages() -> None:
    generated = reference.generated()
    for directory in ("docs/reference", "docs/zh-CN/reference"):
        statuses = generated[reference.DEPLOY / directory / "statuses.md"]
        actions = generated[reference.DEPLOY / directory / "audit-actions.md"]
        names = [status for _, _, table, left_out in STATUSES for status in table if status not in left_out]
        rows = re.findall(r"^\| `(\w+)` \| \S", statuses, re.MULTILINE)
        assert rows == [name if isinstance(name, str) else name.name.lower() for name in names]
        assert [action for action in ACTIONS if f"\n| `{action}` |" not in actions] == []


def test_every_command_has_a_section_with_all_its_options() -> None:
    page = reference.generated()[reference.DEPLOY / "docs/reference/command-line.md"]
    sections = dict(re.findall(r"^## receiver (.+)\n\n([^#]*)", page, re.MULTILINE))

    def look(command: click.Command, path: list[str]) -> None:
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                assert found is not None
                look(found, [*path, name])
            return
        section = sections.pop(" ".join(path))
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert [
                    name for name in parameter.opts if f"`{name}" not in section and f", {name}" not in section
                ] == []

    look(cli, [])
    assert sections == {}


def test_every_metric_that_is_served_has_its_line(make_runtime: Callable[..., Runtime]) -> None:
    client = create_app(make_runtime(metrics_allow=(ip_network("127.0.0.0/8"),))).test_client()
    page = reference.generated()[reference.DEPLOY / "docs/reference/metrics.md"]
    served = text_string_to_metric_families(client.get("/metrics").text)
    names = {f"{each.name}_total" if each.type == "counter" else each.name for each in served}
    names -= {name for name in names if name.endswith("_created")}  # of a counter, when it began
    described = {each.name for each in (*list_metrics(), *list_gauges(), *list_process_metrics())}
    assert names - described == set()
    assert [name for name in described if f"\n| `{name}` |" not in page] == []
    labels = {each.name: each.labels for each in list_metrics()}
    assert labels["receiver_http_requests_total"] == ("route", "method", "status")
    assert labels["receiver_queue_depth"] == ()


def test_every_field_of_the_log_has_one_line_and_no_format_gives_a_name_to_two() -> None:
    rows = set(FIELDS.values())
    for names in ([row.json for row in rows], [row.ecs for row in rows], [row.otel for row in rows]):
        assert len(set(names)) == len(rows)
    page = (reference.DEPLOY / "docs/reference/log-fields.md").read_text()
    assert [row.json for row in rows if f"\n| `{row.json}` |" not in page] == []


def test_secrets_are_those_that_no_log_may_show() -> None:
    assert {setting.name for setting in SETTINGS.values() if setting.secret} == SECRETS


def test_example_of_settings_without_its_signs_gives_the_defaults_and_secrets_in_files() -> None:
    text = (reference.DEPLOY / "env.example").read_text()
    given = dotenv_values(stream=StringIO(re.sub("^#RECEIVER_", "RECEIVER_", text, flags=re.MULTILINE)))
    assert given == {
        f"{setting.name}_FILE" if setting.secret else setting.name: setting.default for setting in SETTINGS.values()
    }
