"""Outgoing requests: the one HTTP client of the project.

An exchange ends in its time, however slowly the other side answers, and reads up to its bound. No redirect is followed.
Where it may go is judged by `egress_policy`.
"""

from __future__ import annotations

from base64 import b64encode
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes, urlsplit

from receiver.net.egress_policy import (
    ANSWER_MAX_BYTES,
    EgressFault,
    EgressPolicy,
    EgressUnsendable,
    TargetUrl,
    parse_operator_url,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from urllib.parse import SplitResult

    from receiver.net.egress_client import EgressClient, EgressResponse


def open_client(
    place: TargetUrl,
    policy: EgressPolicy | None = None,
    *,
    connections: int = 1,
    tls: ssl.SSLContext | None = None,
    proxies: bool = False,
) -> EgressClient:
    """Return a client of one server, to be closed. See `EgressClient`."""
    # The library behind it takes longer to load than most commands take to run.
    from receiver.net.egress_client import EgressClient  # noqa: PLC0415

    return EgressClient(place, policy, connections=connections, tls=tls, proxies=proxies)


def fetch(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes = b"",
    *,
    seconds: float,
    tls: ssl.SSLContext | None = None,
    answer_max_bytes: int = ANSWER_MAX_BYTES,
) -> EgressResponse:
    """Make one request to a URL of the settings, over a connection of its own. Raises EgressError."""
    try:
        place, sent = parse_operator_url(url), encode_headers({"Accept-Encoding": "identity", **headers})
        sent += _proof_of_user(urlsplit(url))
    except ValueError:
        raise EgressUnsendable(EgressFault.UNUSABLE_URL) from None
    with closing(open_client(place, tls=tls, proxies=True)) as client:
        return client.send(method, place.line(), sent, body, seconds=seconds, answer_max_bytes=answer_max_bytes)


def encode_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Return headers as a request has them; what Latin-1 lacks becomes a question mark."""
    return [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]


def _proof_of_user(parts: SplitResult) -> list[tuple[bytes, bytes]]:
    if not parts.username:
        return []
    pair = unquote_to_bytes(parts.username) + b":" + unquote_to_bytes(parts.password or "")
    return [(b"Authorization", b"Basic " + b64encode(pair))]
