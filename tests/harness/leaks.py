"""What may appear in no log line, whatever the tests did."""

from __future__ import annotations

import re

SECRET = "test-secret-of-the-default-account-000000000"
OTHER_SECRET = "test-secret-of-the-other-account-0000000000000"

_FORBIDDEN = {
    "a push secret": re.compile(f"{SECRET}|{OTHER_SECRET}"),
    "a full number": re.compile(r"(?<![0-9a-f])1[0-9]{10}(?![0-9a-f])"),  # no part of a push id
    "a reply's content": re.compile("收到|好的|%E6%94%B6|unsubscribe"),
    "a code": re.compile(r"(?<![0-9])73519426(?![0-9])"),  # tests.harness.platforms.CODE
    "the platform's key": re.compile("WVNA4A000000"),  # tests.harness.platforms.APP_KEY
    "a token of a provider, or a session": re.compile(r"eyJ[A-Za-z0-9_-]{10,}\."),
    "the OpenID client's secret": re.compile("the-secret-of-the-client"),  # tests.harness.oidc_provider.CLIENT_SECRET
    "an alarm robot's address, or its secret": re.compile(
        "token-of-a-robot|SECsigning"
    ),  # tests.alerting.test_notifiers
    "an API key": re.compile(r"rcv_[A-Za-z0-9_-]{20}"),
}


def leaks(text: str) -> list[str]:
    """Name what a log gives away, with the line."""
    return [f"{what}: {line}" for line in text.splitlines() for what, form in _FORBIDDEN.items() if form.search(line)]
