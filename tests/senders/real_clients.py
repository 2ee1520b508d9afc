"""What real clients push is stored exactly as meant.

`make test-senders` runs it. No other run collects it: its name is not that of a test module.
"""

from __future__ import annotations

import sqlite3
import time
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

import pytest

from tests.harness.certificates import Files
from tests.harness.server import ServeProcess
from tests.senders.clients import CLIENTS, Client, Push
from tests.senders.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Build = Callable[[Client], Path]

MOBILE = "15080921090"
AT = "2019-07-23 17:00:00"
AT_UTC = "2019-07-23T09:00:00Z"
CONTENTS = ("收到", "退订", "收 到+&*~ 退订", "C++ 50% a=b;c", "👍🏽 好的 😀", "𠮷野家", "“é” ＡＢＣ１２")
QUERY_CONTENTS = ("收到", "退 订+&😀")
KEPT_SECONDS = 2
WAY_SECONDS = 0.2  # so slow that many pushes cross that end
# Around the end of an idle connection, as the client has it; a sweep every half second brings that end.
IDLE_SECONDS = (0.0, 1.8, 1.9, 2.0, 2.1, 2.2)
DATABASE_SECONDS = 30
AT_ONCE = 5  # clients that wait for that end beside each other

every_client = pytest.mark.parametrize("client", CLIENTS, ids=[client.name for client in CLIENTS])
kept_and_new = pytest.mark.parametrize("kept", [True, False], ids=["kept", "new"])


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Build a client once; skip where this machine has not what it needs."""
    built: dict[str, Path] = {}

    def once(client: Client) -> Path:
        if client.lacks:
            pytest.skip(f"left out, for want of {' '.join(client.lacks)}")
        if client.name not in built:
            place = tmp_path_factory.mktemp("client")
            client.build(place)
            built[client.name] = place
        return built[client.name]

    return once


class House:
    """A receiver, the counted way to it, and what its API says."""

    def __init__(self, process: ServeProcess, relay: Relay, authority: Path | None) -> None:
        self.authority = authority
        self.relay = relay
        scheme = "http" if authority is None else "https"
        self.url = f"{scheme}://localhost:{relay.port}{process.target}"
        self._process = process
        self._key = process.make_key("read", "pushes", "pii")

    def await_database(self) -> None:
        """Wait until it is asked again, which an outage puts off for a moment."""
        deadline = time.monotonic() + DATABASE_SECONDS
        while self._process.request("GET", "/api/v1/pushes", headers=self._key).status != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def ask(self, path: str) -> Any:
        answer = self._process.request("GET", f"/api/v1/{path}", headers=self._key)
        assert answer.status == 200, answer.body
        return answer.json

    def assert_stored_as_meant(self, push: Push, line: str) -> None:
        """One push in the journal, read as accepted without help, and one receipt or reply that says the same."""
        status, push_id = line.split(" ", 1)
        assert status == "200", line
        kept = self.ask(f"pushes/{push_id}")
        assert (kept["outcome"], kept["error"], kept["flags"], kept["method"]) == ("accepted", None, [], "POST")
        body, query = b64decode(kept["body_base64"]).decode(), kept["query"]
        assert (body if push.fields is None else query) == ""
        (row,) = self.rows(push)
        assert (row["push_id"], row["mobile"], row["copies"]) == (push_id, MOBILE, 1)
        fields = fields_of(push)
        assert dict(parse_qsl(query or body, keep_blank_values=True)) == fields
        if "content" in fields:
            assert (row["content"], row["replied_at"]) == (fields["content"], AT_UTC)
        else:
            assert (row["vendor_status"], row["reported_at"]) == (fields["status"], AT_UTC)

    def rows(self, push: Push) -> list[dict[str, Any]]:
        """The receipts or replies of a push' task."""
        fields = fields_of(push)
        kind = "replies" if "content" in fields else "receipts"
        items: list[dict[str, Any]] = self.ask(f"{kind}?{urlencode({'task_id': fields['taskid']})}")["items"]
        return items


def fields_of(push: Push) -> dict[str, str]:
    return push.fields if push.fields is not None else dict(parse_qsl(push.url.partition("?")[2]))


@contextmanager
def open_house(
    place: Path, files: Files | None = None, *, way_seconds: float = 0.0, **settings: Any
) -> Iterator[House]:
    authority = None
    environment = dict(settings.pop("environment", {}))
    if files is not None:
        authority = place / "authority.pem"
        files.authority.cert_pem.write_to_path(str(authority))
        environment |= files.environment
    tls = None if files is None else files.trusting()
    with (
        ServeProcess(place, environment=environment, tls=tls, **settings) as process,
        Relay(process.port, way_seconds) as relay,
    ):
        yield House(process, relay, authority)


@pytest.fixture(scope="module", params=["plain", "TLS", "plain, by Flask", "TLS, by Flask"])
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    files = None
    if "TLS" in request.param:
        files = Files(tmp_path_factory.mktemp("certificate"))
        # Debian's commons-httpclient fails on a certificate that has no common name (a null pointer in its own patch).
        files.write(files.authority.issue_cert("localhost", "127.0.0.1", common_name="localhost"))
    environment = {"RECEIVER_PUSH_LANE": "off" if "Flask" in request.param else "on"}
    with open_house(tmp_path_factory.mktemp("house"), files, environment=environment) as opened:
        yield opened


def receipt(task_id: str, status: str = "1") -> dict[str, str]:
    return {"mobile": MOBILE, "taskid": task_id, "status": status, "receivetime": AT}


def reply(task_id: str, content: str) -> dict[str, str]:
    return {"mobile": MOBILE, "taskid": task_id, "content": content, "receivetime": AT}


def samples(url: str, run: str) -> list[Push]:
    """Receipts and replies as forms to the three addresses, and as a query behind a POST without a body."""
    forms = [receipt(f"{run}-receipt"), *(reply(f"{run}-{place}", content) for place, content in enumerate(CONTENTS))]
    bare = [
        receipt(f"{run}-query-receipt"),
        *(reply(f"{run}-query-{place}", content) for place, content in enumerate(QUERY_CONTENTS)),
    ]
    return [
        *(Push(url, form) for form in forms),
        Push(f"{url}/receipt", receipt(f"{run}-own-receipt")),
        Push(f"{url}/reply", reply(f"{run}-own-reply", CONTENTS[0])),
        *(Push(f"{url}?{urlencode(fields)}", None) for fields in bare),
    ]


@every_client
@kept_and_new
def test_every_push_of_a_real_client_is_stored_once_as_meant(
    client: Client, house: House, build: Build, *, kept: bool
) -> None:
    place = build(client)
    pushes = samples(house.url, f"{CLIENTS.index(client)}-{'kept' if kept else 'new'}")
    before = house.relay.connections
    lines = client.run(place, pushes, kept=kept, authority=house.authority)
    assert len(lines) == len(pushes), lines
    for push, line in zip(pushes, lines, strict=True):
        house.assert_stored_as_meant(push, line)
    assert house.relay.connections - before == (1 if kept and client.keeps else len(pushes))


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Let nothing write into a database meanwhile."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@pytest.fixture(scope="module")
def full_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("full")


@pytest.fixture(scope="module")
def full_house(full_place: Path) -> Iterator[House]:
    """A receiver whose spool takes nothing."""
    with open_house(full_place, patient=False, environment={"RECEIVER_SPOOL_MAX_BYTES": "1"}) as opened:
        yield opened


@every_client
def test_real_client_hears_503_while_nothing_can_be_kept_and_is_stored_once_afterwards(
    client: Client, full_house: House, full_place: Path, build: Build
) -> None:
    place = build(client)
    push = Push(full_house.url, reply(f"{CLIENTS.index(client)}-503", CONTENTS[2]))
    with locked(full_place / "receiver.db"):
        (line,) = client.run(place, [push], kept=True)
    assert line.split(" ")[0] == "503", line
    full_house.await_database()
    assert full_house.rows(push) == []
    (line,) = client.run(place, [push], kept=True)
    full_house.assert_stored_as_meant(push, line)


@pytest.fixture(scope="module")
def brief_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with open_house(tmp_path_factory.mktemp("brief"), way_seconds=WAY_SECONDS, keepalive=KEPT_SECONDS) as opened:
        yield opened


def test_no_push_of_a_real_client_is_lost_where_its_kept_connection_ends(brief_house: House, build: Build) -> None:
    """Whatever its client is told: what crosses the end is committed, and what is repeated is stored once."""

    def push_late(client: Client) -> list[Push]:
        run = f"edge-{CLIENTS.index(client)}"
        pushes = [
            Push(brief_house.url, receipt(f"{run}-{place}"), seconds) for place, seconds in enumerate(IDLE_SECONDS)
        ]
        lines = client.run(places[client], pushes, kept=True)
        assert len(lines) == len(pushes), lines
        return [push for push in pushes if len(brief_house.rows(push)) != 1]

    places = {client: build(client) for client in CLIENTS if client.keeps and client.pauses and not client.lacks}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        lost = dict(zip([client.name for client in places], pool.map(push_late, places), strict=True))
    assert {name: pushes for name, pushes in lost.items() if pushes} == {}
