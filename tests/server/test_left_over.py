"""A sender that counts characters and not bytes: what a push leaves over behind its length costs the next one nothing.

Skipping it must let nothing in that was not a push before: neither from a proxy's connection nor without the secret.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import pytest

from tests.harness.leaks import SECRET
from tests.harness.server import ServeProcess
from tests.server.test_hostile_heads import answers_to, form, journal, post

if TYPE_CHECKING:
    from collections.abc import Iterator

_TEXT = "mobile=15080921090&taskid=text&receivetime=2019-07-23 17:00:00&content=收到"
_COUNTED = b"POST /push/%b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (SECRET.encode(), len(_TEXT))
_PROXY = "127.0.0.9"
_FORWARDED = b"X-Forwarded-For: 203.0.113.7"
_CLOSE = b"Connection: close"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    environment = {"RECEIVER_TRUSTED_PROXIES": _PROXY}
    with ServeProcess(tmp_path_factory.mktemp("left-over"), environment=environment) as process:
        yield process


def statuses(process: ServeProcess, raw: bytes) -> list[int]:
    return [answer.status for answer in answers_to(process.port, raw)]


def test_push_behind_left_over_bytes_is_kept(served: ServeProcess) -> None:
    before = journal(served)
    # The rest of the text, by a method that nobody has; part of a time; one push more than once.
    raw = _COUNTED + _TEXT.encode() + post(form("first")) + b"07-23 17:00:00" + post(form("second"), _CLOSE)
    assert statuses(served, raw) == [200, 200, 200]
    came = [body for push_id, (body, _) in journal(served).items() if push_id not in before]
    assert sorted(came) == sorted([_TEXT.encode()[: len(_TEXT)], form("first"), form("second")])
    assert b"\nreceiver_pushes_left_over_total 2.0\n" in served.request("GET", "/metrics").body
    deadline = time.monotonic() + 10  # a line is written a moment after the answer
    while (log := served.log.read_text()).count('"event": "skipped surplus bytes after a push') < 2:
        assert time.monotonic() < deadline, log
        time.sleep(0.05)
    assert SECRET not in log
    assert "收到" not in log


def test_it_may_come_in_any_pieces(served: ServeProcess) -> None:
    raw = _COUNTED + _TEXT.encode() + post(form("pieces"), _CLOSE)
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in raw:
            connection.send(bytes([byte]))
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 2


_OPEN, _HIDDEN = post(form("open")), post(form("hidden"))
_WRONG = b"A" * len(SECRET)
_NOT_SKIPPED = {
    "nothing before it": b"x" + _HIDDEN,
    "a proxy's before it": post(form("open"), _FORWARDED) + b"x" + _HIDDEN,
    "a proxy's behind it": _OPEN + b"x" + post(form("hidden"), _FORWARDED),
    "a wrong secret before it": _OPEN.replace(SECRET.encode(), _WRONG) + b"x" + _HIDDEN,
    "a wrong secret behind it": _OPEN + b"x" + _HIDDEN.replace(SECRET.encode(), _WRONG) + _HIDDEN,
    "no length before it": b"POST /push/%b?a=b HTTP/1.1\r\nHost: x\r\n\r\nx" % SECRET.encode() + _HIDDEN,
    "the end of a line": _OPEN + b"x\r\n" + _HIDDEN,
    "a bare line feed": _OPEN + b"x\n" + _HIDDEN,
    "a request's head": _OPEN + b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + _HIDDEN.replace(b"Content-", b"X-"),
    "too much": _OPEN + b"x" * 4097 + _HIDDEN,
    "another method behind it": _OPEN + b"x" + _HIDDEN.replace(b"POST", b"PUT"),
    "another version behind it": _OPEN + b"x" + _HIDDEN.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "two lengths behind it": _OPEN + b"x" + post(form("hidden"), b"Content-Length: 0"),
}


@pytest.mark.parametrize("raw", _NOT_SKIPPED.values(), ids=_NOT_SKIPPED)
def test_nothing_else_is_skipped(served: ServeProcess, raw: bytes) -> None:
    known = journal(served)
    answers_to(served.port, raw + post(form("last"), _CLOSE), end_sending=True)
    came = [body for push_id, (body, _) in journal(served).items() if push_id not in known]
    assert form("hidden") not in came


def test_nothing_is_skipped_on_a_proxys_connection(served: ServeProcess) -> None:
    known = journal(served)
    raw = post(form("open")) + b"x" + post(form("hidden"), _CLOSE)
    with socket.create_connection(("127.0.0.1", served.port), timeout=20, source_address=(_PROXY, 0)) as connection:
        connection.sendall(raw)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert (answer.count(b"HTTP/1.1 200 OK\r\n"), answer.count(b"HTTP/1.1 400 Bad Request\r\n")) == (1, 1)
    assert [body for push_id, (body, _) in journal(served).items() if push_id not in known] == [form("open")]
