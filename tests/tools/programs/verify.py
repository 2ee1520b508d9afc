"""Verifies posts by standardwebhooks or svix: secret and body pass; another body, or an old time, do not."""

import importlib
import json
import sys
from datetime import UTC, datetime, timedelta

given = json.load(sys.stdin)
library = importlib.import_module(given["library"])
verifier = library.Webhook(given["secret"])
long_ago = datetime.now(UTC) - timedelta(seconds=400)


def is_refused(body, headers):
    try:
        verifier.verify(body, headers)
    except library.WebhookVerificationError:
        return True
    return False


def find(post):
    body, headers = post["body"], post["headers"]
    payload = verifier.verify(body, headers) or json.loads(body)  # svix gives nothing back
    signed = verifier.sign(headers["webhook-id"], long_ago, body)
    old = headers | {"webhook-timestamp": str(int(long_ago.timestamp())), "webhook-signature": signed}
    return {
        "payload": payload,
        "changed": is_refused(body.replace("}", " }", 1), headers),
        "old": is_refused(body, old),
    }


json.dump([find(post) for post in given["posts"]], sys.stdout)
