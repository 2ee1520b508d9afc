"""The gate: secrets, addresses, proxies, in order."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest
from gunicorn.config import Config

from receiver.intake.admission import Admission, PushRequest, Refused, client_address
from receiver.server.fast_path import FastPath
from receiver.web.monitored import create_monitored
from tests.conftest import OTHER_SECRET, SECRET, make_settings
from tests.web.console.staff import one_database

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from receiver.runtime import Runtime

PROXIES = (ip_network("10.0.0.0/8"), ip_network("127.0.0.1/32"))
BODY = b"mobile=15080921090&taskid=1&status=1&receivetime=2019-07-23+17:00:00"


def request(
    *, secret: str = SECRET, peer: str = "192.0.2.1", length: str | None = None, body: bytes = BODY
) -> PushRequest:
    rest = [body]

    def read(max_bytes: int) -> bytes:
        piece, rest[0] = rest[0][:max_bytes], rest[0][max_bytes:]
        return piece

    return PushRequest(
        secret=secret,
        endpoint=None,
        method="POST",
        query=b"",
        content_length=str(len(body)) if length is None else length,
        chunked=False,
        content_type=None,
        peer=peer,
        forwarded_for=None,
        read=read,
    )


def gate(tmp_path: Path, **changes: object) -> Admission:
    return Admission(make_settings("sqlite://", tmp_path, **changes))


def refused(gate: Admission, wrong: PushRequest) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        gate.admit(wrong)
    return caught.value.status, caught.value.reason


def test_each_secret_opens_its_account_and_several_may_be_valid(tmp_path: Path) -> None:
    rotated = "the-next-secret-of-the-default-account-0000"
    tokens = (("default", SECRET), ("other", OTHER_SECRET), ("default", rotated))
    opened = gate(tmp_path, push_tokens=tokens)
    accounts = {}
    for secret in (SECRET, OTHER_SECRET, rotated):
        push = opened.admit(request(secret=secret))
        assert push is not None
        accounts[secret] = push.account
    assert accounts == {SECRET: "default", OTHER_SECRET: "other", rotated: "default"}


def test_checks_come_in_the_order_secret_address_length_size(tmp_path: Path) -> None:
    closed = gate(tmp_path, push_allow=(ip_network("198.51.100.0/24"),))
    inside = "198.51.100.7"
    assert refused(closed, request(secret="x" * 30, length="bad")) == (404, "secret")
    assert refused(closed, request(length="bad")) == (403, "address")
    assert refused(closed, request(peer=inside, length="bad")) == (400, "length")
    assert refused(closed, request(peer=inside, length="99999999")) == (413, "size")
    assert refused(closed, request(peer=inside, length=str(len(BODY) + 1))) == (400, "length")
    assert closed.admit(request(peer=inside)) is not None
    assert [refusal.reason for refusal in closed.refusals] == ["secret", "address", "length", "size", "length"]


@one_database
def test_push_from_outside_the_allow_list_goes_down_no_lane(make_runtime: Callable[..., Runtime]) -> None:
    runtime = make_runtime(push_allow=(ip_network("198.51.100.0/24"),))
    lane = FastPath(create_monitored(runtime), Config())
    head = lane.head(b"POST /push/%b HTTP/1.1\r\nContent-Length: 8\r\n\r\n" % SECRET.encode(), ("192.0.2.1", 1))
    assert head is not None
    kept: list[object] = []
    assert not lane.admit_and_enqueue(head, b"mobile=1", ("192.0.2.1", 1), kept.append)  # the reference refuses it
    assert lane.admit_and_enqueue(head, b"mobile=1", ("198.51.100.7", 1), kept.append)


def test_refusals_are_remembered_in_bounds(tmp_path: Path) -> None:
    opened = gate(tmp_path)
    for _ in range(250):
        refused(opened, request(secret="y" * 30))
    assert len(opened.refusals) == 100


@pytest.mark.parametrize("secret", ["", "é" * 30, "\udc80" * 30, SECRET[:-1], SECRET + "x"])
def test_secret_of_any_shape_is_only_wrong(secret: str, tmp_path: Path) -> None:
    assert refused(gate(tmp_path), request(secret=secret)) == (404, "secret")


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.1", None, "192.0.2.1"),
        ("192.0.2.1", "203.0.113.9", "192.0.2.1"),  # forged: the peer is no proxy of ours
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "198.51.100.1, 203.0.113.9", "203.0.113.9"),  # the client wrote the first itself
        ("10.0.0.1", "203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9, nonsense, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("::ffff:10.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("", "203.0.113.9", ""),
    ],
)
def test_client_address_is_the_last_that_no_trusted_proxy_vouches_for(
    peer: str, forwarded: str | None, address: str
) -> None:
    assert client_address(peer, forwarded, PROXIES) == address
