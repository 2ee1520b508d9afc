"""Heads that lie about where a request ends, or where it comes from: at both doors, alone and behind nginx.

An attack here is one request that holds a second one, which some reading of its head would find. Wherever it is put,
no second push may come of it, and whoever comes next on that connection gets the answer to what he asked.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from receiver.db.sqlite import sqlite3
from tests.harness.leaks import SECRET
from tests.harness.nginx import Nginx
from tests.harness.server import ServeProcess, read_answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.harness.server import Answer

STRANGER = "127.0.0.9"  # no proxy of ours
TARGET = f"/push/{SECRET}".encode()


@pytest.fixture(scope="module", params=["on", pytest.param("off", marks=pytest.mark.thorough)])
def door(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    environment = {"RECEIVER_PUSH_LANE": request.param, "RECEIVER_TRUSTED_PROXIES": "127.0.0.1"}
    with ServeProcess(tmp_path_factory.mktemp("door"), environment=environment) as process:
        yield process


@pytest.fixture(scope="module")
def front(door: ServeProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    place = tmp_path_factory.mktemp("nginx")
    allowed = "127.0.0.1/32"
    with Nginx(place=place, receivers=[door.port] * 2, platform=allowed, old_platform=allowed) as nginx:
        yield nginx


def form(task_id: str) -> bytes:
    return f"mobile=15080921090&taskid={task_id}&status=1&receivetime=2019-07-23+17%3A00%3A00".encode()


def post(body: bytes, *fields: bytes) -> bytes:
    head = [b"POST %b HTTP/1.1" % TARGET, b"Host: sms.example.com", *fields, b"Content-Length: %d" % len(body)]
    return b"\r\n".join([*head, b"", b""]) + body


def journal(door: ServeProcess) -> dict[str, tuple[bytes, str]]:
    """Body and address of each push, by its id."""
    with sqlite3.connect(door.data_dir / "receiver.db") as connection:
        rows = connection.execute("SELECT id, body, remote_addr FROM pushes").fetchall()
    connection.close()
    return {push_id: (body, address) for push_id, body, address in rows}


def answers_to(port: int, raw: bytes, *, end_sending: bool = False) -> list[Answer]:
    """Send bytes, and give every answer until the other side ends."""
    found = []
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(raw)
        if end_sending:
            connection.shutdown(socket.SHUT_WR)
        while True:
            try:
                found.append(read_answer(connection))
            except OSError:  # it has ended, or reset us, who had more to say
                return found


# --- Where a request ends ---------------------------------------------------------------------------------

HIDDEN = post(form("hidden"))
# As one body: what a reading by Content-Length has as one request, one by chunks has as the end and a second request.
ENDED = b"0\r\n\r\n" + HIDDEN
CHUNK = b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)


def framed(body: bytes, *fields: bytes, line: bytes = b"POST %b HTTP/1.1" % TARGET, end: bytes = b"\r\n") -> bytes:
    return end.join([line, b"Host: sms.example.com", *fields, b"", b""]) + body


def _length(body: bytes = ENDED) -> bytes:
    return b"Content-Length: %d" % len(body)


_TE = b"Transfer-Encoding: chunked"
_BOTH = {
    name: framed(ENDED, _length(), field)
    for name, field in {
        "CL.TE": _TE,
        "TE with a space before the colon": b"Transfer-Encoding : chunked",
        "TE with a tab": b"Transfer-Encoding:\tchunked",
        "TE of another name": b"Transfer-Encoding: xchunked",
        "TE in capitals": b"TRANSFER-ENCODING: CHUNKED",
        "TE with an underscore": b"Transfer_Encoding: chunked",
        "TE in quotes": b'Transfer-Encoding: "chunked"',
        "TE with a vertical tab": b"Transfer-Encoding: \x0bchunked",
        "TE with NUL": b"Transfer-Encoding: chunked\x00",
        "TE twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
        "TE twice the same": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "TE identity": b"Transfer-Encoding: identity",
        "TE identity twice": b"Transfer-Encoding: identity\r\nTransfer-Encoding: identity",
        "TE identity and chunked apart": b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "TE identity behind a bare LF": b"X: y\nTransfer-Encoding: identity",
        "TE as a list": b"Transfer-Encoding: identity, chunked",
        "TE as a list the other way": b"Transfer-Encoding: chunked, identity",
        "TE folded": b"Transfer-Encoding:\r\n chunked",
        "TE behind a bare LF": b"X: y\nTransfer-Encoding: chunked",
        "TE behind a bare CR": b"X: y\rTransfer-Encoding: chunked",
        "TE with a parameter": b"Transfer-Encoding: chunked;q=1",
    }.items()
}
_LENGTHS = {
    f"length {field.decode('latin-1')!r}": framed(HIDDEN, *field.replace(b"N", b"%d" % len(HIDDEN)).split(b"|"))
    for field in (
        b"Content-Length: 0|Content-Length: N",
        b"Content-Length: N|Content-Length: 0",
        b"Content-Length: 0, N",
        b"Content-Length: N, N",
        b"Content-Length: +N",
        b"Content-Length: -0|Content-Length: N",
        b"Content-Length: 0x0",
        b"Content-Length: N N",
        b"Content-Length: 0N",
        b"Content-Length:   N  ",
        b"Content-Length : N",
        b"Content-Length:\x0bN",
        b"Content-Length: 0_0",
        b"Content-Length: \xb2",
        b"Content_Length: 0|Content-Length: N",
        b"X: y\r\n Content-Length: 0|Content-Length: N",
        b"Content-Length:\r\n 0|Content-Length: N",
        b"Content-Length: 18446744073709551616",
    )
}
_CHUNKS = {
    "TE.CL": framed(CHUNK, b"Content-Length: 4", _TE),
    "chunks alone": framed(CHUNK, _TE),
    "a chunk's extension": framed(CHUNK.replace(b"\r\n", b";x=" + b"y" * 3000 + b"\r\n", 1), _TE),
    "a chunk's extension with a bare LF": framed(b"1;x\nz\r\n0\r\n\r\n" + HIDDEN + b"\r\n0\r\n\r\n", _TE),
    "a chunk's line that ends in a bare LF": framed(CHUNK.replace(b"\r\n", b"\n", 1), _TE),
    "a chunk's size with a sign": framed(b"-1\r\n" + CHUNK, _TE),
    "a chunk's size with 0x": framed(b"0x%b" % CHUNK, _TE),
    "a chunk's size of many digits": framed(b"10000000000000000%b" % CHUNK, _TE),
    "a chunk longer than its size": framed(b"1\r\nzz\r\n" + CHUNK, _TE),
    "a trailer that frames": framed(b"0\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN), _TE, b"Connection: close")
    + HIDDEN,
    "chunks in HTTP/1.0": framed(ENDED, _length(), _TE, line=b"POST %b HTTP/1.0" % TARGET),
}
_LINES = {
    "bare LF everywhere": framed(HIDDEN, _length(HIDDEN), end=b"\n"),
    "absolute form": framed(HIDDEN, _length(HIDDEN), line=b"POST http://other.example%b HTTP/1.1" % TARGET),
    "absolute form of nothing": framed(HIDDEN, _length(HIDDEN), line=b"POST http:///%b HTTP/1.1" % TARGET),
    "authority form": framed(HIDDEN, _length(HIDDEN), line=b"CONNECT x:443 HTTP/1.1"),
    "HTTP/0.9": b"POST %b\r\n" % TARGET + HIDDEN[:0] + b"\r\n",
    "HTTP/2.0": framed(HIDDEN, _length(HIDDEN), line=b"POST %b HTTP/2.0" % TARGET),
    "a version with spaces": framed(HIDDEN, _length(HIDDEN), line=b"POST %b  HTTP/1.1" % TARGET),
    "a line that folds": framed(HIDDEN, b"X: y\r\n z", _length(HIDDEN)),
    "a name with NUL": framed(HIDDEN, b"Content-\x00Length: 0", _length(HIDDEN)),
    "a first line that is empty": b"\r\n" + framed(HIDDEN, _length(HIDDEN)),
    "a GET with a body": framed(HIDDEN, _length(HIDDEN), line=b"GET %b HTTP/1.1" % TARGET),
    "an upgrade": framed(HIDDEN, _length(HIDDEN), b"Connection: Upgrade", b"Upgrade: h2c", b"HTTP2-Settings: AAMA"),
    "Connection names the length": framed(HIDDEN, _length(HIDDEN), b"Connection: keep-alive, Content-Length"),
    "after the end": framed(form("first"), _length(form("first")), b"Connection: close") + HIDDEN,
}
_TWO_FOR_NGINX = {"a chunk's extension with a bare LF"}
_ANNOUNCE_MORE = {"a chunk's size of many digits", "length 'Content-Length: 18446744073709551616'"}  # than is sent
ATTACKS: Mapping[str, bytes] = {**_BOTH, **_LENGTHS, **_CHUNKS, **_LINES}


@pytest.mark.parametrize("attack", ATTACKS)
def test_one_request_never_becomes_two(attack: str, door: ServeProcess, front: Nginx) -> None:
    # nginx takes a bare LF for the end of a chunk's line, and hands on what it has understood with a length of its own:
    # there, such bytes are two requests, and both of us think so.
    for port in (door.port, *([] if attack in _TWO_FOR_NGINX else [front.old_port])):
        before = journal(door)
        # What follows on the same connection, and ends it: where the attack was one request, it is the second.
        raw = ATTACKS[attack] + post(form("last"), b"Connection: close")
        answers = answers_to(port, raw, end_sending=attack in _ANNOUNCE_MORE)
        came = {push_id: body for push_id, (body, _) in journal(door).items() if push_id not in before}
        assert form("hidden") not in came.values(), attack
        assert len(answers) <= 2, attack
        acked = [answer for answer in answers if "X-Push-Id" in answer.headers]
        assert len(came) == len(acked) <= 2
        bodies = [came[answer.headers["X-Push-Id"].replace("-", "")] for answer in acked]
        assert form("last") not in bodies[:-1]
    for number in range(2):  # on the connections that nginx keeps to the receiver
        (answer,) = answers_to(front.old_port, post(form(f"honest-{number}"), b"Connection: close"))
        body, _ = journal(door)[answer.headers["X-Push-Id"].replace("-", "")]
        assert body == form(f"honest-{number}")


# --- Where a request comes from ---------------------------------------------------------------------------

FORGED = (
    # What a proxy of ours says; (fields, the address that is believed)
    ((), "127.0.0.1"),
    (("X-Forwarded-For: 203.0.113.9",), "203.0.113.9"),
    (("X-Forwarded-For: 198.51.100.1, 203.0.113.9",), "203.0.113.9"),  # the client wrote the first itself
    (("X-Forwarded-For: 198.51.100.1", "X-Forwarded-For: 203.0.113.9"), "203.0.113.9"),
    (("X-Forwarded-For: 203.0.113.9, 127.0.0.1",), "203.0.113.9"),
    (("X-Forwarded-For: 203.0.113.9" + ", 127.0.0.1" * 600,), "203.0.113.9"),
    (("X-Forwarded-For: 203.0.113.9, 10.0.0.1",), "10.0.0.1"),  # which is no proxy of ours
    (("X-Forwarded-For: 2001:db8::1",), "2001:db8::1"),
    (("X-Forwarded-For: ::ffff:203.0.113.9",), "::ffff:203.0.113.9"),
    (("X-Forwarded-For: 2001:db8::1, ::ffff:127.0.0.1",), "2001:db8::1"),
    # What is no address says nothing, nor does what stands before it.
    (("X-Forwarded-For:",), "127.0.0.1"),
    (("X-Forwarded-For: ,, ,",), "127.0.0.1"),
    (("X-Forwarded-For: 203.0.113.9,",), "127.0.0.1"),
    (("X-Forwarded-For: unknown",), "127.0.0.1"),
    (("X-Forwarded-For: 203.0.113.9, localhost",), "127.0.0.1"),
    (("X-Forwarded-For: 203.0.113.9:4711",), "203.0.113.9"),
    (("X-Forwarded-For: [2001:db8::1]:443",), "2001:db8::1"),
    (("X-Forwarded-For: [2001:db8::1]",), "2001:db8::1"),
    (("X-Forwarded-For: 203.0.113.9:4711, 127.0.0.1:80",), "203.0.113.9"),
    (("X-Forwarded-For: 203.0.113.9:",), "127.0.0.1"),
    (("X-Forwarded-For: [203.0.113.9",), "127.0.0.1"),
    (("X-Forwarded-For: 203.0.113.9:99999999",), "127.0.0.1"),
    (("X-Forwarded-For: 0203.0.113.9",), "127.0.0.1"),
    (("X-Forwarded-For: 3405803785",), "127.0.0.1"),
    (("X-Forwarded-For: 203.0.113.9/32",), "127.0.0.1"),
    (("X-Forwarded-For: '; DROP TABLE pushes; --",), "127.0.0.1"),
    # Other fields are not read.
    (("Forwarded: for=203.0.113.9",), "127.0.0.1"),
    (('Forwarded: for="[2001:db8::1]:443";by=127.0.0.1', "X-Forwarded-For: 203.0.113.9"), "203.0.113.9"),
    (("X-Real-IP: 203.0.113.9", "X-Client-IP: 203.0.113.9", "True-Client-IP: 203.0.113.9"), "127.0.0.1"),
    (("X_Forwarded_For: 203.0.113.9",), "127.0.0.1"),
)


@pytest.mark.parametrize(("fields", "address"), FORGED, ids=lambda given: str(given)[:60])
def test_address_is_what_trusted_proxies_vouch_for(fields: tuple[str, ...], address: str, door: ServeProcess) -> None:
    raw = post(form("address"), b"Connection: close", *(field.encode() for field in fields))
    (answer,) = answers_to(door.port, raw)
    assert journal(door)[answer.headers["X-Push-Id"].replace("-", "")][1] == address
    # From anybody else, no field changes anything.
    with socket.create_connection(("127.0.0.1", door.port), timeout=20, source_address=(STRANGER, 0)) as connection:
        connection.sendall(raw)
        answer = read_answer(connection)
    assert journal(door)[answer.headers["X-Push-Id"].replace("-", "")][1] == STRANGER
