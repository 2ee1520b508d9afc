"""What is generated from tables of the code: env.example, the reference pages in both languages, links of alerts.

`make reference` writes it, tests/docs/test_reference.py compares it. The Chinese texts are in CHINESE, by their
English, or in the catalogue of the program's texts.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from babel.messages.pofile import read_po

from receiver.config import SETTINGS, Settings
from receiver.docs import library
from receiver.translations import gettext_of
from tests.reference.meanings import meanings
from tests.reference.pages import PAGES

DEPLOY = Path(__file__).parents[2] / "deploy"
CHINESE = DEPLOY / "docs/zh-CN/reference.po"
_WIDTH = 120

_EXAMPLE_HEAD = """\
# Settings of receiver, for /etc/receiver/receiver.env. Commented values are the defaults. Written by `make reference`.
# Keep secrets in files: under systemd in /etc/receiver/secrets/ (PUSH_TOKENS is RECEIVER_PUSH_TOKENS, and so on),
# elsewhere in the file that RECEIVER_PUSH_TOKENS_FILE names. More: deploy/docs/reference/settings.md.
"""


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
    for name, parts in PAGES.items():
        for directory, language, other in (
            ("docs/reference", str, f"[中文](../zh-CN/reference/{name})"),
            ("docs/zh-CN/reference", translate, f"[English](../../reference/{name})"),
        ):
            title, *rest = parts(language)
            files[DEPLOY / directory / name] = "\n\n".join([f"# {title}", other, *rest]) + "\n"
    files |= {path: _with_runbook_urls(path.read_text()) for path in (DEPLOY / "prometheus").glob("alerts*.yml")}
    wrong = [text for text, found in used.items() if found == text] + sorted(chinese.keys() - used.keys())
    if wrong:
        raise LookupError("\n".join([f"{CHINESE.name} lacks, or has without use:", *wrong]))
    return files


def _with_runbook_urls(rules: str) -> str:
    """Return Prometheus rules whose alerts lead to where the runbook has their headings."""

    def lead(found: re.Match[str]) -> str:
        place = library().resolve(found["alert"])
        return f"{found['host']}deploy/docs/{place.path}.md#{place.anchor}"

    return re.sub(r"(?P<host>runbook_url: https://example.com/receiver/)\S+#(?P<alert>\w+)", lead, rules)


def env_example() -> str:
    """Return the file of settings to begin with."""
    meaning = meanings(Settings)
    lines = [_EXAMPLE_HEAD.rstrip()]
    for field, setting in SETTINGS.items():
        if setting.section:
            lines += ["", f"# --- {setting.section} ---"]
        lines += textwrap.wrap(meaning[field], _WIDTH, initial_indent="# ", subsequent_indent="# ")
        default = f'"{setting.default}"' if " " in setting.default else setting.default
        lines.append(f"#{setting.name}{'_FILE' if setting.secret else ''}={default}")
    return "\n".join(lines) + "\n"
