"""What is generated is as the code says."""

from __future__ import annotations

import re
from io import StringIO

from dotenv import dotenv_values

from receiver.alerting.rules import Alarm
from receiver.config import SETTINGS
from receiver.core import PushFault, PushFlag
from receiver.observability.log_fields import FIELDS
from receiver.web.error_codes import ErrorCode
from tests import reference

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


def test_generated_files_are_up_to_date() -> None:
    for path, text in reference.generated().items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run `make reference`"


def test_every_setting_is_explained() -> None:
    assert set(reference.meanings()) == set(SETTINGS)


def test_every_code_and_alarm_has_its_line_in_both_languages() -> None:
    generated = reference.generated()
    for directory in ("docs/reference", "docs/zh-CN/reference"):
        codes = generated[reference.DEPLOY / directory / "error-codes.md"]
        alarms = generated[reference.DEPLOY / directory / "alarms.md"]
        named = [*ErrorCode, *(fault.format(most="N") for fault in PushFault), *PushFlag]
        assert [name for name in named if f"\n| `{name}` |" not in codes] == []
        assert [alarm for alarm in Alarm if f"\n| `{alarm}` " not in alarms] == []


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
