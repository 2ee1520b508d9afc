"""`docs`: the documentation at the terminal."""

from __future__ import annotations

import os
import shlex
from itertools import groupby

import click

from receiver.cli.common import one_line
from receiver.core import NotFound
from receiver.docs import Document, Hit, library, search
from receiver.translations import CATALOGUES, gettext_of

_HITS_MAX = 15


@click.command()
@click.argument("page", required=False)
@click.option("--language", type=click.Choice(sorted(CATALOGUES)), help="Default: by LC_ALL, LC_MESSAGES or LANG.")
@click.option("--search", "query", metavar="WORDS", help="List the pages with these words.")
def docs(page: str | None, language: str | None, query: str | None) -> None:
    """List the pages of the documentation, or print one. PAGE is its path, last word or title, or an alarm.

    \b
    Example:
      receiver docs rotate-secrets
      receiver docs DatabaseAway
      receiver docs --search "disk full"
    """
    if page and query:
        raise click.UsageError("pass a page, or --search")
    language = language or _language_of_the_terminal()
    if page:
        click.echo_via_pager(_text_of(page, language))
    elif query is not None:
        _print_hits(search(library().list_pages(language), query)[:_HITS_MAX])
    else:
        _print_pages(library().list_pages(language), language)


def _print_pages(pages: list[Document], language: str) -> None:
    width = max((len(page.path) for page in pages), default=0)
    for kind, of_kind in groupby(pages, key=lambda page: page.kind):
        click.echo(gettext_of(language)(kind.label))
        for page in of_kind:
            click.echo(f"  {page.path:<{width}}  {page.title}")


def _print_hits(hits: list[Hit]) -> None:
    if not hits:
        raise NotFound("no page has these words")
    for hit in hits:
        section = f", {hit.section.title}" if hit.section.level > 1 else ""
        click.echo(f"{hit.page.path}: {hit.page.title}{section}")
        click.echo(f"    {one_line(hit.excerpt)}")


def _text_of(name: str, language: str) -> str:
    """Return a page, or the section of an alarm. Raises NotFound, which says how to search for the words."""
    try:
        place = library().resolve(name)
    except NotFound as error:
        raise NotFound(f"{error} (to search: `receiver docs --search {shlex.quote(name)}`)") from None
    page = library().read(place.path, language)
    return page.section_markdown(place.anchor) if place.anchor else page.markdown


def _language_of_the_terminal() -> str:
    chosen = next((value for name in ("LC_ALL", "LC_MESSAGES", "LANG") if (value := os.environ.get(name))), "")
    return "zh-CN" if chosen.lower().startswith("zh") else "en"
