"""TLS by `receiver serve` itself: pushes by the lane, renewal under load, resumption, and peers that misbehave."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import time
import warnings
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from receiver.core import SettingsError
from receiver.net.certificates import load_pair
from tests.harness.certificates import Files, chain_of
from tests.harness.ports import free_port
from tests.harness.pushers import Pushers
from tests.harness.server import ServeProcess, read_answer
from tests.harness.waiting import await_true
from tests.web.test_send_proxy import ask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RECEIPT = b"mobile=15080921090&taskid=3313746&status=1&receivetime=2019-07-23+17%3A00%3A00"
SLOW_PEERS = 200
VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, files: Files) -> Iterator[ServeProcess]:
    place = tmp_path_factory.mktemp("served")
    with ServeProcess(place, environment=files.environment, tls=files.trusting()) as process:
        yield process


def plain(process: ServeProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", process.port), timeout=20)


def post(target: str, body: bytes) -> bytes:
    return f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def metric(process: ServeProcess, name: str) -> float:
    text = process.request("GET", "/metrics").body.decode()
    return float(re.search(rf"^{name} (\S+)$", text, re.MULTILINE)[1])


def serial_served(process: ServeProcess) -> str:
    with process.connect() as connection:
        assert isinstance(connection, ssl.SSLSocket)
        return str(connection.getpeercert()["serialNumber"])


def await_end(connection: socket.socket) -> None:
    with suppress(ConnectionResetError):
        while connection.recv(4096):
            pass


# --- What is served ----------------------------------------------------------------------------------


def test_pushes_over_tls_take_the_lane(served: ServeProcess) -> None:
    before = metric(served, "receiver_fast_path_pushes_total")
    with served.connect() as connection:
        for _ in range(3):
            connection.sendall(post(served.target, RECEIPT))
            assert read_answer(connection).headers["X-Push-Outcome"] == "accepted"
    assert metric(served, "receiver_fast_path_pushes_total") == before + 3


def test_api_and_console_are_told_that_it_is_https(served: ServeProcess) -> None:
    key = served.make_key("read", "messages:write", "pii")
    sent = b'{"task_id": "3313746", "mobile": "15080921090", "sent_at": "2026-11-23T09:13:59+08:00"}'
    made = served.request("POST", "/api/v1/messages", sent, {**key, "Content-Type": "application/json"})
    assert made.status in (200, 201)
    assert served.request("GET", "/api/v1/messages?task_id=3313746", headers=key).json["items"][0]["matched"]
    page = served.request("GET", "/console/login")
    assert page.status == 200
    assert "; Secure" in page.headers["Set-Cookie"]
    assert served.request("GET", "/nowhere").status == 404


def test_addresses_that_are_told_are_https(served: ServeProcess) -> None:
    assert served.run("push-url").stdout.startswith(f"https://127.0.0.1:{served.port}/push/")
    assert f"https://127.0.0.1:{served.port}/api/v1/docs" in served.told.read_text()
    assert "ready, stores pushes in the database" in served.run("status").stdout


def test_large_bodies_come_in_many_records_and_answers_go_out_in_many(served: ServeProcess) -> None:
    rows = [f'{{"task_id": "t{n}", "mobile": "1508092{n:04d}", "extra": null}}' for n in range(1000)]
    key = served.make_key("read", "messages:write")
    taken = served.request(
        "POST", "/api/v1/messages", f"[{','.join(rows)}]".encode(), {**key, "Content-Type": "application/json"}
    )
    assert taken.status in (200, 422)  # whatever it says of a field that it does not know, it has read them all
    assert served.push(b"x" * 900_000).status == 413
    assert served.request("POST", "/nowhere", b"x" * 3_000_000).status == 404
    assert len(served.request("GET", "/api/v1/openapi.json").body) > 65536


def test_pushes_in_one_record_are_answered_in_order(served: ServeProcess) -> None:
    bodies = [RECEIPT, b"mobile=1", RECEIPT, b"mobile=1"]
    with served.connect() as connection:
        connection.sendall(b"".join(post(served.target, body) for body in bodies))
        outcomes = [read_answer(connection).headers["X-Push-Outcome"] for _ in bodies]
    assert outcomes == ["accepted", "quarantined", "accepted", "quarantined"]


def test_pushes_behind_a_body_that_a_thread_reads_from_their_record_are_answered(served: ServeProcess) -> None:
    """The thread takes half of the record: the rest waits where no selector sees it."""
    pushes = [post(served.target, RECEIPT)] * 70
    with served.connect() as connection:
        connection.sendall(
            post(served.target, RECEIPT).replace(b"Host", b"Expect: 100-continue\r\nHost")[: -len(RECEIPT)]
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        together = b"".join([RECEIPT, *pushes])
        assert 8192 < len(together) < 16384
        connection.sendall(together)
        assert {read_answer(connection).status for _ in range(1 + len(pushes))} == {200}


def test_connection_is_kept_from_the_lane_to_a_thread_and_back(served: ServeProcess) -> None:
    with served.connect() as connection:
        for _ in range(3):
            connection.sendall(post(served.target, RECEIPT))
            assert read_answer(connection).status == 200
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert read_answer(connection).status == 200


def test_end_of_a_connection_is_told(served: ServeProcess) -> None:
    context = served.tls
    assert context is not None
    for path in (served.target, "/healthz"):
        with context.wrap_socket(
            plain(served),
            server_hostname="localhost",
            suppress_ragged_eofs=False,  # an end that is not told raises
        ) as connection:
            connection.sendall(post(path, RECEIPT).replace(b"Host: x", b"Host: x\r\nConnection: close"))
            read_answer(connection)
            assert connection.recv(1) == b""


def test_push_whose_sender_ends_without_a_word_is_answered(served: ServeProcess) -> None:
    context = served.tls
    assert context is not None
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    peer = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with plain(served) as connection:

        def until_done(step: Callable[[], object]) -> object:
            while True:
                try:
                    done = step()
                except ssl.SSLWantReadError:
                    if outgoing.pending:
                        connection.sendall(outgoing.read())
                    incoming.write(connection.recv(65536))
                else:
                    return done

        until_done(peer.do_handshake)
        peer.write(post(served.target, RECEIPT))
        connection.sendall(outgoing.read())
        connection.shutdown(socket.SHUT_WR)
        assert b"X-Push-Outcome: accepted" in bytes(until_done(lambda: peer.read(65536)))  # type: ignore[call-overload]


# --- Who is let in -----------------------------------------------------------------------------------


@VERSIONS
def test_tls_12_and_13_are_spoken_with_forward_secrecy_and_http_11(
    served: ServeProcess, files: Files, version: ssl.TLSVersion
) -> None:
    context = files.trusting(version)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with plain(served) as connection, context.wrap_socket(connection, server_hostname="localhost") as secured:
        assert secured.selected_alpn_protocol() == "http/1.1"
        name, spoken, _ = secured.cipher()  # type: ignore[misc]
        assert name.startswith("ECDHE") or spoken == "TLSv1.3"


def test_older_versions_are_refused(served: ServeProcess, files: Files) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context = files.trusting(ssl.TLSVersion.TLSv1_1)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # which this client would otherwise not even try
    with plain(served) as connection, pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        context.wrap_socket(connection, server_hostname="localhost")


def test_peer_without_a_server_name_gets_the_certificate(served: ServeProcess, files: Files) -> None:
    context = files.trusting()
    context.check_hostname = False
    with plain(served) as connection, context.wrap_socket(connection) as secured:
        secured.sendall(post(served.target, RECEIPT))
        assert read_answer(secured).status == 200


def test_plain_http_is_told_to_use_https(served: ServeProcess) -> None:
    for raw in (post(served.target, RECEIPT), b"GET /console HTTP/1.1\r\nHost: x\r\n\r\n"):
        with plain(served) as connection:
            connection.sendall(raw)
            answer = read_answer(connection)
            assert (answer.status, b"https://" in answer.body) == (400, True)
            assert connection.recv(1) == b""


def test_what_is_no_tls_ends_its_own_connection_alone(served: ServeProcess) -> None:
    with served.connect() as other:
        for raw in (b"\x00" * 100, b"SSH-2.0-x\r\n", b"\x16\x03\x01\x00\x05hello", b"\xff" * 5000):
            with plain(served) as connection:
                connection.sendall(raw)
                await_end(connection)
        other.sendall(post(served.target, RECEIPT))
        assert read_answer(other).status == 200
    assert "connection lost" not in served.log.read_text()


def test_broken_records_end_their_own_connection_alone(served: ServeProcess) -> None:
    for path in (served.target, "/api/v1/messages"):
        raw = socket.create_connection(("127.0.0.1", served.port), timeout=20)
        assert served.tls is not None
        with served.tls.wrap_socket(raw, server_hostname="localhost") as secured:
            secured.sendall(post(path, RECEIPT)[:-10])
            with socket.socket(fileno=os.dup(secured.fileno())) as below:
                below.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)
                below.settimeout(20)
                await_end(below)
    assert served.push(RECEIPT).status == 200
    assert "request failed" not in served.log.read_text()


def threads_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def slow_peers(process: ServeProcess, stack: ExitStack) -> list[socket.socket]:
    """Connections that have begun a handshake, or not even that, and say no more."""
    hello = ssl.MemoryBIO()
    beginner = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        beginner.do_handshake()
    begun = hello.read()
    peers = [stack.enter_context(closing(plain(process))) for _ in range(SLOW_PEERS)]
    for number, peer in enumerate(peers):
        peer.sendall((b"", begun[: len(begun) // 2], begun)[number % 3])
    return peers


def test_slow_handshakes_hold_no_thread_and_nobody_up(served: ServeProcess) -> None:
    _, worker = served.await_worker()
    with ExitStack() as stack, Pushers(served, 4) as pushers:
        pushers.await_acks(20)
        threads = threads_of(worker)
        slow_peers(served, stack)
        pushers.await_acks(200)
        assert threads_of(worker) == threads
        assert served.request("GET", "/healthz").status == 200
    assert (pushers.failures, set(pushers.outcomes)) == (0, {"accepted"})


@pytest.mark.thorough
def test_handshakes_that_never_end_are_ended(served: ServeProcess) -> None:
    with ExitStack() as stack:
        for peer in slow_peers(served, stack):
            peer.settimeout(60)
            while peer.recv(4096):  # the server's part of the handshake may have come
                pass


def test_door_beside_it_stays_plain(tmp_path: Path, files: Files) -> None:
    port = free_port()
    environment = {**files.environment, "RECEIVER_SEND_PROXY_BIND": f"127.0.0.1:{port}"}
    with ServeProcess(tmp_path, environment=environment, tls=files.trusting()) as process:
        assert b"this listener only serves" in ask(port, "/nowhere")[2]
        assert process.push(RECEIPT).status == 200


# --- Renewal -----------------------------------------------------------------------------------------


@pytest.fixture
def renewing(tmp_path: Path) -> Iterator[tuple[ServeProcess, Files]]:
    place = tmp_path / "certificate"
    place.mkdir()
    files = Files(place)
    with ServeProcess(tmp_path, environment=files.environment, tls=files.trusting()) as process:
        yield process, files


def test_renewed_certificate_is_taken_up_under_load_without_a_failed_push(
    renewing: tuple[ServeProcess, Files],
) -> None:
    process, files = renewing
    with Pushers(process, 4) as pushers:
        for rsa in (False, True, False):
            before = serial_served(process)
            pushers.await_acks(20)
            files.write(files.issue(rsa=rsa))
            await_true(lambda before=before: serial_served(process) != before)  # type: ignore[misc]
        pushers.await_acks(20)
        assert process.push(RECEIPT).status == 200
    assert (pushers.failures, set(pushers.outcomes)) == (0, {"accepted"})


def test_half_written_or_unfitting_renewal_is_told_once_and_the_old_one_serves_on(
    renewing: tuple[ServeProcess, Files],
) -> None:
    process, files = renewing
    before = serial_served(process)
    ends = metric(process, "receiver_certificate_not_after_timestamp_seconds")
    assert ends > time.time()

    def warnings_told() -> int:
        return sum("still serving the old one" in line for line in process.log.read_text().splitlines())

    new = files.authority.issue_cert("localhost", not_after=datetime.now(UTC) + timedelta(days=90))
    text = chain_of(new)
    files.chain.write_bytes(text[: len(text) // 2])
    await_true(lambda: warnings_told() == 1)
    files.chain.write_bytes(text)  # whole, and its key is yet to come
    await_true(lambda: warnings_told() == 2)
    assert "does not belong to the first certificate" in process.log.read_text()
    assert serial_served(process) == before
    time.sleep(2)  # in which it looks, and looks again
    assert warnings_told() == 2
    files.key.write_bytes(new.private_key_pem.bytes())
    await_true(lambda: serial_served(process) != before)
    assert metric(process, "receiver_certificate_not_after_timestamp_seconds") < ends


@VERSIONS
def test_session_is_resumed_after_a_renewal_and_by_another_worker(
    renewing: tuple[ServeProcess, Files], version: ssl.TLSVersion
) -> None:
    process, files = renewing
    context = files.trusting(version)

    def visit(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool | None, str]:
        with (
            plain(process) as connection,
            context.wrap_socket(connection, server_hostname="localhost", session=session) as secured,
        ):
            secured.sendall(post(process.target, RECEIPT))
            assert read_answer(secured).status == 200
            return secured.session, secured.session_reused, str(secured.getpeercert()["serialNumber"])

    session, resumed, before = visit(None)
    assert not resumed
    files.write(files.issue(rsa=True))
    await_true(lambda: serial_served(process) != before)
    session, resumed, _ = visit(session)
    assert resumed

    master, old = process.await_worker()
    os.kill(master, signal.SIGHUP)
    process.await_gone([old])
    assert visit(session)[1]
    session, resumed, serial = visit(None)
    assert (resumed, serial != before) == (False, True)
    assert process.await_worker()[1] != old


# --- What stops the start ----------------------------------------------------------------------------


def test_files_that_cannot_be_served_are_named_with_what_to_do(tmp_path: Path) -> None:
    files = Files(tmp_path)
    now = datetime.now(UTC)
    key = files.key.read_bytes()
    cases: dict[str, Callable[[], object]] = {
        "RECEIVER_TLS_CERT.*holds no certificate.*whole chain": lambda: files.chain.write_bytes(b""),
        "RECEIVER_TLS_CERT.*holds no certificate": lambda: files.chain.write_bytes(key),
        "RECEIVER_TLS_CERT.*No such file.*may read": files.chain.unlink,
        "RECEIVER_TLS_KEY.*holds no private key": lambda: files.key.write_bytes(key[: len(key) // 2]),
        "RECEIVER_TLS_KEY.*does not belong": lambda: files.key.write_bytes(files.issue().private_key_pem.bytes()),
        "RECEIVER_TLS_KEY.*No such file.*may read": files.key.unlink,
        "ended on.*renew": lambda: files.write(
            files.authority.issue_cert("localhost", not_before=now - timedelta(days=9), not_after=now)
        ),
        "begins at.*clock": lambda: files.write(
            files.authority.issue_cert("localhost", not_before=now + timedelta(days=1), not_after=now + timedelta(9))
        ),
    }
    for said, spoil in cases.items():
        spoil()
        with pytest.raises(SettingsError, match=said):
            load_pair(files.chain, files.key)
        files.write(files.issue())
    load_pair(files.chain, files.key)


def test_encrypted_key_is_not_asked_for_its_password(tmp_path: Path) -> None:
    files = Files(tmp_path)
    key = load_pem_private_key(files.key.read_bytes(), None)
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    files.key.write_bytes(encrypted)
    with pytest.raises(SettingsError, match="is encrypted; decrypt it: openssl pkey"):
        load_pair(files.chain, files.key)


def test_start_is_stopped_by_a_certificate_without_its_key_or_one_that_is_empty(tmp_path: Path) -> None:
    files = Files(tmp_path)
    alone = ServeProcess(tmp_path, environment={"RECEIVER_TLS_CERT": str(files.chain)}).run("serve")
    assert (alone.returncode, len(alone.stderr.splitlines())) == (1, 1)
    assert "RECEIVER_TLS_KEY: missing" in alone.stderr
    files.chain.write_bytes(b"")
    empty = ServeProcess(tmp_path, environment=files.environment).run("serve")
    assert (empty.returncode, len(empty.stderr.splitlines())) == (1, 1)
    assert "holds no certificate" in empty.stderr
