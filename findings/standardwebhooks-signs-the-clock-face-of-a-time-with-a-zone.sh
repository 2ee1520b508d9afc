#!/usr/bin/env bash
# standardwebhooks 1.1.0, and svix 2.9.1, which calls it: `Webhook.sign(msg_id, timestamp, data)` with a `timestamp`
# that has a time zone other than UTC, such as datetime.now(ZoneInfo("Asia/Shanghai")).
#
# One would guess that the moment is signed, or that such a time is refused. The library puts UTC in the zone's place
# (`timestamp.replace(tzinfo=timezone.utc)`) and does not convert: it signs a moment eight hours later, and raises
# nothing. The sender writes the true second into `webhook-timestamp`, so that every verifier refuses the webhook ("No
# matching signature found"), this library's own among them. The same moment in UTC is taken; so tests of a sender
# pass where its zone is UTC. (A time without a zone is read as UTC; `datetime.timestamp()` takes it as local.)
#
# Seen on 2026-12-01: UTC: taken; Asia/Shanghai: refused, and its signature is that of the moment 28,800 s later.
# Source: standardwebhooks/webhooks.py, `Webhook.sign`;
# https://github.com/standard-webhooks/standard-webhooks/issues/251, of 2025-08, seen open in a copy of 2026-09
# Exit code: 0 as described; 1 where that has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check standardwebhooks==1.1.0 svix==2.9.1 tzdata==2026.6
cat >"$place/try.py" <<'PYTHON'
import base64
import sys
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import standardwebhooks
import svix.webhooks

SECRET = "whsec_" + base64.b64encode(b"thirty-two bytes of a test secret").decode()
DATA = '{"type": "message.delivered"}'
moment = datetime.now(timezone.utc).replace(microsecond=0)
verifier = standardwebhooks.Webhook(SECRET)


def verified(signature):
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": signature,
    }
    try:
        verifier.verify(DATA, headers)
    except standardwebhooks.WebhookVerificationError as error:
        return str(error)
    return "taken"


as_it_is = True
for sender in (standardwebhooks.Webhook(SECRET), svix.webhooks.Webhook(SECRET)):
    library = type(sender).__module__
    in_utc = sender.sign("msg_1", moment, DATA)
    there = moment.astimezone(ZoneInfo("Asia/Shanghai"))
    assert there == moment
    in_zone = sender.sign("msg_1", there, DATA)
    hours_later = in_zone == sender.sign("msg_1", moment + timedelta(hours=8), DATA)
    print(f"{library}, UTC: {verified(in_utc)}")
    print(f"{library}, Asia/Shanghai: {verified(in_zone)}; signed as 8 hours later: {hours_later}")
    as_it_is &= verified(in_utc) == "taken" and verified(in_zone) == "No matching signature found" and hours_later
sys.exit(not as_it_is)
PYTHON
"$place/venv/bin/python" "$place/try.py"
