"""What can be reached: a server that takes connections, and for how long its certificate holds."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import trustme

from receiver.net.egress_policy import EgressError
from receiver.net.probe import ask_own_server, can_connect, find_certificate
from tests.conftest import make_settings
from tests.harness.platforms import http, scripted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@contextmanager
def server(certificate: trustme.LeafCert | None = None) -> Iterator[int]:
    """Take connections on a free port, over TLS where there is a certificate; and say nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if certificate:
            certificate.configure_cert(context)

        def take() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with suppress(OSError):
                        (context.wrap_socket(connection, server_side=True) if certificate else connection).close()

        thread = threading.Thread(target=take)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_server_is_reached_where_one_listens() -> None:
    with server() as port:
        assert can_connect(f"http://127.0.0.1:{port}/smsApi")
        assert can_connect(f"https://127.0.0.1:{port}")
    assert not can_connect(f"http://127.0.0.1:{port}")
    assert not can_connect("http://no-such-host.invalid")


def test_certificate_holds_for_as_long_as_it_says(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    ends = datetime.now(UTC) + timedelta(days=12, hours=12)
    with server(authority.issue_cert("127.0.0.1", not_after=ends)) as port:
        found = find_certificate(f"https://127.0.0.1:{port}/console", tls=trusting)
    assert found is not None
    assert 12.4 < found.days_left <= 12.5


def test_certificate_that_does_not_hold_holds_for_no_day(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    ended = datetime.now(UTC) - timedelta(hours=1)
    expired = authority.issue_cert("127.0.0.1", not_before=ended - timedelta(days=9), not_after=ended)
    with server(expired) as port:
        ended_one = find_certificate(f"https://127.0.0.1:{port}", tls=trusting)
    with server(authority.issue_cert("elsewhere.example")) as port:
        anothers = find_certificate(f"https://127.0.0.1:{port}", tls=trusting)
    with server(authority.issue_cert("127.0.0.1")) as port:
        of_nobody = find_certificate(f"https://127.0.0.1:{port}")  # of an authority that nobody knows
    for found, says in ((ended_one, "expired"), (anothers, "mismatch"), (of_nobody, "issuer")):
        assert found is not None
        assert (found.days_left, says in (found.fault or "")) == (0, True), found


def test_no_certificate_is_seen_without_https_or_a_server() -> None:
    with server() as port:
        assert find_certificate(f"http://127.0.0.1:{port}") is None
        assert find_certificate(f"https://127.0.0.1:{port}") is None  # it speaks no TLS
    assert find_certificate(f"https://127.0.0.1:{port}") is None
    assert find_certificate("") is None


def test_own_server_is_asked_where_it_answers_the_house(tmp_path: Path) -> None:
    with scripted(lambda connection: connection.sendall(http(b"well", status="503 No"))) as (port, requests):
        settings = make_settings("", tmp_path, bind=("127.0.0.1", 1), internal_bind=("0.0.0.0", port))
        assert ask_own_server(settings, "/readyz") == (503, b"well")
    assert requests[0].startswith(b"GET /readyz HTTP/1.1")
    with pytest.raises(EgressError, match="takes no connection"):
        ask_own_server(make_settings("", tmp_path, bind=("127.0.0.1", 1)), "/readyz")
    with (
        scripted(lambda connection: connection.sendall(b"SSH-2.0\r\n\r\n")) as (port, _),
        pytest.raises(EgressError, match="ended without an answer"),
    ):
        ask_own_server(make_settings("", tmp_path, bind=("127.0.0.1", port)), "/readyz")
