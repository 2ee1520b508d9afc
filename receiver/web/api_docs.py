"""The API's documentation page, without assets from other hosts, and the page of the codes of its errors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flask import Blueprint, Response, redirect, render_template_string, send_from_directory, url_for

from receiver.web.api import PREFIX
from receiver.web.error_codes import EXPLANATIONS

if TYPE_CHECKING:
    from werkzeug import Response as BaseResponse

blueprint = Blueprint("docs", __name__, url_prefix=PREFIX)

_ASSETS = Path(__file__).parent / "static" / "swagger"
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>receiver: API</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="docs"></div>
<noscript><p>As a file: <a href="openapi.json">openapi.json</a></p></noscript>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/init.js"></script>
</body>
</html>
"""
_ERRORS = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>receiver: errors of the API</title>
</head>
<body>
<h1>Errors of the API</h1>
<dl>
{% for code, (statuses, meaning, advice) in explanations.items() %}
<dt id="{{ code }}"><code>{{ code }}</code> ({{ statuses | join(", ") }})</dt>
<dd>{{ meaning }} What to do: {{ advice }}.</dd>
{% endfor %}
</dl>
</body>
</html>
"""
# Swagger UI sets styles on elements; scripts come from this host only.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@blueprint.get("/docs")
def page() -> Response:
    """Return the documentation page."""
    return Response(_PAGE, content_type="text/html; charset=utf-8", headers={"Content-Security-Policy": _POLICY})


@blueprint.get("/docs/")
def page_with_slash() -> BaseResponse:
    """Return the way to the documentation page: its assets are beside that address."""
    return redirect(url_for("docs.page"))


@blueprint.get("/errors")
def errors() -> str:
    """Return the page of the codes, where `type` of a problem leads."""
    return render_template_string(_ERRORS, explanations=EXPLANATIONS)


@blueprint.get("/docs/<path:name>")
def asset(name: str) -> Response:
    """Return an asset of the page."""
    return send_from_directory(_ASSETS, name, max_age=86400)
