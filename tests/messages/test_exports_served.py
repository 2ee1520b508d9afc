"""Exports over a real server: the first bytes leave while the rest is read, and what a client has left ends."""

from __future__ import annotations

import io
import secrets
import socket
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import openpyxl
import pytest
import sqlalchemy as sa

from receiver.db.engine import Database
from receiver.db.tables import messages
from tests.harness.factories import NOON
from tests.harness.server import ServeProcess, read_answer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROWS = 8000
SHEET = "/api/v1/exports/messages?format=xlsx"


@pytest.fixture
def served(tmp_path: Path, database_url: str) -> Iterator[ServeProcess]:
    """A server with more rows than the buffers of a connection hold, whatever compresses them."""
    server = ServeProcess(tmp_path, database_url)
    server.upgrade()
    rows = [
        {"account": "default", "task_id": str(number), "mobile": "15080921090", "status": 0, "seen": 0,
         "recorded_at": NOON, "error_message": secrets.token_hex(1500)}
        for number in range(ROWS)
    ]  # fmt: skip
    with closing(Database(database_url)) as database:
        database.write(lambda connection: connection.execute(sa.insert(messages), rows))
    with server:
        yield server


def begin(server: ServeProcess, headers: dict[str, str]) -> socket.socket:
    """Ask for an XLSX and read its head and first bytes; the client then reads nothing more."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(60)
    connection.connect(("127.0.0.1", server.port))
    lines = [f"GET {SHEET} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in headers.items())]
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    assert read_answer(connection).status == 200
    assert b"PK\x03\x04" in connection.recv(64)
    return connection


def read_whole(server: ServeProcess, headers: dict[str, str]) -> bytes | None:
    """Return a whole XLSX; None: there is no place for it."""
    url = f"http://127.0.0.1:{server.port}{SHEET}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            data: bytes = answer.read()
            return data
    except urllib.error.HTTPError as error:
        if error.code != 503:
            raise
        return None


def test_workbook_begins_at_once_and_ends_where_its_client_has_left(served: ServeProcess) -> None:
    headers = served.make_key("export")
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(begin(served, headers))
        third = served.request("GET", SHEET, headers=headers)
        assert (third.status, third.json["code"], third.headers["Retry-After"]) == (503, "overloaded", "20")
        assert served.request("HEAD", SHEET, headers=headers).status == 200
    deadline = time.monotonic() + 60  # both clients have left
    while (whole := read_whole(served, headers)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    sheet = openpyxl.load_workbook(io.BytesIO(whole), read_only=True).active
    names, *rows = sheet.iter_rows(values_only=True)
    assert [row[names.index("task_id")] for row in rows] == [str(number) for number in range(ROWS)]
