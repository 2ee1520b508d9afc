#!/usr/bin/env bash
# Flask 3.1.3 with Werkzeug 3.1.9, and MessageBird's validator of signed callbacks (messagebird 2.2.0), which is given
# "the raw url including the protocol, hostname and query string": a callback address with an escaped parameter, such as
# `?shop=https%3A%2F%2Fshop.example%2F`, as urllib.parse.urlencode and URLSearchParams write it.
#
# One would guess that `request.url` is that address, or, since Werkzeug calls it an IRI, that only letters beyond ASCII
# differ and `iri_to_uri`, which its documentation names for the way back, gives the address again. But Werkzeug also
# unescapes ASCII, though `uri_to_iri` is said to leave "all reserved and invalid characters quoted": `%3A`, `%2F`,
# `%40`, `%27` and others, 89 of the 95 printable characters. `iri_to_uri` does not escape them again. So the validator
# refuses each true callback to such an address, while one without escapes passes. Host, raw path and
# `request.query_string`, which is as it came, together are the address that was signed.
#
# Seen on 2026-12-01: plain: taken by all three; with `%3A%2F%2F`: refused with request.url, refused with iri_to_uri of
# it, taken with the raw query; with a Chinese word: refused, taken, taken.
# Source: werkzeug/sansio/utils.py, `get_current_url`; werkzeug/urls.py, `uri_to_iri`; messagebird/request_validator.py.
# Twilio's guide for its own validator says that Flask "will sometimes automatically unescape the query string".
# Exit code: 0 as described; 1 where that has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check flask==3.1.3 werkzeug==3.1.9 \
    messagebird==2.2.0 pyjwt==2.15.1
cat >"$place/try.py" <<'PYTHON'
import hashlib
import string
import sys
import time
from urllib.parse import urlencode

import jwt
from flask import Flask, request
from messagebird.error import ValidationError
from messagebird.request_validator import RequestValidator
from werkzeug.urls import iri_to_uri

KEY = "a key of thirty-two bytes or more"
BASE = "https://receiver.example/push"
app = Flask(__name__)


def asked(query):
    """Return the context of a request with just this query, as a server hands it on."""
    as_it_came = {"QUERY_STRING": query}
    return app.test_request_context("/push", base_url="https://receiver.example", environ_overrides=as_it_came)


def taken(url, signature):
    try:
        RequestValidator(KEY).validate_signature(signature, url, b"")
    except ValidationError:
        return False
    return True


seen = {}
for name, given in (("plain", "a-shop"), ("address", "https://shop.example/"), ("Chinese", "验证码")):
    query = urlencode({"shop": given})
    now = int(time.time())
    claims = {"iss": "MessageBird", "nbf": now - 10, "exp": now + 60}
    claims["url_hash"] = hashlib.sha256(f"{BASE}?{query}".encode()).hexdigest()
    signature = jwt.encode(claims, KEY, algorithm="HS256")
    with asked(query):
        raw = f"{request.host_url.rstrip('/')}/push?{request.query_string.decode('ascii')}"
        seen[name] = tuple(taken(url, signature) for url in (request.url, iri_to_uri(request.url), raw))
        print(f"signed {BASE}?{query}\n  request.url {request.url}")
    print("  taken with request.url, with iri_to_uri of it, with the raw query:", *seen[name])
changed = 0
printable = string.ascii_letters + string.digits + string.punctuation + " "
for letter in printable:
    query = f"a=%{ord(letter):02X}"
    with asked(query):
        changed += request.url != f"{BASE}?{query}"
print(f"{changed} of {len(printable)} printable ASCII characters are unescaped")
described = {"plain": (True, True, True), "address": (False, False, True), "Chinese": (False, True, True)}
sys.exit(seen != described or changed != 89)
PYTHON
"$place/venv/bin/python" "$place/try.py"
