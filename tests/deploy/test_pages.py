"""The pages for people: every command in them is one, and every link leads somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from receiver.cli import cli

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PAGES = [ROOT / "README.md", *DEPLOY.glob("*.md"), *DEPLOY.glob("*/README.md"), *DEPLOY.glob("docs/**/*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_the_pages_is_one_with_its_options(page: Path) -> None:
    text = page.read_text()
    indented = re.findall(r"^ {4,}(?:[A-Z_]+=\S+ )*receiver ([a-z].*?)(?:  +#.*| [|>&<].*|)$", text, re.MULTILINE)
    quoted = re.findall(r"`receiver ([a-z][^`]*)`", text)
    for command in [*indented, *(one.replace("\n", " ") for one in quoted)]:
        words = [word for word in shlex.split(command.replace("…", "")) if word != "-"]
        shown = CliRunner().invoke(cli, [*words, "--help"])
        assert shown.exit_code == 0, (command, shown.output)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_the_pages_leads_somewhere(page: Path) -> None:
    text = page.read_text()
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", text):
        linked = page.parent / target if target else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}, anchor
