"""The documentation, rendered from its Markdown in the page's language: its index, its search, and each page."""

from __future__ import annotations

import posixpath
from copy import deepcopy
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from flask import redirect, request, send_file, url_for
from flask_babel import gettext
from markupsafe import Markup

from receiver.alerting.rules import Alarm
from receiver.core import NotFound
from receiver.docs import ALARMS_INDEX, library, search
from receiver.web.console.pages import blueprint, language, render

if TYPE_CHECKING:
    from flask import Response
    from markdown_it import MarkdownIt
    from markdown_it.token import Token
    from werkzeug.wrappers import Response as AnyResponse

    from receiver.docs import Document, Place

_QUERY_MAX_CHARS = 200
_HITS_MAX = 30


@blueprint.context_processor
def _of_the_documentation() -> dict[str, Any]:
    return {"runbook_url": runbook_url}


def runbook_url(alarm: str) -> str:
    """Return the address of an alarm's section of the runbook."""
    place = library().find_alarm(Alarm(alarm).heading)
    return url_for("console.document", path=place.path, _anchor=place.anchor or None)


@blueprint.get("/runbook")
def runbook() -> AnyResponse:
    """Redirect to the runbook's first page."""
    return redirect(url_for("console.document", path=ALARMS_INDEX))


@blueprint.get("/docs")
def docs() -> Response:
    """Show the pages by kind, or those that have the words of a search."""
    query = request.args.get("q", "").strip()[:_QUERY_MAX_CHARS]
    pages = library().list_pages(language())
    kinds = [(kind, list(of_kind)) for kind, of_kind in groupby(pages, key=lambda page: page.kind)]
    hits = search(pages, query)[:_HITS_MAX] if query else []
    return render("docs.html", kinds=kinds, query=query, hits=hits)


@blueprint.get("/docs/<path:path>")
def document(path: str) -> AnyResponse:
    """Show a page. Other ways to name it lead to its address, from which its links are counted."""
    try:
        place = library().resolve(path)
    except NotFound:
        raise NotFound(gettext("There is no page at this address.")) from None
    if place.path != path:
        return redirect(url_for("console.document", path=place.path, _anchor=place.anchor or None))
    page = library().read(place.path, language())
    return render("document.html", document=page, body=_body_of(page.path, page.language))


@blueprint.get("/docs/images/<name>")
def document_image(name: str) -> Response:
    """Serve an image that a page shows."""
    file = library().find_image(f"images/{name}")
    if file is None:
        raise NotFound(gettext("There is no page at this address."))
    return send_file(file)


@cache
def _body_of(path: str, language: str) -> Markup:
    return render_document(library().read(path, language))


def render_document(page: Document) -> Markup:
    """Return the HTML of a page. Links to files that the console does not serve become their text."""
    tokens = deepcopy(page.tokens)
    for cell in tokens:
        if "text-align:right" in str(cell.attrs.pop("style", "")):  # an inline style, which the policy forbids
            cell.attrSet("class", "num")
        if cell.children:
            cell.children = _with_links_of_the_console(page, cell.children)
    markdown = _markdown()
    return Markup(markdown.renderer.render(tokens, markdown.options, {}))  # noqa: S704  (raw HTML is off)


@cache
def _markdown() -> MarkdownIt:
    # A server may run for weeks before anyone opens a page.
    from markdown_it import MarkdownIt  # noqa: PLC0415

    markdown = MarkdownIt("commonmark", {"html": False})
    markdown.add_render_rule("table_open", lambda *_: '<div class="scroll" tabindex="0"><table>')
    markdown.add_render_rule("table_close", lambda *_: "</table></div>")
    return markdown


def _with_links_of_the_console(page: Document, tokens: list[Token]) -> list[Token]:
    kept, dropping = [], False
    for token in tokens:
        name = {"link_open": "href", "image": "src"}.get(token.type)
        if name is not None:
            link = str(token.attrs.get(name, ""))
            place = library().follow(page, link)
            if place is not None:
                token.attrSet(name, _relative(page, place))
            is_gone = place is None and not (name == "href" and link.startswith("https://"))
            if token.type == "image" and is_gone:
                continue
            dropping = is_gone if token.type == "link_open" else dropping
        if not (dropping and token.type in ("link_open", "link_close")):
            kept.append(token)
    return kept


def _relative(page: Document, place: Place) -> str:
    """Return a link from page to page. It is the same wherever the console stands."""
    path = "" if place.path == page.path else quote(posixpath.relpath(place.path, posixpath.dirname(page.path) or "."))
    return f"{path}#{quote(place.anchor)}" if place.anchor else path
