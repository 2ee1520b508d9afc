"""The naive view without its database: what Flask and gunicorn alone cost.

    PUSH_SECRET=… gunicorn --preload --worker-class gthread --workers 2 --threads 4 tests.bench.rivals.noop:app

Best of 1 to 3 workers by 1 to 64 threads on two cores that the load generator shares (32 clients, kept connections):
2 × 4 answered 6,500 pushes a second, 2 × 16 6,000, 2 × 2 5,500, 2 × 64 5,000, 2 × 1 4,800, 1 × 64 2,300.
"""

from __future__ import annotations

import hmac
import os

from flask import Flask, Response, abort, request

SECRET = os.environ["PUSH_SECRET"]

app = Flask(__name__)


@app.get("/")
def ready() -> str:
    """Answer that it is there."""
    return "ok"


@app.post("/push/<secret>")
def push(secret: str) -> Response:
    """Read the form and say `ok`; nothing is kept."""
    if not hmac.compare_digest(secret.encode(), SECRET.encode()):
        abort(404)
    if any(not request.form.get(name) for name in ("mobile", "taskid", "status", "receivetime")):
        abort(400)
    return Response("ok", content_type="text/plain; charset=utf-8")
