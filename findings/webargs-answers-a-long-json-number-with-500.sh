#!/usr/bin/env bash
# webargs 8.7.1 with Flask 3.1, as flask-smorest reads the JSON of a request: a body that is JSON, and that no schema
# forbids before it is parsed, {"task_id": 111…1} with 5,000 digits, as a data frame writes an id that it took for a
# number.
#
# One would guess 400 or 422, as for every other body that cannot be used, or that the number is read. It is neither:
# webargs' `load_json` turns JSONDecodeError and UnicodeDecodeError into its own error, and Python's limit on the digits
# of a whole number (4,300, since 3.11) raises a plain ValueError, which passes through as an unhandled exception: the
# client hears 500, and the log has a traceback. A number of 4,000 digits is read.
#
# Seen on 2026-11-29: 4,000 digits: 200; 5,000 digits: 500. Flask's own request.get_json() answers 400 to the latter.
# Source: webargs/core.py, `Parser.load_json`; https://docs.python.org/3/library/stdtypes.html#int-max-str-digits
# Exit code: 0 as described; 1 where that has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check webargs==8.7.1 flask==3.1.3 marshmallow==4.4.0
cat >"$place/try.py" <<'PYTHON'
import sys

from flask import Flask, jsonify, request
from marshmallow import fields
from webargs.flaskparser import use_args

app = Flask(__name__)


@app.post("/webargs")
@use_args({"task_id": fields.Raw()}, location="json")
def by_webargs(given):
    return jsonify(ok=True)


@app.post("/flask")
def by_flask():
    request.get_json()
    return jsonify(ok=True)


client = app.test_client()
app.logger.disabled = True
seen = {}
for digits in (4000, 5000):
    body = '{"task_id": ' + "1" * digits + "}"
    for path in ("/webargs", "/flask"):
        seen[path, digits] = client.post(path, data=body, content_type="application/json").status_code
        print(f"{path}, {digits} digits: {seen[path, digits]}")
sys.exit(0 if seen["/webargs", 4000] == 200 and seen["/webargs", 5000] == 500 and seen["/flask", 5000] == 400 else 1)
PYTHON
"$place/venv/bin/python" "$place/try.py"
