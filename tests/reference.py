"""What is generated from tables of the code: env.example, the reference pages in both languages, links of alerts.

`make reference` writes it, tests/deploy/test_reference.py compares it. The Chinese texts are in CHINESE, by their
English, or in the catalogue of the program's texts.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from babel.messages.pofile import read_po

from receiver.alerting.messages import every_text_of
from receiver.alerting.rules import Alarm
from receiver.auth.api_keys import SCOPE_TEXTS
from receiver.config import SETTINGS, Settings
from receiver.core import PushFault, PushFlag
from receiver.docs import library
from receiver.observability.log_fields import FIELDS
from receiver.translations import gettext_of
from receiver.web.console.error_texts import FLAGS, PUSH_FAULTS
from receiver.web.error_codes import EXPLANATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

DEPLOY = Path(__file__).parents[1] / "deploy"
CHINESE = DEPLOY / "docs/zh-CN/reference.po"
_WIDTH = 120

_EXAMPLE_HEAD = """\
# Settings of receiver, for /etc/receiver/receiver.env. Commented values are the defaults. Written by `make reference`.
# Keep secrets in files: under systemd in /etc/receiver/secrets/ (PUSH_TOKENS is RECEIVER_PUSH_TOKENS, and so on),
# elsewhere in the file that RECEIVER_PUSH_TOKENS_FILE names. More: deploy/docs/reference/settings.md.
"""
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
    "Names as in notifications; figures of the moment stand in braces. The runbook has more on each, under its name in "
    "Prometheus: `receiver docs DatabaseAway` prints it."
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


def generated() -> dict[Path, str]:
    """Return the text of each generated file. Raises LookupError naming texts without Chinese, or without use."""
    with CHINESE.open("rb") as file:
        chinese = {str(entry.id): str(entry.string) for entry in read_po(file) if entry.id}
    catalogue = gettext_of("zh-CN")
    used: dict[str, str] = {}

    def translate(text: str) -> str:
        used[text] = chinese.get(text) or catalogue(text)
        return used[text]

    files = {DEPLOY / "env.example": env_example()}
    files |= {path: _with_runbook_urls(path.read_text()) for path in (DEPLOY / "prometheus").glob("alerts*.yml")}
    for name, parts in _PAGES.items():
        for directory, language, other in (
            ("docs/reference", str, f"[中文](../zh-CN/reference/{name})"),
            ("docs/zh-CN/reference", translate, f"[English](../../reference/{name})，以英文为准。"),
        ):
            title, *rest = parts(language)
            files[DEPLOY / directory / name] = "\n\n".join([f"# {title}", other, *rest]) + "\n"
    wrong = [text for text, found in used.items() if found == text] + sorted(chinese.keys() - used.keys())
    if wrong:
        raise LookupError("\n".join([f"{CHINESE.name} lacks, or has without use:", *wrong]))
    return files


def meanings() -> Mapping[str, str]:
    """Return what stands below each field of Settings."""
    (table,) = ast.parse(inspect.getsource(Settings)).body
    assert isinstance(table, ast.ClassDef)
    return {
        field.target.id: " ".join(below.value.value.split())
        for field, below in pairwise(table.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str)
    }


def env_example() -> str:
    """Return the file of settings to begin with."""
    meaning = meanings()
    lines = [_EXAMPLE_HEAD.rstrip()]
    for field, setting in SETTINGS.items():
        if setting.section:
            lines += ["", f"# --- {setting.section} ---"]
        lines += textwrap.wrap(meaning[field], _WIDTH, initial_indent="# ", subsequent_indent="# ")
        default = f'"{setting.default}"' if " " in setting.default else setting.default
        lines.append(f"#{setting.name}{'_FILE' if setting.secret else ''}={default}")
    return "\n".join(lines) + "\n"


def _with_runbook_urls(rules: str) -> str:
    """Return Prometheus rules whose alerts lead to where the runbook has their headings."""

    def lead(found: re.Match[str]) -> str:
        place = library().resolve(found["alert"])
        return f"{found['host']}deploy/docs/{place.path}.md#{place.anchor}"

    return re.sub(r"(?P<host>runbook_url: https://example.com/receiver/)\S+#(?P<alert>\w+)", lead, rules)


# Each page: its title, then its paragraphs and tables, in a language.


def _settings(translate: Callable[[str], str]) -> Iterator[str]:
    yield translate("Settings")
    yield translate(_SOURCES)
    yield translate(_FAULTS)
    meaning = meanings()
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


def _table_head(translate: Callable[[str], str], *names: str) -> list[str]:
    return [_row(*map(translate, names)), "|---" * len(names) + "|"]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


_PAGES: Mapping[str, Callable[[Callable[[str], str]], Iterable[str]]] = {
    "settings.md": _settings,
    "error-codes.md": _error_codes,
    "alarms.md": _alarms,
    "log-fields.md": _log_fields,
    "scopes.md": _scopes,
}


if __name__ == "__main__":
    for path, text in generated().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
