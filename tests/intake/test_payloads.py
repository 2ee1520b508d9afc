"""Every payload of the table against the real server: raw request in, answer and row out."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from receiver.core import is_masked, shown_content
from tests.harness.server import Answer, ServeProcess
from tests.payloads import CASES, Case

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    url = request.getfixturevalue("module_postgres_database_url") if request.param == "postgresql" else ""
    process = ServeProcess(tmp_path_factory.mktemp("payloads"), url)
    if url:
        process.upgrade()
    with process:
        process.key = process.make_key("read", "pushes", "pii")
        yield process


def raw_request(case: Case, target: str) -> bytes:
    if case.raw is not None:
        return case.raw.replace(b"{target}", target.encode()).replace(
            b"{secret}", target.removeprefix("/push/").encode()
        )
    url = (target + case.path).encode() + (b"?" + case.query if case.query else b"")
    lines = [case.method.encode() + b" " + url + b" HTTP/1.1", b"Host: localhost"]
    lines += [f"{name}: {value}".encode("latin-1") for name, value in case.headers]
    body = case.body
    if case.chunked:
        lines.append(b"Transfer-Encoding: chunked")
        pieces = [body[i : i + 7] for i in range(0, len(body), 7)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    elif body or case.method not in ("GET", "HEAD"):
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", b""]) + body


def newest(served: ServeProcess, path: str, *, limit: int = 3) -> list[dict[str, Any]]:
    answer = served.request("GET", f"/api/v1/{path}?limit={limit}", headers=served.key)
    assert answer.status == 200, answer.body
    items: list[dict[str, Any]] = answer.json["items"]
    return items


def assert_row(row: dict[str, Any], expected: dict[str, object], case: Case) -> None:
    wanted = dict(expected)
    masked = wanted.pop("masked", None)
    if masked is not None:
        assert is_masked(row["mobile"]) == masked
    if "content" in wanted:
        content = str(wanted.pop("content"))
        assert row["content"] == wanted.pop("content_shown", shown_content(content)), case.name
    assert {name: row[name] for name in wanted} == wanted, case.name


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_payload(case: Case, served: ServeProcess) -> None:
    before = [push["id"] for push in newest(served, "pushes")]
    answer = served.exchange(raw_request(case, served.target), end_sending=True)
    pushes = [push for push in newest(served, "pushes") if push["id"] not in before]
    require(case, answer, pushes, lambda kind: newest(served, kind))


def require(
    case: Case,
    answer: Answer,
    pushes: list[dict[str, Any]],  # what is new in the journal
    rows_of: Callable[[str], list[dict[str, Any]]],  # among others those of this push
) -> None:
    """See that the answer and what is left are those of the table."""
    assert answer.status == case.http_status
    if case.outcome is None:
        assert pushes == []
        assert "X-Push-Id" not in answer.headers
        return
    (push,) = pushes
    assert answer.headers["X-Push-Id"] == push["id"]
    assert (answer.headers["X-Push-Outcome"], push["outcome"]) == (case.outcome, case.outcome)
    assert answer.headers.get("X-Push-Error", "") == (push["error"] or "") == case.error
    if case.raw is None:
        assert base64.b64decode(push["body_base64"]) == case.body
        assert push["query"].encode("latin-1") == case.query
        assert push["method"] == case.method
    for kind, expected in (("receipts", case.receipt), ("replies", case.reply)):
        rows = [row for row in rows_of(kind) if row["push_id"] == push["id"]]
        assert len(rows) == (expected is not None), case.name
        if expected is not None:
            assert_row(rows[0], expected, case)
    if case.outcome == "accepted":
        assert tuple(push["flags"]) == case.flags


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServeProcess, ServeProcess]]:
    """The same server with the push lane and without it."""
    lane, flask = (
        ServeProcess(tmp_path_factory.mktemp(f"lane-{switch}"), environment={"RECEIVER_PUSH_LANE": switch})
        for switch in ("on", "off")
    )
    with lane, flask:
        yield lane, flask


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_both_doors_answer_alike(case: Case, doors: tuple[ServeProcess, ServeProcess]) -> None:
    lane, flask = (answer_line_by_line(door, case) for door in doors)
    assert lane == flask


def answer_line_by_line(door: ServeProcess, case: Case) -> tuple[object, ...]:
    # A peer that has said all keeps its side open, as one that may push again does; one that broke off closes it.
    answer = door.exchange(raw_request(case, door.target), end_sending=case.raw is not None)
    headers = [
        (name, "…" if name in ("Date", "X-Push-Id", "X-Request-Id") else value)  # of one name each, see read_answer
        for name, value in answer.headers.items()
    ]
    return answer.status, headers, answer.body


def test_lane_takes_ordinary_pushes_and_only_where_it_is_on(doors: tuple[ServeProcess, ServeProcess]) -> None:
    ordinary = b"mobile=15080921090&taskid=1&status=1&receivetime=2019-07-23+17%3A00%3A00"
    for door, taken in zip(doors, (True, False), strict=True):
        before = fast_path_pushes(door)
        assert door.push(ordinary).status == 200
        assert fast_path_pushes(door) - before == taken


def fast_path_pushes(door: ServeProcess) -> float:
    text = door.request("GET", "/metrics").body.decode()
    return float(
        next(line.split()[1] for line in text.splitlines() if line.startswith("receiver_fast_path_pushes_total "))
    )
