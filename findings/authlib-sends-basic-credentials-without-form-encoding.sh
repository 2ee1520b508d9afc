#!/usr/bin/env bash
# Authlib 1.9.10 as an OpenID Connect client (`OAuth2Session`, token_endpoint_auth_method client_secret_basic, which is its
# default): a secret with a plus, a percent sign or a colon, as providers generate them.
#
# One would guess that the header is built as RFC 6749, 2.3.1, says: id and secret are each encoded as
# application/x-www-form-urlencoded, joined by a colon, and put into Base64. Authlib joins them as they are. A provider
# that keeps to the standard decodes what comes, so that `a+b` is `a b` to it and `50%2B` is `50+`, and answers
# invalid_client. A letter beyond Latin-1 is a UnicodeEncodeError.
#
# Seen on 2026-11-29: client `id`, secret `a+b/c=`: the header holds `id:a+b/c=`; by the standard, `id:a%2Bb%2Fc%3D`.
# Source: https://www.rfc-editor.org/rfc/rfc6749#section-2.3.1 and appendix B; authlib/oauth2/auth.py,
# `encode_client_secret_basic`
# Exit code: 0 as described; 1 where that has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check authlib==1.9.10 requests==2.34.2
cat >"$place/try.py" <<'PYTHON'
import base64
import sys
from urllib.parse import quote_plus

from authlib.oauth2.auth import ClientAuth

as_it_is = True
for secret in ("a+b/c=", "50%2B", "q:w"):
    _, headers, _ = ClientAuth("id", secret).prepare("POST", "https://provider.example/token", {}, "")
    sent = base64.b64decode(headers["Authorization"].removeprefix("Basic ")).decode()
    print(f"secret {secret}: sent {sent}; by RFC 6749 id:{quote_plus(secret)}")
    as_it_is &= sent == f"id:{secret}"
try:
    ClientAuth("id", "密码").prepare("POST", "https://provider.example/token", {}, "")
except UnicodeEncodeError as error:
    print("secret 密码:", type(error).__name__)
else:
    as_it_is = False
sys.exit(not as_it_is)
PYTHON
"$place/venv/bin/python" "$place/try.py"
