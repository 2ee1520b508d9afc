#!/usr/bin/env bash
# dlt 1.31.0, source rest_api: `resource_defaults.endpoint.params` beside one resource that loads incrementally.
#
# One would guess that defaults are copied for each resource. A resource that names no `params` of its own gets the very
# dict of the defaults. What the incremental configuration of one resource adds to its parameters (`start_param`) is then
# sent by every resource that comes after it. A server that ignores what it does not know hides it; one that knows the
# parameter there too leaves rows out, and no error says so; one that refuses unknown parameters ends the load.
#
# Seen on 2026-11-30: `messages` has the start parameter `since`, `replies` has none; with a default `limit` both requests
# have `limit` and `since`; without defaults `replies` asks for neither.
# Source: the documentation of rest_api, "resource_defaults"; dlt/sources/rest_api/config_setup.py,
# `_merge_resource_endpoints`, which merges `params` into a new dict only where the resource has some.
# Exit code: 0 as described; 1 where that has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export HOME="$place" RUNTIME__DLTHUB_TELEMETRY=false
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check dlt==1.31.0
cat >"$place/try.py" <<'PYTHON'
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlsplit

import dlt
from dlt.sources.rest_api import rest_api_source

asked = {}


class Server(BaseHTTPRequestHandler):
    def do_GET(self):
        place = urlsplit(self.path)
        asked[place.path.strip("/")] = sorted(parse_qs(place.query))
        body = b'[{"id": 1, "updated_at": "2026-01-02T00:00:00Z"}]'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()


def params_of(defaults):
    asked.clear()
    since = {"cursor_path": "updated_at", "start_param": "since", "initial_value": "2026-01-01T00:00:00Z"}
    source = rest_api_source(
        {
            "client": {"base_url": f"http://127.0.0.1:{server.server_port}/", "paginator": "single_page"},
            "resource_defaults": defaults,
            "resources": [{"name": "messages", "endpoint": {"incremental": since}}, "replies"],
        }
    )
    for resource in source.resources.values():
        list(resource)
    return dict(sorted(asked.items()))


seen = (params_of({"endpoint": {"params": {"limit": 10}}}), params_of({}))
print("with resource_defaults.endpoint.params:", seen[0])
print("without:", seen[1])
sys.exit(
    seen
    != (
        {"messages": ["limit", "since"], "replies": ["limit", "since"]},
        {"messages": ["since"], "replies": []},
    )
)
PYTHON
cd "$place"
"$place/venv/bin/python" "$place/try.py"
