"""The API's documentation page, without assets from other hosts."""

from __future__ import annotations

from pathlib import Path

from flask import Blueprint, Response, send_from_directory

from receiver.web.api import PREFIX

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
# Swagger UI sets styles on elements; scripts come from this host only.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@blueprint.get("/docs")
def page() -> Response:
    """Return the documentation page."""
    return Response(_PAGE, content_type="text/html; charset=utf-8", headers={"Content-Security-Policy": _POLICY})


@blueprint.get("/docs/<path:name>")
def asset(name: str) -> Response:
    """Return an asset of the page."""
    return send_from_directory(_ASSETS, name, max_age=86400)
