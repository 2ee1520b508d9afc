"""The way out: nothing is sent where it could do harm, whatever a name, a URL or an answer says."""

from __future__ import annotations

import socket
import ssl
import threading
import traceback
from base64 import b64encode
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest
import trustme

from receiver.config import parsers
from receiver.net.egress import encode_headers, fetch
from receiver.net.egress_client import EgressClient, EgressResponse
from receiver.net.egress_policy import (
    EgressError,
    EgressForbidden,
    EgressNotSent,
    EgressPolicy,
    EgressUnsendable,
    is_public,
    parse_url,
)
from tests.harness.hooks import Hook, hook
from tests.harness.proxies import proxy_to

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


def send(
    url: str,
    guard: EgressPolicy | None = None,
    *,
    tls: ssl.SSLContext | None = None,
    body: bytes = b"a=1",
    seconds: float = 15.0,
) -> EgressResponse:
    place = parse_url(url)
    way = EgressClient(place, guard or EgressPolicy(LOOPBACK), connections=1, tls=tls)
    try:
        return way.send("POST", place.line(), encode_headers({"Content-Type": "text/plain"}), body, seconds=seconds)
    finally:
        way.close()


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.9.10", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.254", "192.168.1.1",
        "169.254.169.254", "100.100.100.200", "100.64.0.1", "192.0.0.192", "192.0.2.1", "198.18.0.1", "198.51.100.1",
        "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "192.88.99.1",
        "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:0a00:0001", "fc00::1",
        "fd00:ec2::254", "fe80::1", "fe80::a9fe:a9fe", "fec0::1", "ff02::1", "2001:db8::1", "3fff::1", "2001::1",
        "2001:10::1", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:0001::",
        "2002:a9fe:a9fe::",        "2002:0a00:0001::1", "100::1", "5f00::1", "4000::1",
    ],
)  # fmt: skip
def test_address_that_is_not_public_is_refused(address: str) -> None:
    assert not is_public(ip_address(address))
    with pytest.raises(EgressForbidden):
        EgressPolicy((), lambda *_: [address]).addresses("any.example", 443)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "223.5.5.5", "2606:4700:4700::1111", "64:ff9b::101:101", "2002:101:101::1"]
)
def test_address_that_is_public_is_taken(address: str) -> None:
    assert EgressPolicy((), lambda *_: [address]).addresses("any.example", 443) == [str(ip_address(address))]


@pytest.mark.parametrize(
    "url",
    [
        "http://2130706433/", "http://0x7f000001/", "http://0177.0.0.1/", "http://127.1/", "http://0/", "http://0x7f.1/",
        "http://[::ffff:127.0.0.1]/", "http://[::1]/", "http://localhost/", "http://LOCALHOST./", "http://127.0.0.1./",
    ],
)  # fmt: skip
def test_this_machine_is_refused_however_it_is_written(url: str) -> None:
    with pytest.raises((EgressForbidden, EgressError)):
        send(url, EgressPolicy(()))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "example.com/hook", "https://", "http:///x",
        "https://user@example.com/", "https://user:secret@example.com/", "https://example.com\\@127.0.0.1/",
        "https://example.com/#x", "https://example.com:0/", "https://example.com:99999/", "https://[::1/", "https://例子.cn/",
        "https://example.com/a b", "https://example.com/\r\nX: y", "https://example.com/" + "x" * 2000,
    ],
)  # fmt: skip
def test_url_that_could_mean_two_things_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"not a URL|no user"):
        parse_url(url)


def test_name_beyond_ascii_is_refused_with_the_form_to_write() -> None:
    with pytest.raises(ValueError, match="write a host's name as xn--…"):
        parse_url("https://müller.example/x")
    assert parse_url("https://xn--mller-kva.example/x").host == "xn--mller-kva.example"


def test_next_address_is_taken_where_one_cannot_be_reached() -> None:
    with hook() as target:
        guard = EgressPolicy(LOOPBACK, lambda *_: ["127.0.0.2", "127.0.0.1"])  # nobody listens at the first
        assert send(f"http://hooks.example:{target.port}/", guard).status == 200


def test_one_forbidden_address_of_several_refuses_all() -> None:
    with pytest.raises(EgressForbidden):
        EgressPolicy((), lambda *_: ["1.1.1.1", "10.0.0.1"]).addresses("any.example", 443)


def test_name_that_changes_its_address_is_looked_at_anew_at_each_connection() -> None:
    """Rebinding: the first look-up is harmless, and the one that a client would connect by is not."""
    answers = iter([["1.1.1.1"], ["127.0.0.1"]])
    guard = EgressPolicy((), lambda *_: next(answers))
    with hook() as target:
        assert guard.addresses("rebinding.example", target.port) == ["1.1.1.1"]
        with pytest.raises(EgressForbidden):
            send(f"http://rebinding.example:{target.port}/", guard)
        assert target.all == []


def test_connection_goes_to_the_address_that_was_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between look and connection nobody resolves again: a resolver that says something else then is not asked."""
    with hook() as target:
        guard = EgressPolicy(LOOPBACK, lambda *_: ["127.0.0.1"])
        asked = []
        original = socket.getaddrinfo

        def resolve(host: str, *arguments: object, **named: object) -> object:
            asked.append(host)
            return original(host, *arguments, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        assert send(f"http://no.such.name.example:{target.port}/", guard).status == 200
        assert set(asked) <= {"127.0.0.1"}


def test_redirect_to_the_metadata_of_a_cloud_is_not_followed() -> None:
    with hook() as target, hook() as other:
        for status in (301, 302, 303, 307, 308):
            target.behave = lambda _sent, status=status: (status, {"Location": other.url("/latest/meta-data/")})  # type: ignore[misc]
            assert send(target.url()).status == status
        assert other.all == []


def test_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with hook() as target, hook() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url(""))
        assert send(target.url()).status == 200
        assert proxy.all == []


def test_network_or_name_that_is_allowed_may_be_reached() -> None:
    assert EgressPolicy((ip_network("10.1.0.0/16"),), lambda *_: ["10.1.2.3"]).addresses("a.example", 1) == ["10.1.2.3"]
    mapped = EgressPolicy((ip_network("10.1.0.0/16"),), lambda *_: ["::ffff:10.1.2.3"])
    assert [ip_address(text) for text in mapped.addresses("a.example", 1)] == [ip_address("::ffff:10.1.2.3")]
    with pytest.raises(EgressForbidden):
        EgressPolicy((ip_network("10.1.0.0/16"),), lambda *_: ["10.2.2.3"]).addresses("a.example", 1)
    assert EgressPolicy(("hooks.internal",), lambda *_: ["10.9.9.9"]).addresses("Hooks.Internal", 1) == ["10.9.9.9"]
    with pytest.raises(EgressForbidden):
        EgressPolicy(("hooks.internal",), lambda *_: ["10.9.9.9"]).addresses("evil.hooks.internal", 1)


def test_setting_names_networks_and_hosts() -> None:
    found = parsers.webhooks_allow("10.0.0.0/8, fd00::/8, hooks.internal, 192.168.1.5")
    assert found == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"), "hooks.internal", ip_network("192.168.1.5/32"))
    for wrong in ("10.0.0.0/33", "http://hooks.internal", "*.internal", "10.0.0.300", "10.0.0.1/8", "a b"):
        with pytest.raises(ValueError, match="not a list of networks"):
            parsers.webhooks_allow(wrong)


def test_certificate_must_hold_for_the_name() -> None:
    authority = trustme.CA()
    served, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(served)
    authority.configure_trust(trusting)
    with hook(served) as target:
        guard = EgressPolicy(LOOPBACK, lambda *_: ["127.0.0.1"])
        assert send(target.url(), guard, tls=trusting).status == 200
        with pytest.raises(EgressError, match="certificate"):
            send(target.url().replace("localhost", "other.example"), guard, tls=trusting)
        with pytest.raises(EgressError, match="certificate"):
            send(target.url(), guard)
        assert len(target.all) == 1


@contextmanager
def speaking(speak: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that says whatever it is told to, on one connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                with suppress(OSError):  # the other side has had enough, which is what it is about
                    speak(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


def test_authorities_are_read_for_https_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda *given, **_: read.append(given))
    for scheme, times in (("http", 0), ("https", 1)):
        EgressClient(parse_url(f"{scheme}://example.com/"), EgressPolicy(LOOPBACK)).close()
        assert len(read) == times


def test_exchange_ends_in_time_however_slowly_the_answer_drips() -> None:
    ended = threading.Event()

    def drip(connection: socket.socket) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"y" * 600:  # half a minute
            connection.sendall(bytes([byte]))
            if ended.wait(0.05):
                return

    with speaking(drip) as url:
        with pytest.raises(EgressError, match="no answer within"):
            send(url, seconds=1.0)
        ended.set()


def test_answer_is_read_up_to_a_bound() -> None:
    written = 0

    def flood(connection: socket.socket) -> None:
        nonlocal written
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            written += connection.send(b"x" * 65536)

    with speaking(flood) as url:
        assert send(url).status == 200
    assert written < 50_000_000


def test_operators_request_goes_where_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "localhost")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with hook() as target:
        url = target.url("/门?名=值#part").replace("//", "//me:se%20cret@")
        assert fetch("GET", url, {"X-Own": "1"}, seconds=15).status == 200
        (sent,) = target.taken
    assert sent.path == "/%E9%97%A8?%E5%90%8D=%E5%80%BC"
    assert sent.headers["Authorization"] == "Basic bWU6c2UgY3JldA=="
    assert sent.headers["X-Own"] == "1"
    assert sent.headers["Host"] == f"localhost:{target.port}"


def test_operators_request_takes_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with hook() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url("").replace("//", "//me:se%20cret@"))
        assert fetch("GET", "http://no.such.name.example/x", {}, seconds=15).status == 200
        (sent,) = proxy.taken
    assert sent.path == "http://no.such.name.example/x"
    assert sent.headers["Proxy-Authorization"] == "Basic bWU6c2UgY3JldA=="


@pytest.mark.parametrize(
    "proxy", ["http://me:pa/ss@127.0.0.1:1", "http://127.0.0.1:port", "socks5://127.0.0.1:1", "http://"]
)
def test_proxy_of_the_environment_that_is_none_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(EgressNotSent, match="proxy that the environment names") as refused:
        fetch("GET", "http://no.such.name.example/x", {}, seconds=15)
    assert "'pa'" not in "".join(traceback.format_exception(refused.value))


def test_proxy_that_refuses_is_named_with_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    with speaking(lambda connection: connection.sendall(refusal)) as proxy:
        monkeypatch.setenv("https_proxy", proxy)
        with pytest.raises(EgressNotSent, match=r"made no connection \(407 Proxy Authentication Required\)"):
            fetch("GET", "https://no.such.name.example/x", {}, seconds=15)


def test_silent_address_leaves_the_next_its_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with hook() as target, socket.socket() as silent, ExitStack() as stack:
        silent.bind(("127.0.0.2", target.port))
        silent.listen(0)
        for _ in range(4):  # its queue is full: what comes now gets no answer
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.2", target.port))
        places = (("127.0.0.2", target.port), ("127.0.0.1", target.port))
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]
        plain = socket.getaddrinfo
        monkeypatch.setattr(
            socket, "getaddrinfo", lambda host, *a, **k: found if host == "shop.example" else plain(host, *a, **k)
        )
        assert fetch("GET", f"http://shop.example:{target.port}/", {}, seconds=4).status == 200


def test_operators_server_is_tried_at_each_of_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    with hook() as target:
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, target.port)) for each in ("127.0.0.2", "127.0.0.1")
        ]
        plain = socket.getaddrinfo
        monkeypatch.setattr(
            socket, "getaddrinfo", lambda host, *a, **k: found if host == "shop.example" else plain(host, *a, **k)
        )
        assert fetch("GET", f"http://shop.example:{target.port}/", {}, seconds=15).status == 200
    with pytest.raises(EgressNotSent, match="does not resolve"):
        fetch("GET", "http://no-such-host.invalid/", {}, seconds=15)


@pytest.mark.parametrize("url", ["", "http://", "ftp://example.com/", "http://example.com:99999/", "http://[::1/"])
def test_operators_url_that_is_none_is_not_sent(url: str) -> None:
    with pytest.raises(EgressUnsendable, match="cannot be used"):
        fetch("GET", url, {}, seconds=15)


def test_connection_that_was_never_made_is_told_from_one_that_broke() -> None:
    with hook() as gone:
        pass
    with pytest.raises(EgressNotSent, match="takes no connection"):
        send(gone.url())
    with speaking(lambda _: None) as url, pytest.raises(EgressError, match="ended without an answer") as broken:
        send(url)
    assert not isinstance(broken.value, EgressNotSent)


def test_exchange_under_way_is_broken_off_when_the_process_stops() -> None:
    with hook() as target:
        target.behave = lambda _sent: None
        place = parse_url(target.url())
        way = EgressClient(place, EgressPolicy(LOOPBACK), connections=1)
        found: list[Exception] = []

        def attempt() -> None:
            try:
                way.send("POST", place.line(), (), seconds=60)
            except EgressError as error:
                found.append(error)

        thread = threading.Thread(target=attempt)
        thread.start()
        target.await_tried(1)
        way.abort()
        thread.join(10)
        assert not thread.is_alive()
        assert len(found) == 1
        way.close()


def test_hook_of_the_tests_takes_what_is_sent() -> None:
    with hook() as target:
        assert isinstance(target, Hook)
        assert send(target.url("/a?b=1"), body=b"x=%31").status == 200
        (sent,) = target.taken
    assert (sent.method, sent.path, sent.body) == ("POST", "/a?b=1", b"x=%31")
    assert sent.headers["Host"] == f"localhost:{target.port}"


def test_webhook_goes_through_its_proxy_which_resolves_the_name() -> None:
    def unknown(*_: object) -> list[str]:
        raise OSError

    with hook() as target, proxy_to(target.port) as proxy:
        policy = EgressPolicy((), unknown, proxy=proxy.url("me:se%20cret"))
        assert send("http://shop.example:8080/hook?key=1", policy).status == 200
        (sent,) = target.taken
        assert (sent.path, sent.headers["Host"], sent.body) == ("/hook?key=1", "shop.example:8080", b"a=1")
        (head,) = proxy.heads
        assert head.startswith(b"POST http://shop.example:8080/hook?key=1 HTTP/1.1\r\n")
        assert b"Proxy-Authorization: Basic " + b64encode(b"me:se cret") in head


def test_webhook_over_tls_goes_through_a_tunnel_and_the_certificate_is_the_servers() -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("shop.example").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with hook(context) as target, proxy_to(target.port) as proxy:
        policy = EgressPolicy((), lambda *_: ["1.1.1.1"], proxy=proxy.url("me:secret"))
        assert send("https://shop.example/hook", policy, tls=trusting).status == 200
        with pytest.raises(EgressError, match="certificate"):
            send("https://other.example/hook", policy, tls=trusting)
        assert [one.path for one in target.taken] == ["/hook"]
        first, second = proxy.heads
        assert first.startswith(b"CONNECT shop.example:443 HTTP/1.1\r\n")
        assert second.startswith(b"CONNECT other.example:443 HTTP/1.1\r\n")
        assert "Proxy-Authorization" not in target.taken[0].headers


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://127.0.0.1/", "127.0.0.1"),
        ("http://169.254.169.254/latest/meta-data/", "169.254.169.254"),
        ("http://inside.example/", "10.1.2.3"),
        ("http://2130706433/", "127.0.0.1"),
    ],
)
def test_proxy_is_not_asked_for_what_is_inside(url: str, found: str) -> None:
    with hook() as target, proxy_to(target.port) as proxy:
        with pytest.raises(EgressForbidden):
            send(url, EgressPolicy((), lambda *_: [found], proxy=proxy.url()))
        assert proxy.heads == []


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1.", "127.0.0.1..", "127.1", "127.1.", "0177.0.0.1", "0x7f.0.0.1", "0x7f000001", "2130706433",
        "127.0.0.0x1", "a.1", "127.0.0.1%2e", "%31%32%37.0.0.1", "127%2e0.0.1", "[::1%25lo]", "localhost", "LOCALHOST.",
        "a.localhost", "localhost.localdomain", "inside", "inside.", "127.0.0.1,example.com",
    ],
)  # fmt: skip
def test_proxy_is_not_asked_for_an_address_in_disguise(host: str) -> None:
    def unknown(*_: object) -> list[str]:
        raise OSError

    for found in (unknown, lambda *_: ["1.1.1.1"]):
        policy = EgressPolicy((), found, proxy="http://127.0.0.1:1")
        with pytest.raises(EgressForbidden):
            policy.check(parse_url(f"http://{host}/").host, 80)


@pytest.mark.parametrize("host", ["shop.example", "Shop.Example.", "a_b.x--1.example", "1.2.3.4.example", "a.0xyz"])
def test_proxy_is_asked_for_a_full_name_that_is_unknown_here(host: str) -> None:
    def unknown(*_: object) -> list[str]:
        raise OSError

    EgressPolicy((), unknown, proxy="http://127.0.0.1:1").check(host, 80)
    EgressPolicy((), lambda *_: ["1.1.1.1"], proxy="http://127.0.0.1:1").check("1.1.1.1", 80)
    EgressPolicy(("inside",), lambda *_: ["10.1.2.3"], proxy="http://127.0.0.1:1").check("inside", 80)
    with pytest.raises(EgressNotSent):
        EgressPolicy((), unknown).check(host, 80)


def test_what_is_allowed_by_name_or_address_is_reached_without_the_proxy() -> None:
    with hook() as target, proxy_to(target.port) as proxy:
        for allowed, url in (("localhost", target.url()), (LOOPBACK[0], f"http://127.0.0.1:{target.port}/")):
            assert send(url, EgressPolicy((allowed,), proxy=proxy.url())).status == 200
        assert proxy.heads == []


@pytest.mark.parametrize(
    "url", ["socks5://a:1", "http://", "http://a/path", "a:1", "http://me:pa/ss@a:1", "http://a:x"]
)
def test_proxy_that_is_none_stops_the_start_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="http://HOST:PORT") as refused:
        parsers.proxy(url)
    assert "pa/ss" not in str(refused.value)
