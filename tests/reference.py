"""What is generated from the table of the settings: env.example, and the reference page in both languages.

`make reference` writes it, tests/deploy/test_reference.py compares it. The Chinese texts are in CHINESE, by their
English.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from babel.messages.pofile import read_po

from receiver.config import SETTINGS, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

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


def generated() -> dict[Path, str]:
    """Return the text of each generated file. Raises LookupError naming texts without Chinese, or without use."""
    with CHINESE.open("rb") as file:
        chinese = {str(entry.id): str(entry.string) for entry in read_po(file) if entry.id}
    used: list[str] = []

    def translate(text: str) -> str:
        used.append(text)
        return chinese.get(text, "")

    files = {
        DEPLOY / "env.example": env_example(),
        DEPLOY / "docs/reference/settings.md": settings_page(str, "[中文](../zh-CN/reference/settings.md)"),
        DEPLOY / "docs/zh-CN/reference/settings.md": settings_page(
            translate, "[English](../../reference/settings.md)，以英文为准。"
        ),
    }
    wrong = [text for text in used if not chinese.get(text)] + sorted(chinese.keys() - used)
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


def settings_page(translate: Callable[[str], str], other: str) -> str:
    """Return the reference page in a language; `other` leads to the other one."""
    return "\n\n".join(_settings_parts(translate, other)) + "\n"


def _settings_parts(translate: Callable[[str], str], other: str) -> Iterator[str]:
    yield f"# {translate('Settings')}"
    yield other
    yield translate(_SOURCES)
    yield translate(_FAULTS)
    meaning = meanings()
    rows: list[str] = []
    for field, setting in SETTINGS.items():
        if setting.section:
            if rows:
                yield "\n".join(rows)
            yield f"## {translate(setting.section)}"
            rows = [f"| {translate('name')} | {translate('default')} | {translate('meaning')} |", "|---|---|---|"]
        name = f"`{setting.name}`" + (f" {translate('(secret)')}" if setting.secret else "")
        rows.append(f"| {name} | {f'`{setting.default}`' if setting.default else ''} | {translate(meaning[field])} |")
    yield "\n".join(rows)
    yield f"## {translate('Traces')}"
    yield translate(_TRACES)


if __name__ == "__main__":
    for path, text in generated().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
