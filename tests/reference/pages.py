"""The reference pages: each its title, then its paragraphs and tables, in a language."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from receiver.alerting.rules import Alarm
from receiver.alerting.texts import every_text_of
from receiver.auth.api_keys import SCOPE_TEXTS
from receiver.cli import cli
from receiver.config import SETTINGS, Settings
from receiver.core import DeliveryStatus, MessageStatus, Outcome, PushFault, PushFlag
from receiver.observability.log_fields import FIELDS
from receiver.observability.metrics import list_metrics
from receiver.observability.processes import list_process_metrics
from receiver.support.answers import LookupAnswer
from receiver.web.console.audit_texts import ACTIONS
from receiver.web.console.error_texts import FLAGS, PUSH_FAULTS
from receiver.web.error_codes import EXPLANATIONS
from receiver.web.metrics_collector import list_gauges
from receiver.webhooks.endpoints import DeliveryState, EndpointState
from tests.reference.meanings import meanings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from enum import Enum

_SOURCES = (
    "They come from the environment or a `.env` file; the environment wins. `NAME_FILE` reads a value from a file, for "
    "secrets, as does systemd's credential `NAME`."
)
_FAULTS = (
    "A wrong setting stops the start, with one message that names every wrong one. A name that is no setting is warned "
    "of, with the nearest one. A value in quotation marks is refused where nothing has removed them, as `docker run "
    "--env-file` does not; a file is read as it is."
)
_TRACES = (
    "Traces go to `OTEL_EXPORTER_OTLP_ENDPOINT`, with the extra `otel`; it is a standard variable, as are "
    "`OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER` and so on."
)
_ABOUT_CODES = "Codes are stable: programs may decide by them. Texts beside them may change."
_ABOUT_ERRORS = (
    "`code` of a problem (`application/problem+json`, RFC 9457). Its `type` leads to the same list at "
    "`/api/v1/errors`; it is `about:blank` in answers to pushes, and at the send proxy. The refusals of a send also "
    "have `waiting_helps` and `advice`."
)
_ABOUT_FAULTS = (
    "The header `X-Push-Error`, and `error` of the journal: `FIELD: REASON`, separated by `; `. Such a push is "
    "acknowledged and kept; once its cause is fixed, run `receiver pushes replay --quarantined`."
)
_ABOUT_FLAGS = "`flags` of a push in the journal: it was parsed, but not as it came."
_ABOUT_ALARMS = (
    "Names as in notifications; figures of the moment stand in braces. The [runbook](../runbook/index.md) has more on "
    "each, under its name in Prometheus."
)
_ABOUT_LOG = (
    "Each line is a JSON object. `RECEIVER_LOG_FORMAT` sets the names of its fields. Each request has one line, even "
    "if it failed. A field without a value is left out."
)
_ABOUT_OTHER_FIELDS = (
    "Any other field NAME keeps its name in `json`, and is `receiver.NAME` in `ecs` and `otel`. `ecs` adds "
    "`ecs.version`, `service.name` and `service.version`. `otel` has `timestamp`, `severity_text`, `severity_number`, "
    "`body` and `event_name` at the top, all other fields under `attributes`. The service is under `resource`. "
    "`OTEL_SERVICE_NAME` sets its name."
)
_ABOUT_COMMANDS = (
    "`receiver COMMAND --help` has examples. Commands read the settings of the environment and of `.env`, as the "
    "server does. Help texts are in English."
)
_ABOUT_METRICS = (
    "`/metrics` has them in the format of Prometheus. Counters and histograms are added up over all serving processes "
    "of a node. A gauge of the database is left out while the database is unavailable."
)
_ABOUT_ACTIONS = "`action` of an entry in the audit log: console, `GET /api/v1/audit`, `receiver audit` and syslog."
_ABOUT_STATUSES = "The words of API, exports, SQL views and command line. The console shows them in its language."
_ABOUT_MESSAGES = (
    "Computed at each query, from three sources: the receipts, the result of the send, and the age of the message. The "
    "receipt with the latest platform time decides. In the same second, delivered wins over failed, and failed over "
    "unknown. `late` is true for a pending message that is older than `RECEIVER_LATE_AFTER_SECONDS`. `conflicting` is "
    "true if both delivered and failed were reported."
)
_ABOUT_RECEIPTS = "From the field `status` of the push; `vendor_status` has it as it came."
_ABOUT_PUSHES = "The header `X-Push-Outcome` of the answer, and `outcome` in the journal."
_ABOUT_ANSWERS = "What the look-up page and `receiver lookup` answer, for a message or for all attempts of a resend."
_ABOUT_ENDPOINTS = "`state` of a webhook endpoint: in the API, in `receiver webhooks list`, and in the console."
_ABOUT_DELIVERIES = "`state` of one event on its way to one webhook endpoint."


def _settings(translate: Callable[[str], str]) -> Iterator[str]:
    yield translate("Settings")
    yield translate(_SOURCES)
    yield translate(_FAULTS)
    meaning = meanings(Settings)
    rows: list[str] = []
    for field, setting in SETTINGS.items():
        if setting.section:
            if rows:
                yield "\n".join(rows)
            yield f"## {translate(setting.section)}"
            rows = _table_head(translate, "name", "default", "meaning")
        name = f"`{setting.name}`" + (f" {translate('(secret)')}" if setting.secret else "")
        rows.append(f"| {name} | {f'`{setting.default}`' if setting.default else ''} | {translate(meaning[field])} |")
    yield "\n".join(rows)
    yield f"## {translate('Traces')}"
    yield translate(_TRACES)


def _error_codes(translate: Callable[[str], str]) -> Iterator[str]:
    yield translate("Error codes")
    yield translate(_ABOUT_CODES)
    yield f"## {translate('Errors of the API')}"
    yield translate(_ABOUT_ERRORS)
    rows = _table_head(translate, "code", "HTTP status", "meaning", "what to do")
    for code, (statuses, meaning, advice) in EXPLANATIONS.items():
        rows.append(_row(f"`{code}`", ", ".join(map(str, statuses)), translate(meaning), translate(advice)))
    yield "\n".join(rows)
    yield f"## {translate('Why a push is quarantined')}"
    yield translate(_ABOUT_FAULTS)
    rows = _table_head(translate, "reason", "in the console")
    rows += [_row(f"`{fault.format(most='N')}`", translate(str(PUSH_FAULTS[fault]))) for fault in PushFault]
    yield "\n".join(rows)
    yield f"## {translate('Corrections of a push')}"
    yield translate(_ABOUT_FLAGS)
    rows = _table_head(translate, "correction", "in the console")
    rows += [_row(f"`{flag}`", translate(str(FLAGS[flag]))) for flag in PushFlag]
    yield "\n".join(rows)


def _alarms(translate: Callable[[str], str]) -> Iterator[str]:
    yield translate("Alarms")
    yield translate(_ABOUT_ALARMS)
    rows = _table_head(translate, "alarm", "title", "fault", "what to do")
    for alarm in Alarm:
        name = f"`{alarm}`" + (f" {translate('(critical)')}" if alarm.critical else "")
        rows += [_row(name, *map(translate, texts)) for texts in every_text_of(alarm)]
    yield "\n".join(rows)


def _log_fields(translate: Callable[[str], str]) -> Iterator[str]:
    yield translate("Fields of the log")
    yield translate(_ABOUT_LOG)
    rows = [_row("`json`", "`ecs`", "`otel`", translate("meaning")), "|---" * 4 + "|"]
    rows += [
        _row(f"`{field.json}`", f"`{field.ecs}`", f"`{field.otel}`", translate(field.meaning))
        for field in dict.fromkeys(FIELDS.values())
    ]
    yield "\n".join(rows)
    yield translate(_ABOUT_OTHER_FIELDS)


def _scopes(translate: Callable[[str], str]) -> Iterator[str]:
    yield translate("Scopes of API keys")
    yield translate("A key has one or several: `receiver keys create NAME --scope read`, or the page of keys.")
    rows = _table_head(translate, "scope", "meaning")
    rows += [_row(f"`{scope}`", translate(text)) for scope, text in SCOPE_TEXTS.items()]
    yield "\n".join(rows)


def _command_line(translate: Callable[[str], str]) -> Iterator[str]:
    yield translate("Command line")
    yield translate(_ABOUT_COMMANDS)
    rows = _table_head(translate, "command", "what it does")
    shown = list(_commands(click.Context(cli, info_name="receiver")))
    rows += [_row(f"[`{context.command_path}`](#{_anchor(context)})", _summary(context)) for context in shown]
    yield "\n".join(rows)
    for context in shown:
        yield f"## {context.command_path}"
        yield f"`{' '.join(context.command.get_usage(context).removeprefix('Usage: ').split())}`"
        options = [record for part in context.command.get_params(context) if (record := part.get_help_record(context))]
        own = [(names, text) for names, text in options if not names.endswith("--help")]
        if own:
            rows = _table_head(translate, "option", "meaning")
            yield "\n".join([*rows, *(_row(f"`{_cell(names)}`", _cell(text)) for names, text in own)])


def _anchor(context: click.Context) -> str:
    return context.command_path.replace(" ", "-")


def _commands(context: click.Context) -> Iterator[click.Context]:
    """Yield the context of every command that is no group, in the order of the help."""
    group = context.command
    if not isinstance(group, click.Group):
        yield context
        return
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield from _commands(click.Context(command, info_name=name, parent=context))


def _summary(context: click.Context) -> str:
    """Return the first paragraph of a command's help."""
    return _cell((context.command.help or "").split("\n\n")[0].partition("\b")[0])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _metrics(translate: Callable[[str], str]) -> Iterator[str]:
    yield translate("Metrics")
    yield translate(_ABOUT_METRICS)
    for title, described in (
        ("Counted where it happens", list_metrics()),
        ("Read at each scrape", list_gauges()),
        ("Of each process", list_process_metrics()),
    ):
        yield f"## {translate(title)}"
        rows = _table_head(translate, "metric", "type", "labels", "meaning")
        rows += [
            _row(f"`{each.name}`", each.kind, ", ".join(f"`{label}`" for label in each.labels), translate(each.text))
            for each in described
        ]
        yield "\n".join(rows)


def _audit_actions(translate: Callable[[str], str]) -> Iterator[str]:
    yield translate("Audit actions")
    yield translate(_ABOUT_ACTIONS)
    rows = _table_head(translate, "action", "in the console")
    rows += [_row(f"`{action}`", translate(str(text))) for action, text in ACTIONS.items()]
    yield "\n".join(rows)


def _statuses(translate: Callable[[str], str]) -> Iterator[str]:
    yield translate("Statuses")
    yield translate(_ABOUT_STATUSES)
    for title, about, table, left_out in STATUSES:
        yield f"## {translate(title)}"
        yield translate(about)
        meaning = meanings(table)
        rows = _table_head(translate, "status", "meaning")
        rows += [
            _row(f"`{_value(status)}`", translate(meaning[status.name])) for status in table if status not in left_out
        ]
        yield "\n".join(rows)


def _value(status: Enum) -> str:
    return status.value if isinstance(status.value, str) else status.name.lower()


STATUSES: tuple[tuple[str, str, type[Enum], frozenset[Enum]], ...] = (
    ("Of a message", _ABOUT_MESSAGES, MessageStatus, frozenset()),
    ("Of a receipt", _ABOUT_RECEIPTS, DeliveryStatus, frozenset([DeliveryStatus.PENDING])),
    ("Of a push", _ABOUT_PUSHES, Outcome, frozenset()),
    ("Of a look-up", _ABOUT_ANSWERS, LookupAnswer, frozenset()),
    ("Of a webhook endpoint", _ABOUT_ENDPOINTS, EndpointState, frozenset()),
    ("Of a delivery", _ABOUT_DELIVERIES, DeliveryState, frozenset()),
)


def _table_head(translate: Callable[[str], str], *names: str) -> list[str]:
    return [_row(*map(translate, names)), "|---" * len(names) + "|"]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


PAGES: Mapping[str, Callable[[Callable[[str], str]], Iterable[str]]] = {
    "settings.md": _settings,
    "error-codes.md": _error_codes,
    "alarms.md": _alarms,
    "log-fields.md": _log_fields,
    "scopes.md": _scopes,
    "command-line.md": _command_line,
    "metrics.md": _metrics,
    "audit-actions.md": _audit_actions,
    "statuses.md": _statuses,
}
