"""deploy/nginx as it is shipped: what passes, what is refused, what is written down."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar

import psycopg
import pytest

from tests.harness.leaks import SECRET
from tests.harness.nginx import NAME, Nginx, find_nginxes
from tests.harness.ports import free_ports
from tests.harness.pushers import Pushers
from tests.harness.server import Answer, ServeProcess, read_answer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORM = b"mobile=15080921090&taskid=%s&status=1&receivetime=2019-07-23+17%%3A00%%3A00"
LIMITED = "127.0.0.9"  # anybody; the platform is at 127.0.0.1


@pytest.fixture(scope="module")
def receivers(
    tmp_path_factory: pytest.TempPathFactory, module_postgres_database_url: str
) -> Iterator[tuple[ServeProcess, ServeProcess]]:
    one, other = (
        ServeProcess(
            tmp_path_factory.mktemp("receiver"),
            module_postgres_database_url,
            environment={"RECEIVER_TRUSTED_PROXIES": "127.0.0.1"},
        )
        for _ in range(2)
    )
    one.upgrade()
    with one, other:
        yield one, other


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory, receivers: tuple[ServeProcess, ServeProcess]) -> Iterator[Nginx]:
    ports = [receiver.port for receiver in receivers]
    place = tmp_path_factory.mktemp("nginx")
    with Nginx(place=place, receivers=ports, platform="127.0.0.1/32", old_platform="127.0.0.1/32") as nginx:
        yield nginx


def ask(
    connection: socket.socket,
    path: str,
    body: bytes | None = None,
    *headers: str,
    method: str | None = None,
    host: str = NAME,
) -> Answer:
    """Make one request on an open connection."""
    lines = [f"{method or ('GET' if body is None else 'POST')} {path} HTTP/1.1", f"Host: {host}", *headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b""))
    return read_answer(connection)


def client(version: ssl.TLSVersion) -> ssl.SSLContext:
    """A client of one age, which takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that it is old is what the test is about
        context.minimum_version = version
        context.maximum_version = version
    return context


def journalled(receiver: ServeProcess, push_id: str) -> tuple[str, bytes, bytes]:
    """Address, query and body of a push as they were kept."""
    with psycopg.connect(receiver.database_url.replace("+psycopg", "")) as connection:
        rows = connection.execute("SELECT remote_addr, query, body FROM pushes WHERE id = %s", (push_id,)).fetchall()
    ((address, query, body),) = rows
    return address, bytes(query), bytes(body)


# --- What nginx says of the files -----------------------------------------------------------------------


@pytest.mark.parametrize("program", find_nginxes())
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"platform": "203.0.113.0/24"},
        {"old_platform": "203.0.113.0/24"},
        {"one_receiver": True},
        {"other_account": (1, 2)},
    ],
    ids=lambda shape: next(iter(shape), "as shipped"),
)
def test_nginx_takes_the_files_without_a_warning(program: str, shape: dict[str, Any], tmp_path: Path) -> None:
    Nginx(place=tmp_path, receivers=free_ports(2), **shape).check(program)


# --- TLS ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_session_is_resumed(front: Nginx, version: ssl.TLSVersion) -> None:
    context = client(version)
    with front.connect(context) as first:
        assert ask(first, front.target, FORM % b"resumed").status == 200  # the ticket of TLS 1.3 comes with an answer
        session = first.session
    plain = socket.create_connection(("127.0.0.1", front.port), timeout=20)
    with context.wrap_socket(plain, session=session) as second:  # and no name is sent, as old clients do
        assert second.session_reused
        assert ask(second, front.target, FORM % b"nameless").status == 200


def test_chain_is_whole_and_a_client_of_http_2_speaks_http_1(front: Nginx) -> None:
    front.trusted.set_alpn_protocols(["h2", "http/1.1"])
    try:
        with front.connect() as connection:  # trusts the root alone: without the intermediate it would fail
            assert connection.selected_alpn_protocol() == "http/1.1"
            assert ask(connection, front.target, FORM % b"newer").headers["X-Push-Outcome"] == "accepted"
    finally:
        front.trusted.set_alpn_protocols(["http/1.1"])


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_refused_but_where_it_was_let_in(front: Nginx, version: ssl.TLSVersion) -> None:
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"), front.connect(client(version)):
        pass
    with front.connect(client(version), port=front.old_tls_port) as connection:
        assert ask(connection, front.target, FORM % b"old").headers["X-Push-Outcome"] == "accepted"
        assert ask(connection, "/console/login").status == 404


def test_plain_http_is_closed_without_an_answer(front: Nginx) -> None:
    with socket.create_connection(("127.0.0.1", front.plain_port), timeout=20) as connection:
        connection.sendall(f"POST {front.target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
        assert connection.recv(100) == b""
    with socket.create_connection(("127.0.0.1", front.plain_port), timeout=20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")  # without a host: nginx answers this by itself
        answer = read_answer(connection)
    assert (answer.status, answer.headers["Server"]) == (400, "nginx")


def test_plain_http_passes_where_the_platform_alone_was_let_in(front: Nginx) -> None:
    with socket.create_connection(("127.0.0.1", front.old_port), timeout=20) as connection:
        assert ask(connection, front.target, FORM % b"plain").headers["X-Push-Outcome"] == "accepted"
        assert ask(connection, "/console/login").status == 404
    with socket.create_connection(("127.0.0.1", front.old_port), timeout=20, source_address=(LIMITED, 0)) as connection:
        assert ask(connection, front.target, FORM % b"stranger").status == 403


# --- What passes --------------------------------------------------------------------------------------


def test_push_passes_byte_for_byte_and_the_peer_is_who_it_is(
    front: Nginx, receivers: tuple[ServeProcess, ServeProcess]
) -> None:
    content = "收到".encode("gb18030")
    query = b"mobile=15080921090&taskid=q1&receivetime=2019-07-23%2017:00:00&content=" + content
    with front.connect() as connection:
        spoofed = ("X-Forwarded-For: 192.0.2.1", "X_Forwarded_For: 192.0.2.2")
        in_query = ask(connection, f"{front.target}/reply?" + query.decode("latin-1"), b"", *spoofed)
        body = FORM % b"chunked"
        connection.sendall(
            f"POST {front.target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        )
        chunked = read_answer(connection)
    assert [answer.headers["X-Push-Outcome"] for answer in (in_query, chunked)] == ["accepted"] * 2
    assert journalled(receivers[0], in_query.headers["X-Push-Id"]) == ("127.0.0.1", query, b"")
    assert journalled(receivers[0], chunked.headers["X-Push-Id"]) == ("127.0.0.1", b"", body)


@pytest.mark.parametrize("size", [65_537, 900_000, 3_000_000])
def test_refusal_of_a_large_push_arrives(front: Nginx, size: int) -> None:
    with front.connect() as connection:
        assert ask(connection, front.target, b"x" * size).status == 413


def test_a_query_of_nearly_64_kib_is_taken(front: Nginx) -> None:
    query = (FORM % b"long").decode() + "&more=" + "x" * 64_000
    with front.connect() as connection:
        assert ask(connection, f"{front.target}?{query}").headers["X-Push-Outcome"] == "accepted"


def test_mistyped_path_of_a_push_is_for_the_receiver(front: Nginx) -> None:
    with front.connect() as connection:
        answer = ask(connection, front.target.replace("/push", "/Push"), FORM % b"capital")
        assert (answer.status, answer.headers["X-Push-Outcome"]) == (200, "accepted")
        for path in (f"/push?token={SECRET}", f"/PUSH/?token={SECRET}", "/push"):
            answer = ask(connection, path, FORM % b"nobody")
            assert (answer.status, b"no such address" in answer.body) == (404, True)


def test_world_gets_pushes_alone_and_the_house_all_but_them(front: Nginx) -> None:
    with front.connect() as connection:
        for path in ("/console/login", "/api/v1/messages", "/metrics", "/healthz", "/"):
            assert ask(connection, path).status == 404
    with front.connect(port=front.inside_port) as connection:
        assert ask(connection, "/healthz").status == 200
        assert ask(connection, front.target, FORM % b"inside").status == 404
    with front.connect(port=front.inside_port) as connection:
        assert ask(connection, "/console/login").status in (200, 303)


def test_scripts_and_json_are_compressed_and_no_page_is(front: Nginx) -> None:
    def fetch(path: str, accepted: str) -> tuple[int, str | None, bytes]:
        with front.connect(port=front.inside_port) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {NAME}\r\nAccept-Encoding: {accepted}\r\n\r\n".encode())
            answer = HTTPResponse(connection)
            answer.begin()
            return answer.status, answer.headers["Content-Encoding"], answer.read()

    for path in ("/console/static/console.css", "/api/v1/docs/swagger-ui-bundle.js", "/api/v1/openapi.json"):
        _, _, plain = fetch(path, "identity")
        status, encoding, body = fetch(path, "gzip")
        assert (status, encoding, gzip.decompress(body)) == (200, "gzip", plain), path
    for path in ("/console/login", "/api/v1/docs", "/api/v1/errors"):
        assert fetch(path, "gzip")[:2] == (200, None), path


def test_limit_meets_others_and_never_the_platform(front: Nginx) -> None:
    statuses = {}
    for address in ("127.0.0.1", LIMITED):
        plain = socket.create_connection(("127.0.0.1", front.port), timeout=20, source_address=(address, 0))
        with front.trusted.wrap_socket(plain, server_hostname=NAME) as connection:
            statuses[address] = {ask(connection, f"/push/{'x' * 30}", b"").status for _ in range(400)}
    assert statuses == {"127.0.0.1": {404}, LIMITED: {404, 429}}


# --- What is written down, and who is dead --------------------------------------------------------------


def test_dead_receiver_costs_no_push_and_no_log_tells_the_secret(
    front: Nginx, receivers: tuple[ServeProcess, ServeProcess]
) -> None:
    one, other = receivers
    with Pushers(front, 8, pause_seconds=0.005) as pushers:
        for receiver in (one, other):
            pushers.await_acks(100)
            kill(receiver)
            pushers.await_acks(100)
            receiver.start()
    assert (pushers.failures, set(pushers.outcomes)) == (0, {"accepted"})
    kill(one)
    kill(other)
    with front.connect() as connection:
        answer = ask(connection, front.target, FORM % b"nobody")
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    target = front.target
    for path in (target.replace("/push", "/pusch"), f"{target}%zz", f"{target}/../..", target[1:]):
        with front.connect() as connection:
            assert ask(connection, path, b"").status in (400, 404)
    with socket.create_connection(("127.0.0.1", front.old_port), timeout=20) as connection:
        assert ask(connection, front.target, FORM % b"nobody").status == 503
    with front.connect() as connection:
        connection.sendall(f"POST {front.target} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n".encode())
    one.start()
    other.start()
    written = front.logs()
    assert SECRET not in written
    assert "15080921090" not in written
    assert '"path":"/push/***"' in written
    assert '"status":"503"' in written
    assert f"127.0.0.1:{one.port}" in written


class _Slow(BaseHTTPRequestHandler):
    """A receiver that never answers."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        time.sleep(4)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_export_that_takes_too_long_is_not_begun_a_second_time(tmp_path: Path) -> None:
    with ExitStack() as stack:
        servers = [ThreadingHTTPServer(("127.0.0.1", 0), _Slow) for _ in range(2)]
        for server in servers:
            stack.callback(server.server_close)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
        ports = [server.server_address[1] for server in servers]
        nginx = Nginx(place=tmp_path, receivers=ports, platform="127.0.0.1/32")
        for file in tmp_path.rglob("receiver.conf"):  # a second and a half for 75, and one for 5
            file.write_text(file.read_text().replace(" 75s;  # ?wait", " 1500ms;  # ?wait").replace(" 5s;", " 1s;"))
        front = stack.enter_context(nginx)
        paths = ["/api/v1/exports/messages?format=xlsx", "/console/exports/replies", "/api/v1/messages"]
        with ThreadPoolExecutor(len(paths)) as pool:
            answers = pool.map(lambda path: ask(front.connect(port=front.inside_port), path), paths)
            statuses = [answer.status for answer in answers]
    assert statuses == [504, 504, 504]
    assert [_Slow.asked.count(path) for path in paths] == [1, 1, 2]


def kill(receiver: ServeProcess) -> None:
    """End a receiver at once, workers first noticing that their master is gone."""
    master, worker = receiver.await_worker()
    receiver.kill(master)
    receiver.kill(worker)
    receiver.await_gone([worker])
