#!/usr/bin/env bash
# openapi-generator 7.26.0, generator `python`: a description of OpenAPI 3.1 with a section `webhooks` whose operation has
# a header parameter, as each signed webhook has (`webhook-id`).
#
# One would guess that webhooks, which a client does not call, are left out, or get methods like those of `paths`. They
# get methods, and the parameters of these have no type: `webhook_id: ,`. The program says that all went well; the package
# that it wrote cannot be imported. The same parameter under `paths` is written as `Annotated[StrictStr, …]`.
# `--global-property apis,models,supportingFiles`, by which webhooks are left out, avoids it.
#
# Seen on 2026-11-30: exit code 0; of two files of calls, that of the webhook is no Python, that of the path is.
# Source: OpenAPI 3.1.0, 4.8.1 "OpenAPI Object", `webhooks`; the files that it wrote.
# Needs Java 11 or newer. Exit code: 0 as described; 1 where that has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check openapi-generator-cli==7.26.0
cat >"$place/try.py" <<'PYTHON'
import ast
import json
import pathlib
import subprocess
import sys

place = pathlib.Path(sys.argv[1])


def operation(tag):
    header = {"name": "webhook-id", "in": "header", "required": True, "schema": {"type": "string"}}
    answers = {"204": {"description": "taken"}}
    return {"post": {"operationId": f"post_{tag}", "tags": [tag], "parameters": [header], "responses": answers}}


description = {
    "openapi": "3.1.0",
    "info": {"title": "signed events", "version": "1"},
    "paths": {"/orders": operation("path")},
    "webhooks": {"order.paid": operation("webhook")},
}
(place / "api.json").write_text(json.dumps(description))
command = [place / "venv/bin/openapi-generator-cli", "generate", "-g", "python", "-i", "api.json", "-o", "made"]
subprocess.run([*command, "--package-name", "made"], cwd=place, check=True, stdout=subprocess.DEVNULL)


def parses(name):
    try:
        ast.parse((place / f"made/made/api/{name}_api.py").read_text())
    except SyntaxError as error:
        return f"no: {error.text.strip()}"
    return "yes"


seen = {name: parses(name) for name in ("path", "webhook")}
print("is Python:", seen)
sys.exit(seen != {"path": "yes", "webhook": "no: webhook_id: ,"})
PYTHON
"$place/venv/bin/python" "$place/try.py" "$place"
