"""The form of every page: commands that exist, links that lead somewhere, few words, short sentences."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from receiver.cli import cli
from tests.docs.blocks import DOCS, ROOT, read_page
from tests.docs.pages import ALL, APART, CHINESE, ENGLISH, README
from tests.docs.prose import paragraphs, sentences, words_of

if TYPE_CHECKING:
    from pathlib import Path

_PAGE_MAX = 9 * 1024
_README_MAX, _README_LINES_MAX = 6 * 1024, 110
_PROSE_MAX = 80 * 1024
_WORDS_P90_MAX = 25
_FORBIDDEN = re.compile(
    r"\b(somebody|nobody|whoever|anybody|everybody|tells?|told|telling|what waits)\b", re.IGNORECASE
)
# A command where a shell would begin one: at a line's start, behind an operator, a variable or sudo.
_COMMAND = re.compile(
    r"(?:^|[|;&(]|\bdo |\bthen |\bsudo |\bsudo -u \S+ |\breceiver )\s*(?:[A-Z_]+=\S+ )*receiver (?=[a-z])",
    re.MULTILINE,
)
_LINK = re.compile(r"(?<!!)\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")
_IMAGE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^\s*```.*?^\s*```", re.MULTILINE | re.DOTALL)

every_page = pytest.mark.parametrize("page", ALL, ids=lambda page: str(page.relative_to(ROOT)))
every_english_page = pytest.mark.parametrize("page", ENGLISH, ids=lambda page: str(page.relative_to(ROOT)))


def commands(page: Path) -> list[list[str]]:
    """Return the words of each command of a page, without what they stand beside."""
    shells = [block.code.replace("\\\n", " ") for block in read_page(page).blocks if block.language == "sh"]
    found = [_words_from(shell[begin.end() :]) for shell in shells for begin in _COMMAND.finditer(shell)]
    quoted = re.findall(r"`receiver ([a-z][^`]*)`", _FENCED.sub("", page.read_text(encoding="utf-8")))
    return [*found, *(_words_from(" ".join(one.split())) for one in quoted)]


def _words_from(text: str) -> list[str]:
    """Return the words of the command that the text begins with, up to an operator or the end of its line."""
    words = shlex.shlex(re.sub(r"(--[\w-]+ )?…", "", text), posix=True, punctuation_chars="();<>|&\n")
    words.whitespace = " \t"
    words.whitespace_split = True
    found = []
    for word in words:
        if set(word) <= set("();<>|&\n"):
            break
        found.append(word)
    return [word for word in found if word not in ("-", "--help")]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def _prose_size(page: Path) -> int:
    return sum(len(one.encode()) for one in paragraphs(page.read_text(encoding="utf-8"), code=True))


@every_page
def test_every_command_is_one_with_its_options(page: Path) -> None:
    for words in commands(page):
        # An option may be named without its value.
        tried = [CliRunner().invoke(cli, [*words, *value, "--help"]) for value in ((), ("1",))]
        assert 0 in [shown.exit_code for shown in tried], (words, tried[0].output)


@every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    nowhere = []
    for target, anchor in _LINK.findall(text):
        linked = page.parent / target if target else page
        if not linked.exists():
            nowhere.append(target)
        elif anchor and linked.suffix == ".md" and anchor not in anchors(linked):
            nowhere.append(f"{target}#{anchor}")
    images = [image for image in _IMAGE.findall(text) if not image.startswith("https://")]
    nowhere += [image for image in images if not (page.parent / image).is_file()]
    assert nowhere == []


@every_page
def test_place_of_a_page_that_neither_console_nor_command_shows_is_said(page: Path) -> None:
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    for words, target in re.findall(r"\[([^\]]*)\]\((?!https?:)([^)#\s]+\.md)", text):
        linked = (page.parent / target).resolve()
        if linked != README and not linked.is_relative_to(DOCS):
            assert re.search("in the (new )?bundle|安装包中的|^deploy/", words), words


@every_page
def test_page_is_no_longer_than_its_reader_has_time_for(page: Path) -> None:
    if page.parent.name == "reference":
        return  # tables are looked up, and not read
    size = page.stat().st_size
    assert size <= _PAGE_MAX, size
    if page.name == README.name and page.parent in (ROOT, CHINESE):
        assert size <= _README_MAX, size
        assert len(page.read_text(encoding="utf-8").splitlines()) <= _README_LINES_MAX


@every_page
def test_form_of_blocks_is_kept(page: Path) -> None:
    # A text block without a shell block before it is what a page about no commands shows.
    assert [fault for fault in read_page(page).faults if "text is the output" not in fault] == []


@every_english_page
def test_words_are_plain(page: Path) -> None:
    found = [(word, text) for text in paragraphs(page.read_text(encoding="utf-8")) for word in _FORBIDDEN.findall(text)]
    assert found == []


def test_sentences_are_short() -> None:
    found = [one for page in ENGLISH for one in sentences(page.read_text(encoding="utf-8"))]
    lengths = sorted(map(words_of, found))
    assert len(lengths) > 500
    assert lengths[int(len(lengths) * 0.9)] <= _WORDS_P90_MAX


def test_everything_but_what_is_looked_up_can_be_read_in_an_hour() -> None:
    read = [page for page in ENGLISH if not set(APART) & set(page.relative_to(ROOT).parts)]
    sizes = {str(page.relative_to(ROOT)): _prose_size(page) for page in read}
    assert sum(sizes.values()) < _PROSE_MAX, sorted(sizes.items(), key=lambda item: -item[1])[:10]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Stop it. Then start it.", [2, 3]),
        ("Run `receiver status` now. `RECEIVER_BIND` is read [here](a.md).", [3, 4]),
        ("# A heading\n\n| a | b |\n|---|---|\n| one two | three |\n\n```sh\ntrue\n```\n\n- One item.\n- Two", [2, 1]),
        ("A sentence that\ngoes on, version 0.1.0 too.", [8]),
    ],
)
def test_sentences_are_counted_without_tables_headings_and_code(text: str, words: list[int]) -> None:
    assert [words_of(one) for one in sentences(text)] == words
